/* The HTTP server around its parser: connections, requests, bodies and answers, with a socket pair for a
 * network.
 *
 * The same bytes are sent twice, at once and in fragments whose sizes the input begins with. Both times the
 * same requests must be served, and the connection be refused or not: where a request ends must not depend on
 * how its bytes arrive. The owner does by the path what owners do: collect, stream with pauses, answer at
 * once, answer later.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/conn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SIZES = 8, MAX_FRAGMENTS = 200, TURNS = 3, SETTLE = 8, BODY_MAX = 100 };

static struct {
    struct loop *loop;
    struct http_server *server;
    struct loop_task turn, later;
    int turns;
    struct http_request *held; /* to be answered, or resumed, in a later turn */
    struct buf body;           /* of a stream */
    struct buf *served;
    uint64_t calls; /* of the owner's functions: while they go on, something moves */
} f;

static void note(struct http_request *r, struct str body)
{
    buf_str(f.served, http_method_text(r));
    buf_byte(f.served, ' ');
    buf_str(f.served, http_path(r));
    buf_byte(f.served, '?');
    buf_str(f.served, http_query(r));
    buf_byte(f.served, ' ');
    buf_str(f.served, body);
    buf_byte(f.served, '\n');
}

static void on_body(void *arg, struct http_request *r, struct str body)
{
    (void)arg;
    f.calls++;
    struct http_body *kept = http_body_take(r);
    INVARIANT(kept != NULL && str_eq(http_body_view(kept), body));
    note(r, http_body_view(kept));
    http_body_free(&kept);
    http_reply(r, 200, "text/plain", STR("collected"));
}

static void on_later(void *arg)
{
    (void)arg;
    f.calls++;
    struct http_request *r = f.held;
    f.held = NULL;
    if (r == NULL)
        return;
    if (str_starts(http_path(r), STR("/s")))
        http_body_resume(r);
    else
        http_reply(r, 200, "text/plain", STR("later"));
}

static bool on_data(void *arg, struct http_request *r, struct str piece)
{
    (void)arg;
    f.calls++;
    buf_str(&f.body, piece);
    if (piece.p[0] % 3 != 0)
        return true;
    f.held = r;
    loop_task_post(f.loop, &f.later, on_later, NULL);
    return false;
}

static void on_end(void *arg, struct http_request *r)
{
    (void)arg;
    f.calls++;
    note(r, buf_view(&f.body));
    http_stream_start(r, 200, "text/plain", -1);
    http_stream_write(r, STR("streamed"));
    http_stream_end(r);
}

static void on_request(void *arg, struct http_request *r)
{
    (void)arg;
    f.calls++;
    static const char *const known[] = {"wait", "limit", "metadata.", NULL};
    static const struct http_body_stream stream = {.on_data = on_data, .on_end = on_end};
    struct str path = http_path(r), value;
    http_query_check(r, known, NULL);
    http_query_get(r, "wait", &value, NULL);
    http_header(r, "authorization", &value);
    if (str_starts(path, STR("/c"))) {
        http_read_body(r, BODY_MAX, on_body, NULL);
    } else if (str_starts(path, STR("/s"))) {
        buf_clear(&f.body);
        http_stream_body(r, BODY_MAX, &stream);
    } else if (str_starts(path, STR("/l"))) {
        note(r, STR("")); /* whatever its body is: it is not read */
        f.held = r;
        loop_task_post(f.loop, &f.later, on_later, NULL);
    } else {
        note(r, STR(""));
        http_reply(r, 200, NULL, STR("at once"));
    }
}

static void on_gone(void *arg, struct http_request *r)
{
    (void)arg;
    if (f.held == r)
        f.held = NULL;
}

static void set_up(void)
{
    if (f.loop != NULL)
        return;
    f.loop = loop_new();
    buf_init(&f.body, 2 * BODY_MAX);
    f.server =
        http_server_open(f.loop,
                         &(struct http_server_options){.listen = "127.0.0.1:0",
                                                       .app = {.on_request = on_request, .on_gone = on_gone},
                                                       .max_header_bytes = 600,
                                                       .max_headers = 20},
                         NULL);
    INVARIANT(f.server != NULL);
}

/* ---- turns of the loop ---- */

static void on_turn(void *arg)
{
    if (--f.turns <= 0)
        loop_stop(f.loop);
    else
        loop_task_post(f.loop, &f.turn, on_turn, arg);
}

/* The first of them comes before the sockets are looked at, so two are the least that moves anything. */
static void turns(int n)
{
    f.turns = n;
    loop_task_post(f.loop, &f.turn, on_turn, NULL);
    loop_run(f.loop);
}

/* ---- a run ---- */

struct run {
    struct buf served, said;
};

/* Whether anything came. */
static bool listen_to(int fd, struct run *r)
{
    char piece[4096];
    ssize_t n;
    bool any = false;
    while ((n = recv(fd, piece, sizeof piece, MSG_DONTWAIT)) > 0) {
        buf_append(&r->said, piece, (size_t)n);
        any = true;
    }
    return any;
}

static void run(struct run *r, struct str bytes, const uint8_t *sizes)
{
    int pair[2];
    struct sockaddr_in6 peer = {.sin6_family = AF_INET6};
    INVARIANT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    buf_init(&r->served, (size_t)1 << 20);
    buf_init(&r->said, (size_t)1 << 22);
    f.served = &r->served;
    http_server_take(f.server, pair[0], &peer);
    for (int i = 0; bytes.n > 0; i++) {
        size_t n = sizes != NULL && i < MAX_FRAGMENTS ? (size_t)sizes[i % SIZES] + 1 : bytes.n;
        n = n < bytes.n ? n : bytes.n;
        ssize_t sent = send(pair[1], bytes.p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            break; /* refused before */
        if (sent > 0)
            bytes = str_make(bytes.p + sent, bytes.n - (size_t)sent);
        turns(sizes != NULL ? 2 : TURNS);
        listen_to(pair[1], r);
    }
    uint64_t before;
    do { /* until nothing moves any more: a call in the last turn may have left something to do */
        before = f.calls;
        turns(SETTLE);
    } while (listen_to(pair[1], r) || f.calls != before);
    close(pair[1]);
    while (http_server_connections(f.server) > 0)
        turns(2);
    turns(2); /* the dead are reaped */
    INVARIANT(f.held == NULL && http_server_body_bytes(f.server) == 0);
}

static bool was_refused(const struct run *r)
{
    return r->said.len > 0 && memmem(r->said.data, r->said.len, "HTTP/1.1 4", 10) != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < SIZES || size > 4096)
        return -1;
    set_up();
    struct str bytes = str_make((const char *)data + SIZES, size - SIZES);
    struct run whole, parts;
    run(&whole, bytes, NULL);
    run(&parts, bytes, data);
    INVARIANT(str_eq(buf_view(&whole.served), buf_view(&parts.served)));
    INVARIANT(was_refused(&whole) == was_refused(&parts));
    INVARIANT(!whole.served.failed && !whole.said.failed);
    buf_deinit(&whole.served);
    buf_deinit(&whole.said);
    buf_deinit(&parts.served);
    buf_deinit(&parts.said);
    return 0;
}
