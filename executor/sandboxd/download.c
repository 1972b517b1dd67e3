/* GET /files: a helper of the supervisor opens the file and fills a pipe; this side passes it on as fast as
 * the client takes it. A file that shrinks under way breaks the connection: a short answer must not look
 * whole. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "files.h"
#include "sink.h"

enum { PIECE_BYTES = 64 * 1024, READ_BUDGET = 8 };

struct download {
    struct api_pending pending;
    struct http_request *req;
    struct sandbox *sandbox;
    uint32_t ticket; /* 0: the call is over */
    int fd;
    struct loop_io *io;
    bool begun, ranged;
    uint64_t offset, length; /* length 0: to the end */
    uint64_t left;
};

static char piece[PIECE_BYTES];

static void download_free(struct download *d)
{
    if (d->ticket != 0)
        sandbox_forget(d->sandbox, d->ticket);
    loop_io_free(&d->io);
    if (d->fd >= 0)
        close(d->fd);
    free(d);
}

static void download_gone(struct api_pending *self)
{
    download_free((struct download *)self);
}

static void finish(struct download *d, bool whole)
{
    http_set_data(d->req, NULL);
    if (whole)
        http_stream_end(d->req);
    else
        http_abort(d->req);
    download_free(d);
}

static void on_drain(void *arg, struct http_request *req)
{
    struct download *d = arg;
    (void)req;
    if (d->io != NULL)
        loop_io_set(d->io, LOOP_READ);
}

/* One piece on its way. False: stop for now, or over (then d is gone). */
static bool pass_piece(struct download *d)
{
    ssize_t n = read(d->fd, piece, d->left < sizeof piece ? (size_t)d->left : sizeof piece);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        finish(d, false);
        return false;
    }
    d->left -= (uint64_t)n;
    bool room = http_stream_write(d->req, str_make(piece, (size_t)n));
    if (d->left == 0) {
        finish(d, true);
        return false;
    }
    if (room)
        return true;
    loop_io_set(d->io, 0);
    http_stream_on_drain(d->req, on_drain, d);
    return false;
}

static void on_readable(void *arg, int fd, int events)
{
    (void)fd;
    (void)events;
    for (int i = 0; i < READ_BUDGET; i++)
        if (!pass_piece(arg))
            return;
}

static void set_headers(struct download *d, const struct wire_entry *e, uint64_t end)
{
    char text[600];
    snprintf(text, sizeof text, "inline; filename=\"%.255s\"", e->name);
    for (char *p = text + 18; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 127 || (*p == '"' && p[1] != '\0') || *p == '\\')
            *p = '_';
    http_set_header(d->req, "Content-Disposition", str_of(text));
    http_set_header(d->req, "Vary", STR("Accept-Encoding"));
    http_set_header(d->req, "Accept-Ranges", STR("bytes"));
    if (!d->ranged)
        return;
    snprintf(text, sizeof text, "bytes %llu-%llu/%llu", (unsigned long long)d->offset,
             (unsigned long long)end - 1, (unsigned long long)e->size);
    http_set_header(d->req, "Content-Range", str_of(text));
}

static void refuse(struct download *d, int status, const char *text)
{
    http_set_data(d->req, NULL);
    api_error(d->req, status, "%s", text);
    download_free(d);
}

static void begin(struct download *d, const struct wire_entry *e)
{
    uint64_t end = e->size;
    if (d->ranged && d->offset >= e->size) {
        refuse(d, 416, "the range lies outside the file");
        return;
    }
    if (d->length > 0 && d->offset + d->length < end)
        end = d->offset + d->length;
    d->begun = true;
    d->left = end - d->offset;
    set_headers(d, e, end);
    http_stream_start(d->req, d->ranged ? 206 : 200, "application/octet-stream", (int64_t)d->left);
    if (d->left == 0)
        finish(d, true);
    else
        loop_io_set(d->io, LOOP_READ);
}

static void on_answer(void *arg, int type, struct wire_reader *r, const int *fds, int fd_count, bool last)
{
    struct download *d = arg;
    const char *text = sandbox_over_text(type);
    struct wire_entry e;
    (void)fds;
    (void)fd_count;
    if (last)
        d->ticket = 0;
    if (type == WIRE_ENTRY && !d->begun) {
        wire_get_entry(r, &e);
        if (r->bad)
            refuse(d, 500, "malformed answer");
        else
            begin(d, &e);
    } else if (last && type != WIRE_DONE) {
        enum wire_fault fault = type == WIRE_FAILED ? sandbox_fault(r, &text) : WIRE_FAULT_INTERNAL;
        if (d->begun)
            finish(d, false);
        else
            refuse(d, type == WIRE_FAILED ? sink_status(fault) : sandbox_over_status(type), text);
    }
    /* DONE: what is left is in the pipe */
}

/* "bytes=a-b" and "bytes=a-"; any other form is ignored, as RFC 9110 allows. */
static void read_range(struct download *d)
{
    struct str range, from, unit = STR("bytes=");
    uint64_t to;
    if (!http_header(d->req, "Range", &range) || !str_starts(range, unit))
        return;
    range = str_make(range.p + unit.n, range.n - unit.n);
    if (!str_split(&range, '-', &from) || !str_to_u64(from, &d->offset))
        return;
    if (range.n == 0) {
        d->ranged = true;
    } else if (str_to_u64(range, &to) && to >= d->offset) {
        d->ranged = true;
        d->length = to - d->offset + 1;
    }
    if (!d->ranged)
        d->offset = 0;
}

static int ask(struct download *d, struct str user, struct str path, int theirs, struct err *err)
{
    struct wire_writer *msg = sandbox_message(d->sandbox, WIRE_READ);
    wire_put_str(msg, user.p, user.n);
    wire_put_str(msg, path.p, path.n);
    wire_put_u64(msg, d->offset);
    wire_put_u64(msg, d->length);
    d->ticket = sandbox_send(d->sandbox, msg, &theirs, 1, on_answer, d, err);
    return d->ticket != 0 ? 0 : -1;
}

void files_download(struct api *a, struct http_request *r, struct sandbox *s, struct str path)
{
    struct err err = ERR_INIT;
    struct download *d = calloc(1, sizeof *d);
    int pair[2];
    if (d == NULL || pipe2(pair, O_CLOEXEC) < 0) {
        free(d);
        api_error(r, 503, "no memory or descriptors");
        return;
    }
    *d = (struct download){.pending.on_gone = download_gone, .req = r, .sandbox = s, .fd = pair[0]};
    fcntl(d->fd, F_SETFL, O_NONBLOCK);
    read_range(d);
    d->io = loop_io_new(a->loop, d->fd, 0, on_readable, d);
    bool ok = d->io != NULL && ask(d, api_user(r), path, pair[1], &err) == 0;
    close(pair[1]);
    if (ok) {
        http_set_data(r, &d->pending);
        return;
    }
    download_free(d);
    api_error_of(r, &err);
}
