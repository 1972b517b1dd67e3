/* Answers: composing heads, whole answers, streams, and the errors that the server itself answers.
 *
 * A whole answer is one write of two pieces (the head from a scratch buffer of the server, the body from the
 * owner); what the client does not take at once is copied. A stream gathers in the connection's output buffer
 * and is flushed by the connection's task at the end of the turn. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "http/conn.h"

static const struct {
    int status;
    const char *text;
} reasons[] = {
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {507, "Insufficient Storage"},
};

static const char *reason(int status)
{
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (reasons[i].status == status)
            return reasons[i].text;
    return "Status";
}

/* ---- heads ---- */

static struct str date_line(struct http_server *s)
{
    int64_t sec = wall_now().us / 1000000;
    if (sec != s->date_sec) {
        time_t t = (time_t)sec;
        struct tm tm;
        gmtime_r(&t, &tm);
        strftime(s->date, sizeof s->date, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm);
        s->date_sec = sec;
    }
    return str_of(s->date);
}

struct head_spec {
    int status;
    const char *type;
    int64_t length; /* -1: none is announced */
    bool chunked, close, keep_1_0;
    struct str extra; /* complete lines */
};

/* Composes into the server's scratch buffer; the view is good until the next head. */
static struct str compose(struct http_server *s, const struct head_spec *h)
{
    struct buf *b = &s->head;
    buf_clear(b);
    buf_str(b, STR("HTTP/1.1 "));
    buf_i64(b, h->status);
    buf_byte(b, ' ');
    buf_cstr_append(b, reason(h->status));
    buf_str(b, STR("\r\n"));
    buf_str(b, date_line(s));
    if (h->type != NULL) {
        buf_str(b, STR("Content-Type: "));
        buf_cstr_append(b, h->type);
        buf_str(b, STR("\r\n"));
    }
    if (h->length >= 0) {
        buf_str(b, STR("Content-Length: "));
        buf_i64(b, h->length);
        buf_str(b, STR("\r\n"));
    } else if (h->chunked) {
        buf_str(b, STR("Transfer-Encoding: chunked\r\n"));
    }
    buf_str(b, h->extra);
    if (h->close)
        buf_str(b, STR("Connection: close\r\n"));
    else if (h->keep_1_0)
        buf_str(b, STR("Connection: keep-alive\r\n"));
    buf_str(b, STR("\r\n"));
    return buf_view(b);
}

static bool status_has_body(int status)
{
    return status >= 200 && status != 204 && status != 304;
}

/* Decides whether the connection outlives this answer and composes the head for it. */
static struct str request_head(struct http_request *r, int status, const char *type, int64_t length)
{
    struct conn *c = r->c;
    bool old = r->head.minor == 0, body = status_has_body(status);
    bool endless = length < 0 && old && body && http_method_of(r) != HTTP_M_HEAD;
    c->close_after = !r->head.keep_alive || c->s->draining || endless || !conn_can_stay(c);
    struct head_spec h = {
        .status = status,
        .type = type,
        .length = body ? length : -1,
        .chunked = body && length < 0 && !old,
        .close = c->close_after,
        .keep_1_0 = old,
        .extra = buf_view(&r->set_headers),
    };
    return compose(c->s, &h);
}

/* The socket or memory failed inside a call of the owner: the rest happens next turn. */
static void break_later(struct conn *c)
{
    c->broken = true;
    conn_wake(c);
}

/* ---- headers of the answer ---- */

void http_set_header(struct http_request *r, const char *name, struct str value)
{
    INVARIANT(r->active && r->reply == REPLY_NONE);
    struct buf *b = &r->set_headers;
    buf_cstr_append(b, name);
    buf_str(b, STR(": "));
    char *to = buf_reserve(b, value.n + 2);
    if (to == NULL)
        return;                          /* noticed when the answer is composed */
    for (size_t i = 0; i < value.n; i++) /* nothing may start another line */
        to[i] = (unsigned char)value.p[i] < ' ' && value.p[i] != '\t' ? ' ' : value.p[i];
    memcpy(to + value.n, "\r\n", 2);
    buf_commit(b, value.n + 2);
}

void http_set_header_int(struct http_request *r, const char *name, int64_t value)
{
    char text[24];
    struct buf b;
    buf_init(&b, sizeof text);
    buf_i64(&b, value);
    http_set_header(r, name, buf_view(&b));
    buf_deinit(&b);
}

/* ---- whole answers ---- */

void http_reply(struct http_request *r, int status, const char *type, struct str body)
{
    INVARIANT(r->active && r->reply == REPLY_NONE);
    struct conn *c = r->c;
    struct str head = request_head(r, status, type, (int64_t)body.n);
    bool bare = !status_has_body(status) || http_method_of(r) == HTTP_M_HEAD;
    bool sent = !r->set_headers.failed && conn_send(c, head, bare ? STR("") : body);
    r->active = false;
    if (!sent)
        break_later(c);
    conn_answered(c);
}

/* ---- streams ---- */

void http_stream_start(struct http_request *r, int status, const char *type, int64_t length)
{
    INVARIANT(r->active && r->reply == REPLY_NONE);
    struct conn *c = r->c;
    struct str head = request_head(r, status, type, length);
    r->reply = REPLY_STREAM;
    r->reply_bodiless = !status_has_body(status) || http_method_of(r) == HTTP_M_HEAD;
    r->reply_chunked = length < 0 && r->head.minor == 1;
    r->reply_left = length;
    if (r->set_headers.failed || !buf_str(&c->out, head))
        break_later(c);
    if (c->out_due_us == INT64_MAX)
        c->out_due_us = mono_add_ms(mono_now(), c->s->o.write_timeout_ms).us;
    conn_wake(c);
}

static void append_piece(struct http_request *r, struct str piece)
{
    struct buf *out = &r->c->out;
    if (r->reply_chunked) {
        static const char digits[] = "0123456789abcdef";
        char size[18];
        size_t i = sizeof size;
        size[--i] = '\n';
        size[--i] = '\r';
        for (size_t n = piece.n; n > 0; n >>= 4)
            size[--i] = digits[n & 15];
        buf_append(out, size + i, sizeof size - i);
        buf_str(out, piece);
        buf_str(out, STR("\r\n"));
    } else {
        buf_str(out, piece);
    }
}

bool http_stream_write(struct http_request *r, struct str piece)
{
    INVARIANT(r->active && r->reply == REPLY_STREAM);
    struct conn *c = r->c;
    if (c->broken)
        return false;
    if (piece.n == 0 || r->reply_bodiless)
        return conn_pending(c) <= STREAM_FULL;
    if (r->reply_left >= 0) {
        INVARIANT((uint64_t)r->reply_left >= piece.n); /* more than was announced */
        r->reply_left -= (int64_t)piece.n;
    }
    if (c->out_due_us == INT64_MAX)
        c->out_due_us = mono_add_ms(mono_now(), c->s->o.write_timeout_ms).us;
    append_piece(r, piece);
    if (c->out.failed || conn_pending(c) > STREAM_BREAK)
        break_later(c);
    conn_wake(c);
    return !c->broken && conn_pending(c) <= STREAM_FULL;
}

void http_stream_on_drain(struct http_request *r, void (*fn)(void *arg, struct http_request *req), void *arg)
{
    INVARIANT(r->active && r->reply == REPLY_STREAM);
    r->on_drain = fn;
    r->drain_arg = arg;
    conn_wake(r->c);
}

void http_stream_end(struct http_request *r)
{
    INVARIANT(r->active && r->reply == REPLY_STREAM);
    struct conn *c = r->c;
    if (!r->reply_bodiless && r->reply_left > 0) { /* shorter than announced: must not look complete */
        http_abort(r);
        return;
    }
    if (r->reply_chunked && !r->reply_bodiless && !buf_str(&c->out, STR("0\r\n\r\n")))
        c->broken = true;
    r->active = false;
    conn_answered(c);
    conn_wake(c);
}

void http_abort(struct http_request *r)
{
    INVARIANT(r->active);
    struct conn *c = r->c;
    r->active = false;
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    c->close_after = true;
    conn_answered(c);
    break_later(c);
}

/* ---- the server's own answers ---- */

static const char *error_body(struct http_server *s, enum err_code code, const char *what, struct buf *body)
{
    if (s->o.app.error_body != NULL)
        return s->o.app.error_body(s->o.arg, code, what, body);
    buf_cstr_append(body, err_public_text(code));
    buf_byte(body, '\n');
    return "text/plain; charset=utf-8";
}

static struct str refusal(struct http_server *s, enum err_code code, const char *what, struct buf *body)
{
    struct head_spec h = {.status = err_http_status(code), .close = true};
    if (err_retry_class(code) == RETRY_LATER)
        h.extra = STR("Retry-After: 1\r\n");
    h.type = error_body(s, code, what, body);
    h.length = (int64_t)body->len;
    return compose(s, &h);
}

void reply_refuse(struct conn *c, enum err_code code, const char *what)
{
    struct buf body;
    buf_init(&body, 16 * 1024);
    struct str head = refusal(c->s, code, what, &body);
    c->input.n = 0; /* nothing of this client is read as a request any more */
    if (!conn_send(c, head, buf_view(&body)))
        c->broken = true;
    buf_deinit(&body);
    conn_enter(c, CONN_LINGER);
}

void reply_busy(struct http_server *s, int fd)
{
    struct buf body;
    buf_init(&body, 16 * 1024);
    struct str head = refusal(s, ERR_OVERLOADED, "too many connections", &body);
    if (buf_str(&s->head, buf_view(&body))) {
        head = buf_view(&s->head);
        (void)!send(fd, head.p, head.n, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    buf_deinit(&body);
}

void reply_continue(struct conn *c)
{
    if (!conn_send(c, STR("HTTP/1.1 100 Continue\r\n\r\n"), STR("")))
        break_later(c);
    conn_wake(c);
}
