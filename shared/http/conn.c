/* The machine of one connection.
 *
 * conn_run is the only place from which the owner is called. It is entered from the loop (the socket, or the
 * connection's task) and steps until the input is used up or somebody must wait. Calls by the owner
 * (http_reply, http_read_body …) change the state and return; when conn_run is not on the stack they post its
 * task. So the owner is never called from inside its own call, and a connection that dies is only closed, put
 * on the dead list and freed when the turn ends.
 *
 * Reading: one read per wake-up, into a buffer that all connections share; what is not used at once moves to
 * `in`. A body of known length goes straight into its own buffer. While a request waits the socket stays
 * armed: end of file means that the client hung up. (So a client that shuts down its sending side after a
 * request counts as gone unless it was answered within the same turn: over TCP the two cannot be told apart
 * before we write.) A client that pipelines while it waits is read up to WAITING_BYTES a time and READ_BYTES
 * in all; then its socket rests, and a hang-up is seen later.
 *
 * Deadlines are two numbers in the connection; one timer of the server looks at all of them (server.c). */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/conn.h"

static void on_io(void *arg, int fd, int events);
static void on_task(void *arg);
static void last_look(struct conn *c);

struct conn *conn_new(struct http_server *s, int fd, const struct sockaddr_in6 *peer)
{
    struct conn *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    c->s = s;
    c->fd = fd;
    c->peer = *peer;
    c->io = loop_io_new(s->loop, fd, LOOP_READ, on_io, c);
    if (c->io == NULL) {
        free(c);
        return NULL;
    }
    buf_init(&c->in, READ_BYTES + s->o.max_header_bytes);
    buf_init(&c->out, SIZE_MAX / 4);
    buf_init(&c->request.set_headers, 16 * 1024);
    c->request.c = c;
    c->out_due_us = INT64_MAX;
    c->state = CONN_DEAD; /* until entered */
    conn_enter(c, CONN_IDLE);
    return c;
}

void conn_free(struct conn *c)
{
    request_end(c);
    loop_task_cancel(c->s->loop, &c->task);
    loop_io_free(&c->io);
    if (c->fd >= 0)
        close(c->fd);
    buf_deinit(&c->in);
    buf_deinit(&c->out);
    free(c);
}

/* ---- states ---- */

static int64_t due_in(int64_t ms)
{
    return mono_add_ms(mono_now(), ms).us;
}

/* A body has several deadlines: it is looked at now and then, and progress moves none of these looks. */
static int64_t body_look_ms(const struct http_server_options *o)
{
    int64_t ms = o->body_timeout_ms < o->body_span_ms ? o->body_timeout_ms : o->body_span_ms;
    return ms < 1000 ? ms : 1000;
}

void conn_enter(struct conn *c, enum conn_state state)
{
    const struct http_server_options *o = &c->s->o;
    bool quiet = state != CONN_HELD && state != CONN_WAIT && state != CONN_DEAD;
    quiet ? quiet_keep(c) : quiet_remove(c);
    c->state = state;
    switch (state) {
    case CONN_IDLE:
        c->in_due_us = due_in(o->idle_timeout_ms);
        c->scan = (struct http_scan){0};
        c->skipped_crlf = false;
        break;
    case CONN_HEAD:
        c->in_due_us = due_in(o->header_timeout_ms);
        break;
    case CONN_BODY:
        c->in_due_us = due_in(body_look_ms(o));
        break;
    case CONN_DRAIN:
        c->in_due_us = due_in(o->body_timeout_ms);
        break;
    case CONN_LINGER:
        c->in_due_us = INT64_MAX; /* the write deadline rules until our side is shut */
        c->swallowed = 0;
        break;
    case CONN_HELD:
    case CONN_WAIT:
    case CONN_DEAD:
        c->in_due_us = INT64_MAX;
        break;
    }
}

void conn_close(struct conn *c)
{
    if (c->state == CONN_DEAD)
        return;
    conn_enter(c, CONN_DEAD);
    loop_io_free(&c->io);
    close(c->fd);
    c->fd = -1;
    c->s->count--;
    if (c->s->sweep_next == c)
        c->s->sweep_next = c->next;
    *c->pprev = c->next;
    if (c->next != NULL)
        c->next->pprev = c->pprev;
    c->next = c->s->dead;
    c->pprev = NULL;
    c->s->dead = c;
    loop_task_cancel(c->s->loop, &c->task);
    loop_task_post(c->s->loop, &c->s->reap, http_server_reap, c->s);
}

/* Tells the owner that its request is over without an answer. */
static void tell_gone(struct conn *c)
{
    struct http_request *r = &c->request;
    if (!r->active)
        return;
    r->active = false;
    if (c->s->o.app.on_gone != NULL)
        c->s->o.app.on_gone(c->s->o.arg, r);
    request_end(c);
}

void conn_hang_up(struct conn *c)
{
    tell_gone(c);
    conn_close(c);
}

/* The peer broke the rules or was too slow. A started answer cannot be replaced by another: it breaks. */
static void refuse(struct conn *c, enum err_code code, const char *what)
{
    bool started = c->request.active && c->request.reply != REPLY_NONE;
    tell_gone(c);
    request_end(c);
    if (started)
        conn_close(c);
    else
        reply_refuse(c, code, what);
}

bool conn_can_stay(const struct conn *c)
{
    const struct http_request *r = &c->request;
    if (!r->has_body)
        return true;
    bool withheld = r->head.expect_continue && !r->got_any && r->mode == BODY_UNREAD;
    return !withheld && (r->head.chunked || r->body_left <= DRAIN_BYTES);
}

void conn_answered(struct conn *c)
{
    struct http_request *r = &c->request;
    bool unread = r->has_body;
    bool chunked = r->head.chunked;
    int64_t left = r->body_left;
    request_end(c);
    if (c->close_after) {
        conn_enter(c, CONN_LINGER);
    } else if (unread) {
        c->swallowed = 0;
        c->request.body_left = left;
        c->request.head.chunked = chunked;
        conn_enter(c, CONN_DRAIN);
    } else {
        conn_enter(c, CONN_IDLE);
    }
    if (!c->running)
        conn_wake(c);
}

/* ---- a request's head ---- */

static void skip_stray_crlf(struct conn *c)
{
    bool first = c->scan.lines == 0 && c->scan.line == 0; /* its CR may have come alone, in state HEAD */
    if (!first || c->skipped_crlf || !str_starts(c->input, STR("\r\n")))
        return;
    c->skipped_crlf = true;
    c->input = str_make(c->input.p + 2, c->input.n - 2);
}

static bool head_too_long(struct conn *c)
{
    if (c->input.n <= c->s->o.max_header_bytes)
        return false;
    bool target = c->scan.lines == 0;
    refuse(c, target ? ERR_URI_TOO_LONG : ERR_HEADERS_TOO_LARGE, target ? "request line" : "header section");
    return true;
}

static void begin_request(struct conn *c, size_t head_bytes)
{
    const char *what = NULL;
    struct str head = str_make(c->input.p, head_bytes);
    c->input = str_make(c->input.p + head_bytes, c->input.n - head_bytes);
    int lines = c->scan.lines;
    c->scan = (struct http_scan){0};
    enum err_code code =
        http_head_parse(&c->parser, head, lines, c->s->o.max_headers, &c->request.head, &what);
    if (code != ERR_NONE) {
        refuse(c, code, what);
        return;
    }
    conn_enter(c, CONN_HELD);
    request_begin(c);
    c->s->o.app.on_request(c->s->o.arg, &c->request);
    if (c->state == CONN_HELD && !c->request.has_body)
        conn_enter(c, CONN_WAIT);
}

static bool step_head(struct conn *c)
{
    if (conn_pending(c) > OUT_HOLD)
        return false;
    skip_stray_crlf(c);
    if (c->input.n == 0)
        return false;
    if (c->state == CONN_IDLE)
        conn_enter(c, CONN_HEAD);
    c->asked = true;
    const char *what = NULL;
    size_t head_bytes = 0;
    switch (http_head_scan(&c->scan, c->input, &head_bytes, &what)) {
    case HTTP_SCAN_BAD:
        refuse(c, ERR_BAD_REQUEST, what);
        return true;
    case HTTP_SCAN_MORE:
        return head_too_long(c);
    case HTTP_SCAN_DONE:
        break;
    }
    if (head_bytes > c->s->o.max_header_bytes) {
        bool target = memchr(c->input.p, '\n', c->s->o.max_header_bytes) == NULL;
        refuse(c, target ? ERR_URI_TOO_LONG : ERR_HEADERS_TOO_LARGE, "header section");
        return true;
    }
    begin_request(c, head_bytes);
    return true;
}

/* ---- its body ---- */

/* Takes a piece for the owner. */
static void take_piece(struct conn *c, struct str piece)
{
    struct http_request *r = &c->request;
    r->body_got += (int64_t)piece.n;
    if ((uint64_t)r->body_got > r->max_body) {
        refuse(c, ERR_BODY_TOO_LARGE, "body");
        return;
    }
    if (r->mode == BODY_COLLECT) {
        char *to = piece.n > 0 ? body_reserve(r, piece.n) : NULL;
        if (to == NULL) {
            refuse(c, ERR_OVERLOADED, "too many bodies are held");
            return;
        }
        memcpy(to, piece.p, piece.n);
        buf_commit(&r->body, piece.n);
        return;
    }
    if (!r->stream.on_data(r->stream.arg, r, piece) && r->active && c->state == CONN_BODY) {
        r->paused = true;
        r->body_at = mono_now();
        c->in_due_us = INT64_MAX;
        quiet_remove(c); /* it is we who are slow */
    }
}

static void body_complete(struct conn *c)
{
    struct http_request *r = &c->request;
    r->has_body = false;
    conn_enter(c, CONN_WAIT);
    if (r->mode == BODY_COLLECT)
        r->body_fn(r->body_arg, r, buf_view(&r->body));
    else
        r->stream.on_end(r->stream.arg, r);
}

static void body_progress(struct conn *c, size_t n)
{
    c->request.got_any = true;
    c->request.body_at = mono_now();
    quiet_bytes(c, n);
}

/* The next piece of a body with a length: what is there of it. */
static bool next_known(struct conn *c, struct str *piece)
{
    struct http_request *r = &c->request;
    size_t n = (int64_t)c->input.n < r->body_left ? c->input.n : (size_t)r->body_left;
    if (n == 0)
        return false;
    *piece = str_make(c->input.p, n);
    c->input = str_make(c->input.p + n, c->input.n - n);
    r->body_left -= (int64_t)n;
    return true;
}

static bool step_body(struct conn *c)
{
    struct http_request *r = &c->request;
    if (r->paused)
        return false;
    struct str piece;
    if (!r->head.chunked) {
        if (r->body_left == 0)
            body_complete(c);
        else if (next_known(c, &piece)) {
            body_progress(c, piece.n);
            take_piece(c, piece);
        } else
            return false;
        return true;
    }
    switch (http_chunk_next(&c->parser, &c->input)) {
    case HTTP_CHUNK_MORE:
        if (http_chunk_left(&c->parser) <= r->max_body - (uint64_t)r->body_got)
            return false;
        refuse(c, ERR_BODY_TOO_LARGE, "body"); /* not only once it is there */
        return true;
    case HTTP_CHUNK_PIECE:
        body_progress(c, c->parser.piece.n);
        take_piece(c, c->parser.piece);
        return true;
    case HTTP_CHUNK_END:
        body_complete(c);
        return true;
    case HTTP_CHUNK_BAD:
        break;
    }
    refuse(c, ERR_BAD_REQUEST, "malformed chunk");
    return true;
}

/* Swallows the rest of a body whose request was answered. */
static bool step_drain(struct conn *c)
{
    struct http_request *r = &c->request;
    struct str piece = {0};
    bool end;
    if (r->head.chunked) {
        enum http_chunk_result got = http_chunk_next(&c->parser, &c->input);
        if (got == HTTP_CHUNK_MORE)
            return false;
        piece = got == HTTP_CHUNK_PIECE ? c->parser.piece : piece;
        end = got == HTTP_CHUNK_END;
        c->swallowed += got == HTTP_CHUNK_BAD ? DRAIN_BYTES + 1 : piece.n;
    } else {
        if (r->body_left > 0 && !next_known(c, &piece))
            return false;
        end = r->body_left == 0;
    }
    if (end)
        conn_enter(c, CONN_IDLE);
    else if (c->swallowed > DRAIN_BYTES)
        conn_enter(c, CONN_LINGER);
    return true;
}

/* Flush, shut down our side, wait for the client's end (a close with unread input would reset the answer
 * away). */
static bool step_linger(struct conn *c)
{
    c->swallowed += c->input.n;
    c->input.n = 0;
    if (c->swallowed > LINGER_BYTES || (c->eof && conn_pending(c) == 0)) {
        conn_close(c);
        return false;
    }
    if (conn_pending(c) > 0 || c->was_shut)
        return false;
    c->was_shut = true;
    shutdown(c->fd, SHUT_WR);
    c->in_due_us = due_in(LINGER_MS);
    return false;
}

/* ---- running ---- */

/* One step; false when nothing more can be done now. */
static bool step(struct conn *c)
{
    if (c->broken || c->state == CONN_DEAD)
        return false;
    if (c->fail != ERR_NONE) {
        enum err_code code = c->fail;
        c->fail = ERR_NONE;
        refuse(c, code, c->fail_what);
        return true;
    }
    switch (c->state) {
    case CONN_IDLE:
    case CONN_HEAD:
        return step_head(c);
    case CONN_BODY:
        return step_body(c);
    case CONN_DRAIN:
        return step_drain(c);
    case CONN_LINGER:
        return step_linger(c);
    case CONN_HELD:
    case CONN_WAIT:
    case CONN_DEAD:
        return false;
    }
    return false;
}

static void tell_drained(struct conn *c)
{
    struct http_request *r = &c->request;
    if (!r->active || r->on_drain == NULL || conn_pending(c) >= STREAM_LOW)
        return;
    void (*fn)(void *arg, struct http_request *req) = r->on_drain;
    r->on_drain = NULL;
    fn(r->drain_arg, r);
}

/* What the loop is to watch for: the one place that arms the socket. */
static void arm(struct conn *c)
{
    bool read = true;
    switch (c->state) {
    case CONN_HELD:
    case CONN_WAIT:
        read = c->in.len < READ_BYTES / 4;
        break;
    case CONN_BODY:
        read = !c->request.paused && c->in.len < READ_BYTES;
        break;
    case CONN_IDLE:
    case CONN_HEAD:
        read = conn_pending(c) <= OUT_HOLD && c->in.len <= c->s->o.max_header_bytes;
        break;
    case CONN_LINGER:
        read = !c->eof;
        break;
    case CONN_DRAIN:
        break;
    case CONN_DEAD:
        return;
    }
    loop_io_set(c->io, (read ? LOOP_READ : 0) | (conn_pending(c) > 0 ? LOOP_WRITE : 0));
}

/* Nothing is under way, and the server takes no new requests. */
static bool is_over(const struct conn *c)
{
    return c->state == CONN_IDLE && c->s->draining && c->in.len == 0 && conn_pending(c) == 0;
}

/* Keeps what was not used. */
static void keep_input(struct conn *c)
{
    if (c->input.n == 0) {
        size_t max = c->in.max;
        buf_deinit(&c->in);
        buf_init(&c->in, max);
    } else if (c->in.len == 0) { /* it stands in the shared buffer */
        buf_str(&c->in, c->input);
    } else {
        buf_consume(&c->in, c->in.len - c->input.n);
    }
    bool lost = c->in.failed;
    c->input = (struct str){0};
    if (lost)
        conn_hang_up(c);
}

/* Does all that can be done with the given input (in `in`, or in the shared buffer). */
static void conn_run(struct conn *c, struct str input)
{
    c->input = input;
    c->running = true;
    int budget = TURN_REQUESTS * 4; /* a request takes up to four steps */
    while (budget > 0 && step(c))
        budget--;
    c->running = false;
    if (c->state == CONN_DEAD)
        return;
    keep_input(c);
    if (c->state == CONN_DEAD)
        return;
    if (budget == 0)
        conn_wake(c);
    if (c->broken || !conn_flush(c)) {
        conn_hang_up(c);
        return;
    }
    tell_drained(c);
    if (c->state == CONN_LINGER)
        step_linger(c);
    if (is_over(c))
        conn_wake(c);
    arm(c);
}

static void on_task(void *arg)
{
    struct conn *c = arg;
    if (is_over(c))
        last_look(c);
    else
        conn_run(c, buf_view(&c->in));
}

void conn_wake(struct conn *c)
{
    if (c->state != CONN_DEAD)
        loop_task_post(c->s->loop, &c->task, on_task, c);
}

/* ---- the socket ---- */

/* How much room to make for a body: at most about as much as has come of it, since what was only announced
 * must not take memory. */
static size_t body_step(const struct http_request *r)
{
    size_t n = r->body.len > FIRST_BODY_BYTES ? r->body.len : FIRST_BODY_BYTES;
    n = n < 4 * READ_BYTES ? n : 4 * READ_BYTES;
    return (uint64_t)r->body_left < n ? (size_t)r->body_left : n;
}

/* Reads a body of known length where it belongs. */
static bool read_body(struct conn *c, ssize_t *n_out)
{
    struct http_request *r = &c->request;
    if (c->state != CONN_BODY || r->mode != BODY_COLLECT || r->head.chunked || c->in.len > 0 ||
        r->body_left == 0)
        return false;
    size_t want = body_step(r);
    char *to = body_reserve(r, want);
    if (to == NULL) {
        refuse(c, ERR_OVERLOADED, "too many bodies are held");
        *n_out = 1;
        return true;
    }
    *n_out = recv(c->fd, to, want, MSG_DONTWAIT);
    if (*n_out > 0) {
        buf_commit(&r->body, (size_t)*n_out);
        r->body_left -= *n_out;
        r->body_got += *n_out;
        body_progress(c, (size_t)*n_out);
    }
    return true;
}

static size_t read_size(const struct conn *c)
{
    if (c->state == CONN_HELD || c->state == CONN_WAIT)
        return WAITING_BYTES;
    return c->state == CONN_IDLE || c->state == CONN_HEAD ? READ_BYTES / 4 : READ_BYTES;
}

/* Reads once: behind what waits in `in`, else into the shared buffer. */
static ssize_t read_input(struct conn *c, struct str *input)
{
    size_t want = read_size(c), room = c->in.max - c->in.len;
    want = want < room ? want : room;
    char *to = c->in.len > 0 ? buf_reserve(&c->in, want) : c->s->shared;
    if (to == NULL) {
        errno = ENOMEM;
        return -1;
    }
    ssize_t n = recv(c->fd, to, want, MSG_DONTWAIT);
    if (n > 0 && c->in.len > 0) {
        buf_commit(&c->in, (size_t)n);
        *input = buf_view(&c->in);
    } else if (n > 0) {
        *input = str_make(to, (size_t)n);
    }
    return n;
}

/* Nobody asks any more; but an answer that is complete and still being sent is delivered. */
static void end_of_input(struct conn *c, bool clean)
{
    if (!clean || c->request.active || conn_pending(c) == 0) {
        conn_hang_up(c);
        return;
    }
    c->eof = true;
    if (c->state != CONN_LINGER)
        conn_enter(c, CONN_LINGER);
    conn_wake(c);
}

static void readable(struct conn *c)
{
    struct str input = {0};
    ssize_t n;
    if (!read_body(c, &n))
        n = read_input(c, &input);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n > 0)
        conn_run(c, input);
    else
        end_of_input(c, n == 0);
}

static void on_io(void *arg, int fd, int events)
{
    (void)fd;
    struct conn *c = arg;
    if ((events & LOOP_READ) != 0)
        readable(c);
    if (c->state != CONN_DEAD && (events & LOOP_WRITE) != 0)
        conn_run(c, buf_view(&c->in)); /* flushes, and goes on with what waited for it */
}

/* While the server drains. What the client has sent meanwhile is answered: closed with a request unread, the
 * connection would be reset. One that has not asked for anything is about to. */
static void last_look(struct conn *c)
{
    readable(c);
    if (!is_over(c))
        return;
    int64_t due_us = due_in(HTTP_DRAIN_FIRST_MS);
    if (c->asked)
        conn_close(c);
    else if (due_us < c->in_due_us)
        c->in_due_us = due_us;
}

/* ---- deadlines ---- */

static void body_late(struct conn *c, mono_t now)
{
    struct http_request *r = &c->request;
    const struct http_server_options *o = &c->s->o;
    int64_t silent_ms = mono_ms_between(r->body_at, now), span_ms = mono_ms_between(r->span_from, now);
    int64_t bytes = r->head.content_length >= 0 ? r->head.content_length : (int64_t)r->max_body;
    int64_t whole_ms = o->body_whole_ms + bytes / o->body_whole_rate * 1000;
    bool span_over = span_ms >= o->body_span_ms;
    if (silent_ms >= o->body_timeout_ms)
        refuse(c, ERR_REQUEST_TIMEOUT, "the body stalled");
    else if (span_over && r->body_got - r->span_got < o->body_min_rate * span_ms / 1000)
        refuse(c, ERR_REQUEST_TIMEOUT, "the body comes too slowly");
    else if (mono_ms_between(r->body_from, now) >= whole_ms)
        refuse(c, ERR_REQUEST_TIMEOUT, "the body took too long as a whole");
    else
        c->in_due_us = due_in(body_look_ms(o));
    if (span_over) {
        r->span_from = now;
        r->span_got = r->body_got;
    }
}

static void input_late(struct conn *c, mono_t now)
{
    switch (c->state) {
    case CONN_HEAD:
        refuse(c, ERR_REQUEST_TIMEOUT, "the headers did not come in time");
        break;
    case CONN_BODY:
        body_late(c, now);
        break;
    case CONN_IDLE:
    case CONN_DRAIN:
    case CONN_LINGER:
        conn_close(c);
        return;
    case CONN_HELD:
    case CONN_WAIT:
    case CONN_DEAD:
        return;
    }
    conn_wake(c); /* a refusal is flushed there */
}

void conn_expire(struct conn *c, mono_t now)
{
    if (now.us >= c->out_due_us)
        conn_hang_up(c);
    else if (now.us >= c->in_due_us)
        input_late(c, now);
}
