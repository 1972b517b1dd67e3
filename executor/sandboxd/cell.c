/* Cells: starting the program, its socket, its end (cell.h).
 *
 * Killing the program kills the sandbox: it is bubblewrap's outer process by then, whose death signal ends
 * the supervisor, pid 1 inside, with which the kernel ends every process of the pid namespace. What stays are
 * empty cgroup directories; they are removed on a timer until it works. Messages that the socket cannot take
 * wait in a queue with a cap: the supervisor reads promptly, so a full queue means that it is starved or
 * gone.
 *
 * stderr of the cell, slirp4netns, bubblewrap and the supervisor is a small pipe that nobody drains and that
 * no write waits for: what does not fit is lost. It is read once, when the cell has failed, to say why. */
#include "cell.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "ids.h"
#include "tool.h"

enum {
    SOCKET_BYTES = 1 << 20, /* room for the largest message */
    QUEUE_MAX = 64,         /* messages that wait for the supervisor */
    READ_BUDGET = 32,       /* messages taken per wake-up */
    BUILD_MS = 30000,       /* deadline of BUILDING */
    ENTER_MS = 15000,       /* deadline of ENTERING */
    REMOVE_EVERY_MS = 20,
    REMOVE_TRIES = 1500,
    CHILD_FD_FLOOR = 64,
    STDERR_BYTES = 4096, /* capacity of the pipe: one page */
    SAID_BYTES = 400,    /* of it, at most, in a message: the end, which tells most */
};

enum cell_state { CELL_BUILDING, CELL_READY, CELL_ENTERING, CELL_LIVE, CELL_DYING };

struct queued {
    struct queued *next;
    int fds[4], fd_count;
    size_t n;
    uint8_t data[];
};

struct cell {
    struct cell_works *works;
    enum cell_state state;
    char name[CELL_NAME_BYTES];
    int number;
    const struct cell_events *events; /* NULL once the owner let go */
    void *arg;
    pid_t pid; /* 0 once reaped */
    int sock, stderr_fd;
    struct loop_io *io;
    struct loop_timer *timer; /* BUILDING, ENTERING: the deadline; DYING: the next try at removing */
    int removes;
    struct queued *first, **last;
    int queue_count;
    char why[200];
};

static uint8_t inbox[WIRE_MAX_BYTES]; /* one loop, one message at a time */

/* ---- the end ---- */

static void cell_destroy(struct cell *c)
{
    c->works->alive--;
    loop_timer_free(&c->timer);
    free(c);
}

static void remove_disk(const struct cell *c)
{
    char path[512];
    if (c->works->plan->disk_blank[0] != '\0')
        return; /* an image has no name */
    snprintf(path, sizeof path, "%s/%s", c->works->plan->disk_dir, c->name);
    if (tool_remove_tree(path, NULL) != 0)
        log_warn("a disk directory stays behind", LF_STR("path", path));
}

static void on_remove(void *arg)
{
    struct cell *c = arg;
    if (c->pid == 0 && cgroups_remove(c->works->cgroups, c->name)) {
        remove_disk(c);
        c->works->taken[c->number] = false;
        cell_destroy(c);
        return;
    }
    if (++c->removes < REMOVE_TRIES) {
        loop_timer_start(c->timer, REMOVE_EVERY_MS);
        return;
    }
    log_error("a dead cell's cgroups cannot be removed", LF_STR("cell", c->name),
              LF_BOOL("reaped", c->pid == 0));
    cell_destroy(c); /* its number stays taken */
}

static void on_timer(void *arg);

static void queue_drop(struct cell *c)
{
    while (c->first != NULL) {
        struct queued *q = c->first;
        c->first = q->next;
        for (int i = 0; i < q->fd_count; i++)
            close(q->fds[i]);
        explicit_bzero(q->data, q->n); /* it may hold an environment */
        free(q);
    }
    c->last = &c->first;
    c->queue_count = 0;
}

static void cell_die(struct cell *c)
{
    if (c->state == CELL_DYING)
        return;
    c->state = CELL_DYING;
    if (c->pid > 0)
        kill(c->pid, SIGKILL);
    cgroups_freeze(c->works->cgroups, c->name, false); /* v1: a frozen process does not die */
    queue_drop(c);
    loop_io_free(&c->io);
    close(c->sock);
    close(c->stderr_fd);
    loop_timer_start(c->timer, 1);
}

/* What the programs of a cell left on stderr, as one line. "" when they were silent. */
static void read_said(const struct cell *c, char out[SAID_BYTES])
{
    char text[STDERR_BYTES + 1];
    ssize_t n = read(c->stderr_fd, text, sizeof text - 1);
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' '))
        n--;
    text[n > 0 ? n : 0] = '\0';
    for (ssize_t i = 0; i < n; i++)
        if (text[i] == '\n')
            text[i] = ';';
    snprintf(out, SAID_BYTES, "%.*s", SAID_BYTES - 1, n >= SAID_BYTES ? text + n - SAID_BYTES + 1 : text);
}

static void cell_fail(struct cell *c, const char *why)
{
    const struct cell_events *events = c->events;
    void *arg = c->arg;
    char text[sizeof c->why + SAID_BYTES + 16], said[SAID_BYTES];
    read_said(c, said);
    snprintf(text, sizeof text, "%s%s%s", c->why[0] != '\0' ? c->why : why,
             said[0] != '\0' ? "; stderr: " : "", said);
    c->events = NULL;
    cell_die(c);
    if (events != NULL)
        events->on_gone(arg, text);
}

void cell_kill(struct cell **c)
{
    if (*c == NULL)
        return;
    (*c)->events = NULL;
    cell_die(*c);
    *c = NULL;
}

static void on_child_end(void *arg, int status)
{
    struct cell *c = arg;
    char why[64];
    c->pid = 0;
    snprintf(why, sizeof why, "%s ended (%s %d)",
             c->state == CELL_ENTERING ? "bubblewrap" : "the sandbox's outer process",
             WIFEXITED(status) ? "status" : "signal",
             WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    if (c->state != CELL_DYING)
        cell_fail(c, why);
}

/* ---- messages ---- */

static void set_state(struct cell *c, enum cell_state to, int64_t deadline_ms)
{
    INVARIANT(to == c->state + 1 && to < CELL_DYING);
    c->state = to;
    if (deadline_ms > 0)
        loop_timer_start(c->timer, deadline_ms);
    else
        loop_timer_stop(c->timer);
}

static void on_timer(void *arg)
{
    struct cell *c = arg;
    if (c->state == CELL_DYING)
        on_remove(c);
    else
        cell_fail(c, c->state == CELL_BUILDING ? "the cell was not built in time"
                                               : "the sandbox did not start in time");
}

static void take_message(struct cell *c, size_t n, const int *fds, int fd_count)
{
    struct wire_reader r;
    enum wire_type type;
    uint32_t ticket;
    bool ok = wire_open(&r, inbox, n, &type, &ticket) == 0;
    if (ok && c->state == CELL_LIVE) {
        if (c->events != NULL)
            c->events->on_message(c->arg, type, ticket, &r, fds, fd_count);
        return;
    }
    for (int i = 0; i < fd_count; i++)
        close(fds[i]);
    if (ok && c->state == CELL_BUILDING && type == WIRE_BUILT) {
        set_state(c, CELL_READY, 0);
        if (c->events != NULL)
            c->events->on_built(c->arg);
    } else if (ok && c->state == CELL_ENTERING && type == WIRE_HELLO) {
        set_state(c, CELL_LIVE, 0);
        if (c->events != NULL)
            c->events->on_live(c->arg);
    } else if (ok && type == WIRE_BROKEN) {
        snprintf(c->why, sizeof c->why, "%.180s", wire_get_cstr(&r));
        cell_fail(c, "broken");
    } else {
        cell_fail(c, "unexpected message");
    }
}

static void receive(struct cell *c)
{
    int fds[WIRE_MAX_FDS], fd_count;
    for (int i = 0; i < READ_BUDGET; i++) {
        ssize_t n = wire_recv(c->sock, inbox, sizeof inbox, fds, &fd_count, false);
        if (n < 0 && (errno == EAGAIN || errno == EMSGSIZE))
            return;
        if (n <= 0) {
            cell_fail(c, c->state == CELL_ENTERING ? "bubblewrap ended" : "the supervisor ended");
            return;
        }
        take_message(c, (size_t)n, fds, fd_count);
        if (c->state == CELL_DYING)
            return;
    }
}

static void flush(struct cell *c)
{
    while (c->first != NULL) {
        struct queued *q = c->first;
        if (wire_send(c->sock, q->data, q->n, q->fds, q->fd_count) < 0) {
            if (errno != EAGAIN)
                cell_fail(c, "the supervisor is gone");
            return;
        }
        c->first = q->next;
        if (c->first == NULL)
            c->last = &c->first;
        c->queue_count--;
        for (int i = 0; i < q->fd_count; i++)
            close(q->fds[i]);
        explicit_bzero(q->data, q->n); /* it may hold an environment */
        free(q);
    }
    loop_io_set(c->io, LOOP_READ);
}

static void on_io(void *arg, int fd, int events)
{
    struct cell *c = arg;
    (void)fd;
    if ((events & LOOP_WRITE) != 0)
        flush(c);
    if ((events & LOOP_READ) != 0 && c->state != CELL_DYING)
        receive(c);
}

static int queue_add(struct cell *c, const struct wire_writer *msg, const int *fds, int fd_count,
                     struct err *err)
{
    struct queued *q = malloc(sizeof *q + msg->len);
    if (q == NULL)
        return err_set(err, ERR_NO_MEMORY, "message");
    *q = (struct queued){.n = msg->len};
    memcpy(q->data, msg->buf, msg->len);
    for (int i = 0; i < fd_count; i++) {
        q->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
        if (q->fds[i] >= 0)
            q->fd_count++;
    }
    *c->last = q;
    c->last = &q->next;
    c->queue_count++;
    loop_io_set(c->io, LOOP_READ | LOOP_WRITE);
    return 0;
}

static int send_message(struct cell *c, const struct wire_writer *msg, const int *fds, int fd_count,
                        struct err *err)
{
    if (msg->bad)
        return err_set(err, ERR_LIMIT, "the request is too large for a sandbox");
    if (c->first == NULL && wire_send(c->sock, msg->buf, msg->len, fds, fd_count) == 0)
        return 0;
    if (c->first == NULL && errno != EAGAIN)
        return err_set(err, ERR_IO, "sandbox: %s", strerror(errno));
    if (c->queue_count >= QUEUE_MAX || fd_count > 4)
        return err_set(err, ERR_OVERLOADED, "the sandbox does not keep up");
    return queue_add(c, msg, fds, fd_count, err);
}

int cell_send(struct cell *c, const struct wire_writer *msg, const int *fds, int fd_count, struct err *err)
{
    if (c->state != CELL_LIVE)
        return err_set(err, ERR_UNAVAILABLE, "the sandbox is not running");
    return send_message(c, msg, fds, fd_count, err);
}

/* ---- the beginning ---- */

/* In the child, until exec: async-signal-safe calls only. */
_Noreturn static void child_run(const char *program, int sock, int stderr_fd)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    int null = open("/dev/null", O_RDWR);
    int high = fcntl(sock, F_DUPFD, CHILD_FD_FLOOR);
    if (null < 0 || high < 0 || dup2(stderr_fd, 2) < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 ||
        dup2(high, WIRE_SOCKET) < 0)
        _exit(126);
    close_range(WIRE_SOCKET + 1, ~0U, 0);
    execle(program, "sandpiper-sandbox-cell", (char *)NULL, (char *const[]){NULL});
    _exit(127);
}

static int spawn(struct cell *c, struct err *err)
{
    int pair[2], words[2], size = SOCKET_BYTES;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_set(err, ERR_UNAVAILABLE, "socketpair: %s", strerror(errno));
    if (pipe2(words, O_CLOEXEC | O_NONBLOCK) < 0) {
        close(pair[0]);
        close(pair[1]);
        return err_set(err, ERR_UNAVAILABLE, "pipe: %s", strerror(errno));
    }
    fcntl(words[1], F_SETPIPE_SZ, STDERR_BYTES);
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 2; i++)
        if (setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
            setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    c->pid = fork();
    if (c->pid == 0)
        child_run(c->works->program, pair[1], words[1]);
    close(pair[1]);
    close(words[1]);
    c->sock = pair[0];
    c->stderr_fd = words[0];
    if (c->pid < 0) {
        close(pair[0]);
        close(words[0]);
        return err_set(err, ERR_UNAVAILABLE, "fork: %s", strerror(errno));
    }
    return 0;
}

static int send_plan(struct cell *c, struct err *err)
{
    static uint8_t room[64 * 1024];
    static struct cgroup_room paths;
    struct plan plan = *c->works->plan;
    struct wire_writer w;
    cgroups_plan(c->works->cgroups, c->name, &paths, &plan);
    plan.disk_name = c->name;
    plan.run_base = plan.uid_base;
    if (c->works->own_ids)
        plan.run_base += IDS_COUNT * (uint32_t)(c->number + 1); /* the first range is that of the disks */
    wire_begin(&w, room, sizeof room, WIRE_BUILD, 0);
    plan_put(&w, &plan);
    return send_message(c, &w, NULL, 0, err);
}

static int free_number(const struct cell_works *works)
{
    int n = 0;
    while (n < CELL_MAX && works->taken[n])
        n++;
    return n;
}

struct cell *cell_new(struct cell_works *works, const struct cell_events *events, void *arg, struct err *err)
{
    static uint64_t serial;
    int number = free_number(works);
    struct cell *c = number < CELL_MAX ? calloc(1, sizeof *c) : NULL;
    if (c != NULL)
        c->timer = loop_timer_new(works->loop, on_timer, c);
    if (c == NULL || c->timer == NULL) {
        free(c);
        err_set(err, ERR_NO_MEMORY, "cell");
        return NULL;
    }
    c->works = works;
    c->last = &c->first;
    snprintf(c->name, sizeof c->name, "cell-%llu", (unsigned long long)++serial);
    if (spawn(c, err) != 0) {
        loop_timer_free(&c->timer);
        free(c);
        return NULL;
    }
    works->alive++;
    works->taken[c->number = number] = true;
    c->io = loop_io_new(works->loop, c->sock, LOOP_READ, on_io, c);
    loop_timer_start(c->timer, BUILD_MS);
    if (c->io == NULL || reaper_watch(works->reaper, c->pid, on_child_end, c) != 0 ||
        send_plan(c, err) != 0) {
        cell_kill(&c);
        return NULL;
    }
    cell_adopt(c, events, arg);
    return c;
}

void cell_adopt(struct cell *c, const struct cell_events *events, void *arg)
{
    c->events = events;
    c->arg = arg;
}

int cell_enter(struct cell *c, const char *hostname, bool network, const char *const *layers, int count,
               struct err *err)
{
    uint8_t room[4096];
    struct wire_writer w;
    INVARIANT(c->state == CELL_READY);
    wire_begin(&w, room, sizeof room, WIRE_ENTER, 0);
    wire_put_cstr(&w, hostname);
    wire_put_u32(&w, network);
    wire_put_u32(&w, (uint32_t)count);
    for (int i = 0; i < count; i++)
        wire_put_cstr(&w, layers[i]);
    if (send_message(c, &w, &c->works->seccomp_fd, 1, err) != 0)
        return -1;
    set_state(c, CELL_ENTERING, ENTER_MS);
    return 0;
}

void cell_usage(const struct cell *c, struct cgroup_usage *out)
{
    cgroups_usage(c->works->cgroups, c->name, out);
}

int64_t cell_disk_used(const struct cell *c)
{
    char path[64];
    struct statvfs st;
    snprintf(path, sizeof path, "/proc/%d/root/tmp/disk", (int)c->pid);
    if (c->works->plan->disk_blank[0] == '\0' || statvfs(path, &st) < 0)
        return -1;
    return (int64_t)(st.f_blocks - st.f_bfree) * (int64_t)st.f_frsize;
}

bool cell_freeze(const struct cell *c, bool freeze)
{
    return cgroups_freeze(c->works->cgroups, c->name, freeze);
}

void cell_upper_path(const struct cell *c, char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "/proc/%d/root/tmp/disk/upper", (int)c->pid);
}
