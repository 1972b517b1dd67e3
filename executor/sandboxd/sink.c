/* Sinks (sink.h). A helper that fails closes the pipe; the reason comes as FAILED, so a broken pipe itself is
 * no answer. */
#include "sink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { BACKLOG_MAX = 2 << 20 };

struct sink {
    struct sandbox *sandbox;
    uint32_t ticket; /* 0: the call is over */
    int fd;          /* -1: closed */
    struct loop_io *io;
    struct buf backlog;
    bool ending;
    const struct sink_events *events;
    void *arg;
    bool written; /* the entry came */
    struct wire_entry entry;
    char *path, *name;
};

int sink_status(enum wire_fault fault)
{
    switch (fault) {
    case WIRE_FAULT_NOT_FOUND:
        return 404;
    case WIRE_FAULT_EXISTS:
        return 409;
    case WIRE_FAULT_INVALID:
        return 400;
    case WIRE_FAULT_DENIED:
        return 403;
    case WIRE_FAULT_NO_SPACE:
        return 507;
    case WIRE_FAULT_NO_USER:
        return 401;
    case WIRE_FAULT_LIMIT:
        return 429;
    case WIRE_FAULT_INTERNAL:
        break;
    }
    return 500;
}

static void pipe_close(struct sink *k)
{
    loop_io_free(&k->io);
    if (k->fd >= 0)
        close(k->fd);
    k->fd = -1;
    buf_clear(&k->backlog);
}

/* Writes what it can. Bytes taken; all of them once the pipe is broken. */
static size_t push(struct sink *k, struct str piece)
{
    size_t at = 0;
    while (at < piece.n && k->fd >= 0) {
        ssize_t n = write(k->fd, piece.p + at, piece.n - at);
        if (n < 0 && errno == EAGAIN)
            return at;
        if (n < 0 && errno != EINTR)
            pipe_close(k);
        if (n > 0)
            at += (size_t)n;
    }
    return k->fd >= 0 ? at : piece.n;
}

static void on_writable(void *arg, int fd, int events)
{
    struct sink *k = arg;
    (void)fd;
    (void)events;
    size_t n = push(k, buf_view(&k->backlog));
    if (k->fd >= 0)
        buf_consume(&k->backlog, n);
    if (k->backlog.len > 0)
        return;
    if (k->io != NULL)
        loop_io_set(k->io, 0);
    if (k->ending)
        pipe_close(k);
    k->events->on_drain(k->arg);
}

bool sink_write(struct sink *k, struct str piece)
{
    size_t n = k->backlog.len == 0 ? push(k, piece) : 0;
    if (k->fd < 0 || n == piece.n)
        return true;
    if (!buf_append(&k->backlog, piece.p + n, piece.n - n))
        pipe_close(k); /* cannot be: pieces stop while some wait */
    if (k->io != NULL)
        loop_io_set(k->io, LOOP_WRITE);
    return false;
}

bool sink_waits(const struct sink *k)
{
    return k->backlog.len > 0;
}

void sink_end(struct sink *k)
{
    k->ending = true;
    if (k->backlog.len == 0)
        pipe_close(k);
}

static void keep_entry(struct sink *k, struct wire_reader *r)
{
    wire_get_entry(r, &k->entry);
    free(k->path);
    free(k->name);
    k->entry.path = k->path = str_dup(str_of(k->entry.path));
    k->entry.name = k->name = str_dup(str_of(k->entry.name));
    k->written = !r->bad && k->path != NULL && k->name != NULL;
}

static void on_answer(void *arg, int type, struct wire_reader *r, const int *fds, int fd_count, bool last)
{
    struct sink *k = arg;
    const char *text = sandbox_over_text(type);
    (void)fds;
    (void)fd_count;
    if (type == WIRE_ENTRY)
        keep_entry(k, r);
    if (!last)
        return;
    k->ticket = 0;
    if (type == WIRE_DONE && k->written)
        k->events->on_done(k->arg, &k->entry, 200, NULL);
    else {
        int status = type == WIRE_FAILED ? sink_status(sandbox_fault(r, &text)) : sandbox_over_status(type);
        k->events->on_done(k->arg, NULL, status, text);
    }
}

static uint32_t ask(struct sink *k, struct str user, struct str path, int theirs, struct err *err)
{
    struct wire_writer *msg = sandbox_message(k->sandbox, WIRE_WRITE);
    wire_put_str(msg, user.p, user.n);
    wire_put_str(msg, path.p, path.n);
    return sandbox_send(k->sandbox, msg, &theirs, 1, on_answer, k, err);
}

struct sink *sink_open(struct sandbox *s, struct str user, struct str path, const struct sink_events *events,
                       void *arg, struct err *err)
{
    struct sink *k = calloc(1, sizeof *k);
    int pair[2];
    if (k == NULL || pipe2(pair, O_CLOEXEC) < 0) {
        free(k);
        err_set(err, ERR_OVERLOADED, "no memory or descriptors for another file");
        return NULL;
    }
    *k = (struct sink){.sandbox = s, .fd = pair[1], .events = events, .arg = arg};
    fcntl(k->fd, F_SETFL, O_NONBLOCK);
    buf_init(&k->backlog, BACKLOG_MAX);
    k->io = loop_io_new(sandbox_loop(s), k->fd, 0, on_writable, k);
    if (k->io != NULL)
        k->ticket = ask(k, user, path, pair[0], err);
    else
        err_set(err, ERR_NO_MEMORY, "file");
    close(pair[0]);
    if (k->ticket == 0)
        sink_free(&k);
    return k;
}

void sink_free(struct sink **sink)
{
    struct sink *k = *sink;
    if (k == NULL)
        return;
    if (k->ticket != 0)
        sandbox_forget(k->sandbox, k->ticket);
    pipe_close(k);
    buf_deinit(&k->backlog);
    free(k->path);
    free(k->name);
    free(k);
    *sink = NULL;
}
