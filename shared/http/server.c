/* The listening side: the address, accepting in batches, the deadlines' sweep, draining and closing.
 *
 * Deadlines: each connection keeps two numbers; one timer goes around all connections several times a second,
 * a slice of them a tick, so that thousands of slow clients never hold up the others' requests for the whole
 * round. That is cheaper than a timer a connection (no heap moves per request, no memory per idle client),
 * and no deadline here needs more than its precision: a quarter of the shortest deadline, 250 ms at most. */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/conn.h"

enum { ACCEPT_BATCH = 64, BACKLOG = 4096, SWEEP_MAX_MS = 250, SWEEP_MIN_MS = 5 };
enum { SWEEP_AT_ONCE = 256 /* connections; more are cut into slices */, SWEEP_TICK_MS = 5 };

/* ---- options and address ---- */

static void or_default(int64_t *v, int64_t fallback)
{
    if (*v == 0)
        *v = fallback;
}

static void set_defaults(struct http_server_options *o)
{
    o->max_connections = o->max_connections > 0 ? o->max_connections : 12000;
    o->max_header_bytes = o->max_header_bytes > 0 ? o->max_header_bytes : 16384;
    o->max_headers = o->max_headers > 0 ? o->max_headers : 100;
    or_default(&o->header_timeout_ms, 10000);
    or_default(&o->idle_timeout_ms, 75000);
    or_default(&o->body_timeout_ms, 30000);
    or_default(&o->body_min_rate, 512);
    or_default(&o->body_span_ms, 10000);
    or_default(&o->body_whole_ms, 60000);
    or_default(&o->body_whole_rate, 32 * 1024);
    or_default(&o->write_timeout_ms, 30000);
    or_default(&o->evict_after_ms, 1000);
    o->max_body_bytes = o->max_body_bytes > 0 ? o->max_body_bytes : (size_t)256 * 1024 * 1024;
}

/* A descriptor a connection, and some for the rest of the process: without them nothing works any more. */
static void fit_descriptors(struct http_server_options *o)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= INT_MAX)
        return;
    int room = (int)limit.rlim_cur > 2 * SPARE_DESCRIPTORS ? (int)limit.rlim_cur - SPARE_DESCRIPTORS
                                                           : (int)limit.rlim_cur / 2;
    o->max_connections = o->max_connections < room ? o->max_connections : room;
}

/* "1.2.3.4:80", "[::1]:80", ":80" (every IPv4 address). */
static int parse_address(const char *text, struct sockaddr_in6 *out, socklen_t *len_out, struct err *err)
{
    const char *colon = text != NULL ? strrchr(text, ':') : NULL;
    uint64_t port;
    if (colon == NULL || !str_to_u64(str_of(colon + 1), &port) || port > 65535)
        return err_set(err, ERR_CONFIG, "listen address \"%s\": wanted host:port", text != NULL ? text : "");
    char host[64];
    struct str h = str_make(text, (size_t)(colon - text));
    bool v6 = h.n >= 2 && h.p[0] == '[' && h.p[h.n - 1] == ']';
    if (v6)
        h = str_make(h.p + 1, h.n - 2);
    *out = (struct sockaddr_in6){0};
    struct sockaddr_in *a4 = (struct sockaddr_in *)(void *)out;
    if (str_eq_c(h, "localhost"))
        h = STR("127.0.0.1");
    else if (h.n == 0 || str_eq_c(h, "*"))
        h = v6 ? STR("::") : STR("0.0.0.0");
    if (!str_copy(h, host, sizeof host) ||
        inet_pton(v6 ? AF_INET6 : AF_INET, host, v6 ? (void *)&out->sin6_addr : (void *)&a4->sin_addr) != 1)
        return err_set(err, ERR_CONFIG, "listen address \"%s\": the host must be a numeric address", text);
    if (v6) {
        out->sin6_family = AF_INET6;
        out->sin6_port = htons((uint16_t)port);
    } else {
        a4->sin_family = AF_INET;
        a4->sin_port = htons((uint16_t)port);
    }
    *len_out = v6 ? sizeof *out : sizeof *a4;
    return 0;
}

static int listen_on(struct http_server *s, struct err *err)
{
    struct sockaddr_in6 a;
    socklen_t len;
    if (parse_address(s->o.listen, &a, &len, err) != 0)
        return -1;
    s->fd = socket(a.sin6_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->fd < 0)
        return err_set(err, ERR_IO, "socket: %s", strerror(errno));
    int one = 1;
    setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one,
               sizeof one); /* accepted sockets inherit both of these */
    setsockopt(s->fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    if (s->o.reuse_port)
        setsockopt(s->fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (bind(s->fd, (struct sockaddr *)&a, len) != 0 || listen(s->fd, BACKLOG) != 0)
        return err_set(err, ERR_IO, "listen on %s: %s", s->o.listen, strerror(errno));
    len = sizeof a;
    getsockname(s->fd, (struct sockaddr *)&a, &len);
    s->port = ntohs(a.sin6_port); /* at the same place in sockaddr_in */
    return 0;
}

/* ---- accepting ---- */

static void link_conn(struct http_server *s, struct conn *c)
{
    c->next = s->conns;
    c->pprev = &s->conns;
    if (s->conns != NULL)
        s->conns->pprev = &c->next;
    s->conns = c;
    s->count++;
}

/* Some of those for whom there is no room are taken in to be told so: closed at once, with their request
 * unread, they would rather see a reset than the answer. */
void http_server_take(struct http_server *s, int fd, const struct sockaddr_in6 *peer)
{
    bool room = s->count < s->o.max_connections || quiet_evict(s);
    struct conn *c =
        room || s->count < s->o.max_connections + BUSY_CONNECTIONS ? conn_new(s, fd, peer) : NULL;
    if (c == NULL) {
        reply_busy(s, fd);
        shutdown(fd, SHUT_WR);
        close(fd);
        return;
    }
    link_conn(s, c);
    if (room)
        return;
    reply_refuse(c, ERR_OVERLOADED, "too many connections");
    conn_wake(c);
}

static void accept_some(struct http_server *s, int max)
{
    for (int i = 0; i < max; i++) {
        struct sockaddr_in6 peer = {0};
        socklen_t len = sizeof peer;
        int got = accept4(s->fd, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (got >= 0) {
            http_server_take(s, got, &peer);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            loop_io_set(s->io, 0); /* till the next sweep: the backlog holds them */
            s->accept_paused = true;
        }
        if (errno != EINTR && errno != ECONNABORTED)
            return;
    }
}

static void on_accept(void *arg, int fd, int events)
{
    (void)fd, (void)events;
    accept_some(arg, ACCEPT_BATCH);
}

/* ---- the sweep and the dead ---- */

/* In what time each connection is looked at once. */
static int64_t sweep_ms(const struct http_server_options *o)
{
    int64_t shortest = o->header_timeout_ms;
    const int64_t others[] = {o->idle_timeout_ms, o->body_timeout_ms, o->write_timeout_ms, o->body_span_ms};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        shortest = others[i] < shortest ? others[i] : shortest;
    int64_t ms = shortest / 4;
    return ms > SWEEP_MAX_MS ? SWEEP_MAX_MS : ms < SWEEP_MIN_MS ? SWEEP_MIN_MS : ms;
}

/* Looks at the next slice. New connections are linked in before the place where it stands: they are met in
 * the next round, long before a deadline of theirs. */
static void on_sweep(void *arg)
{
    struct http_server *s = arg;
    mono_t now = mono_now();
    int64_t round_ms = sweep_ms(&s->o), tick_ms = s->count > SWEEP_AT_ONCE ? SWEEP_TICK_MS : round_ms;
    int64_t left = s->count * tick_ms / round_ms + 1;
    if (s->sweep_next == NULL)
        s->sweep_next = s->conns;
    while (s->sweep_next != NULL && left-- > 0) {
        struct conn *c = s->sweep_next;
        s->sweep_next = c->next; /* conn_close moves it on when that one is closed */
        conn_expire(c, now);
    }
    loop_timer_start(s->sweep, tick_ms);
    if (s->accept_paused && !s->draining) {
        s->accept_paused = false;
        loop_io_set(s->io, LOOP_READ);
    }
}

void http_server_reap(void *arg)
{
    struct http_server *s = arg;
    while (s->dead != NULL) {
        struct conn *c = s->dead;
        s->dead = c->next;
        conn_free(c);
    }
}

/* ---- the server ---- */

struct http_server *http_server_open(struct loop *loop, const struct http_server_options *options,
                                     struct err *err)
{
    struct http_server *s = malloc(sizeof *s);
    if (s == NULL) {
        err_set(err, ERR_NO_MEMORY, "http server");
        return NULL;
    }
    memset(s, 0, offsetof(struct http_server, shared));
    s->loop = loop;
    s->o = *options;
    s->fd = -1;
    set_defaults(&s->o);
    fit_descriptors(&s->o);
    buf_init(&s->head, 64 * 1024);
    s->budget = body_budget_new(s->o.max_body_bytes);
    if (s->budget == NULL || listen_on(s, err) != 0) {
        http_server_close(&s);
        return NULL;
    }
    s->io = loop_io_new(loop, s->fd, LOOP_READ, on_accept, s);
    s->sweep = loop_timer_new(loop, on_sweep, s);
    if (s->io == NULL || s->sweep == NULL) {
        err_set(err, ERR_NO_MEMORY, "http server");
        http_server_close(&s);
        return NULL;
    }
    loop_timer_start(s->sweep, sweep_ms(&s->o));
    return s;
}

void http_server_drain(struct http_server *s)
{
    if (s->draining)
        return;
    accept_some(s, BACKLOG); /* closed with the listening socket, they would be reset */
    s->draining = true;
    loop_io_free(&s->io);
    close(s->fd);
    s->fd = -1;
    for (struct conn *c = s->conns; c != NULL; c = c->next)
        if (c->state == CONN_IDLE)
            conn_wake(c);
}

int http_server_connections(const struct http_server *s)
{
    return s->count;
}

int http_server_max_connections(const struct http_server *s)
{
    return s->o.max_connections;
}

uint64_t http_server_evicted(const struct http_server *s)
{
    return s->evicted;
}

size_t http_server_body_bytes(const struct http_server *s)
{
    return s->budget->held;
}

int http_server_port(const struct http_server *s)
{
    return s->port;
}

void http_server_close(struct http_server **server)
{
    if (server == NULL || *server == NULL)
        return;
    struct http_server *s = *server;
    while (s->conns != NULL)
        conn_close(s->conns);
    loop_task_cancel(s->loop, &s->reap);
    http_server_reap(s);
    loop_timer_free(&s->sweep);
    loop_io_free(&s->io);
    if (s->fd >= 0)
        close(s->fd);
    buf_deinit(&s->head);
    body_budget_release(&s->budget);
    free(s);
    *server = NULL;
}
