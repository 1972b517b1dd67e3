/* See parse.h. The checks that llhttp does not make stand in check_*(); each names what it refuses.
 *
 * llhttp 8.1 (Debian 12) is known to let through: a bare CR or LF in some places of a head (CVE-2023-30589),
 * lines that begin with a blank, empty field names, RTSP and ICE requests, and a bare LF at the very end of a
 * chunked body. All are refused here. */
#include "http/parse.h"

#include <stdlib.h>

enum { EXTRAS_MAX = 4096 };

/* ---- the scan ---- */

/* One line without its CRLF: nothing that could be seen as another line's end, and no folding. */
static const char *check_line(struct str line, int number)
{
    if (line.n == 0)
        return NULL;
    if (memchr(line.p, '\r', line.n) != NULL)
        return "bare CR";
    if (memchr(line.p, '\0', line.n) != NULL)
        return "NUL";
    if (line.p[0] == ' ' || line.p[0] == '\t')
        return number == 0 ? "blank before the request line" : "folded header";
    if (number > 0 && line.p[0] == ':')
        return "empty header name";
    return NULL;
}

enum http_scan_result http_head_scan(struct http_scan *s, struct str in, size_t *head_bytes_out,
                                     const char **what_out)
{
    for (;;) {
        const char *start = in.p + s->line;
        size_t left = in.n - s->line;
        const char *lf = left > 0 ? memchr(start, '\n', left) : NULL;
        if (lf == NULL) {
            *what_out = "NUL";
            return left > 0 && memchr(start, '\0', left) != NULL ? HTTP_SCAN_BAD : HTTP_SCAN_MORE;
        }
        if (lf == start || lf[-1] != '\r') {
            *what_out = "bare LF";
            return HTTP_SCAN_BAD;
        }
        struct str line = str_make(start, (size_t)(lf - start) - 1);
        *what_out = check_line(line, s->lines);
        if (*what_out != NULL)
            return HTTP_SCAN_BAD;
        s->line = (size_t)(lf - in.p) + 1;
        if (line.n == 0) {
            *what_out = "empty request";
            *head_bytes_out = s->line;
            return s->lines > 0 ? HTTP_SCAN_DONE : HTTP_SCAN_BAD;
        }
        s->lines++;
    }
}

/* ---- llhttp's callbacks: spans become views; a span may come in several adjoining pieces ---- */

static void extend(struct str *s, const char *at, size_t n)
{
    if (s->p == NULL)
        *s = str_make(at, n);
    else
        s->n = (size_t)(at + n - s->p);
}

static int on_method(llhttp_t *ll, const char *at, size_t n)
{
    struct http_parser *p = ll->data;
    extend(&p->head->method, at, n);
    return 0;
}

static int on_url(llhttp_t *ll, const char *at, size_t n)
{
    struct http_parser *p = ll->data;
    extend(&p->head->target, at, n);
    return 0;
}

/* The beginning of a trailer's name, which may come in pieces. */
static int trailer_name(struct http_parser *p, const char *at, size_t n)
{
    if (p->in_value)
        p->trailer_bytes = 0;
    p->in_value = false;
    size_t room = sizeof p->trailer - p->trailer_bytes;
    memcpy(p->trailer + p->trailer_bytes, at, n < room ? n : room);
    p->trailer_bytes += n < room ? n : room;
    return 0;
}

/* A trailer is dropped, but it must not be one that says how long a message is, for whoever might merge it.
 */
static int on_field_complete(llhttp_t *ll)
{
    static const char *const framing[] = {"content-length", "transfer-encoding", "host"};
    struct http_parser *p = ll->data;
    struct str name = str_make(p->trailer, p->trailer_bytes);
    for (size_t i = 0; p->head == NULL && i < sizeof framing / sizeof *framing; i++)
        if (str_eq_nocase(name, str_of(framing[i])))
            p->trailer_bad = true;
    return 0;
}

static int on_field(llhttp_t *ll, const char *at, size_t n)
{
    struct http_parser *p = ll->data;
    struct http_head *h = p->head;
    if (h == NULL)
        return trailer_name(p, at, n);
    if (p->in_value || h->count == 0) {
        h->fields[h->count] = (struct http_field){0};
        h->count++;
        p->in_value = false;
    }
    extend(&h->fields[h->count - 1].name, at, n);
    return 0;
}

static int on_value(llhttp_t *ll, const char *at, size_t n)
{
    struct http_parser *p = ll->data;
    p->in_value = true;
    if (p->head == NULL)
        return 0;
    extend(&p->head->fields[p->head->count - 1].value, at, n);
    return 0;
}

static int on_head(llhttp_t *ll)
{
    (void)ll;
    return HPE_PAUSED;
}

static int on_body(llhttp_t *ll, const char *at, size_t n)
{
    struct http_parser *p = ll->data;
    p->piece = str_make(at, n);
    return HPE_PAUSED;
}

static int on_extension(llhttp_t *ll, const char *at, size_t n)
{
    (void)at;
    struct http_parser *p = ll->data;
    p->extras += n;
    return p->extras > EXTRAS_MAX ? -1 : 0;
}

/* Stops behind the last chunk's line: from there on another check applies. */
static int on_chunk(llhttp_t *ll)
{
    struct http_parser *p = ll->data;
    p->trailing = ll->content_length == 0;
    return p->trailing ? HPE_PAUSED : 0;
}

static int on_complete(llhttp_t *ll)
{
    struct http_parser *p = ll->data;
    p->complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_method = on_method,
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_field_complete = on_field_complete,
    .on_header_value = on_value,
    .on_headers_complete = on_head,
    .on_body = on_body,
    .on_chunk_extension_name = on_extension,
    .on_chunk_extension_value = on_extension,
    .on_chunk_header = on_chunk,
    .on_message_complete = on_complete,
};

/* ---- checks on a head that llhttp has read ---- */

static const char *check_target(const struct http_head *h)
{
    struct str t = h->target;
    if (t.n == 0)
        return "no target";
    if (t.p[0] != '/' && !(str_eq(t, STR("*")) && str_eq(h->method, STR("OPTIONS"))))
        return "the target must be a path";
    for (size_t i = 0; i < t.n; i++)
        if (t.p[i] <= ' ' || t.p[i] >= 0x7f || t.p[i] == '#') /* bytes above 0x7f are negative or large */
            return "bad character in the target";
    return NULL;
}

/* llhttp reads other protocols' request lines as well, and drops what follows the version. */
static const char *check_request_line(const struct http_head *h, const struct http_parser *p,
                                      struct str bytes)
{
    size_t n = h->method.n + 1 + h->target.n + 1;
    struct str rest = str_make(bytes.p + n, bytes.n > n ? bytes.n - n : 0);
    if (!str_starts(rest, STR("HTTP/1.1\r\n")) && !str_starts(rest, STR("HTTP/1.0\r\n")))
        return "not HTTP/1.0 or HTTP/1.1";
    if (h->method.p != bytes.p || h->target.p != bytes.p + h->method.n + 1)
        return "malformed request line";
    if (p->ll.method == HTTP_CONNECT || p->ll.method == HTTP_PRI)
        return "method not supported";
    return NULL;
}

static const char *check_host(struct str v)
{
    if (v.n == 0)
        return "empty Host";
    for (size_t i = 0; i < v.n; i++) {
        unsigned char c = (unsigned char)v.p[i];
        bool fine = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
                    (c != '\0' && strchr("-._~:[]%!$&'()*+;=", c) != NULL);
        if (!fine)
            return "malformed Host";
    }
    return NULL;
}

/* What the few fields that decide about the connection said. */
struct framing {
    int hosts, lengths, codings;
    bool expect_bad;
};

static const char *take_length(struct http_head *h, struct framing *f, struct str v)
{
    f->lengths++;
    return str_to_i64(v, &h->content_length) && v.p[0] != '-' ? NULL : "bad Content-Length";
}

static const char *take_coding(struct http_head *h, struct framing *f, struct str v)
{
    f->codings++;
    h->chunked = str_eq_nocase(v, STR("chunked"));
    return h->chunked ? NULL : "unknown Transfer-Encoding";
}

static void take_expect(struct http_head *h, struct framing *f, struct str v)
{
    h->expect_continue = str_eq_nocase(v, STR("100-continue"));
    f->expect_bad = f->expect_bad || !h->expect_continue;
}

static const char *take_field(struct http_head *h, struct framing *f, struct str name, struct str v)
{
    switch (name.n) {
    case 4:
        if (str_eq_nocase(name, STR("host"))) {
            f->hosts++;
            return check_host(v);
        }
        return NULL;
    case 6:
        if (str_eq_nocase(name, STR("expect")))
            take_expect(h, f, v);
        return NULL;
    case 14:
        return str_eq_nocase(name, STR("content-length")) ? take_length(h, f, v) : NULL;
    case 17:
        return str_eq_nocase(name, STR("transfer-encoding")) ? take_coding(h, f, v) : NULL;
    default:
        return NULL;
    }
}

static const char *check_framing(const struct http_head *h, const struct framing *f)
{
    if (f->hosts > 1)
        return "more than one Host";
    if (f->hosts == 0 && h->minor == 1)
        return "no Host";
    if (f->lengths > 1)
        return "more than one Content-Length";
    if (f->codings > 1)
        return "more than one Transfer-Encoding";
    if (f->lengths > 0 && f->codings > 0)
        return "Content-Length together with Transfer-Encoding";
    if (f->codings > 0 && h->minor == 0)
        return "Transfer-Encoding in HTTP/1.0";
    return NULL;
}

static enum err_code check_fields(struct http_head *h, const char **what_out)
{
    struct framing f = {0};
    for (int i = 0; i < h->count; i++) {
        struct http_field *field = &h->fields[i];
        field->value = str_trim(field->value);
        if (field->value.p == NULL)
            field->value.p = "";
        *what_out = field->name.n == 0 ? "empty header name" : take_field(h, &f, field->name, field->value);
        if (*what_out != NULL)
            return ERR_BAD_REQUEST;
    }
    *what_out = check_framing(h, &f);
    if (*what_out != NULL)
        return ERR_BAD_REQUEST;
    if (f.expect_bad) {
        *what_out = "only 100-continue can be expected";
        return ERR_EXPECTATION;
    }
    h->expect_continue = h->expect_continue && h->minor == 1; /* RFC 9110 10.1.1: ignored in 1.0 */
    return ERR_NONE;
}

/* ---- the head ---- */

/* One block: the table (a row for each line that can be a field), then the bytes. */
static char *head_alloc(struct http_head *h, struct str bytes, int fields)
{
    size_t table = (size_t)(fields + 1) * sizeof *h->fields;
    char *block = malloc(table + bytes.n);
    if (block == NULL)
        return NULL;
    h->block = block;
    h->fields = (struct http_field *)(void *)block;
    memcpy(block + table, bytes.p, bytes.n);
    return block + table;
}

enum err_code http_head_parse(struct http_parser *p, struct str bytes, int lines, int max_fields,
                              struct http_head *h, const char **what_out)
{
    *h = (struct http_head){.content_length = -1};
    *what_out = "too many headers";
    if (lines - 1 > max_fields)
        return ERR_HEADERS_TOO_LARGE;
    *what_out = "no memory";
    char *copy = head_alloc(h, bytes, lines - 1);
    if (copy == NULL)
        return ERR_OVERLOADED;
    llhttp_init(&p->ll, HTTP_REQUEST, &settings);
    p->ll.data = p;
    p->head = h;
    p->in_value = p->trailing = p->complete = false;
    p->trailer_bad = false;
    p->trailer_bytes = p->extras = 0;
    p->last = '\n';
    llhttp_errno_t e = llhttp_execute(&p->ll, copy, bytes.n);
    p->head = NULL;
    p->in_value = true; /* so that the first trailer's name begins anew */
    *what_out = llhttp_get_error_reason(&p->ll);
    if (e != HPE_PAUSED || llhttp_get_error_pos(&p->ll) != copy + bytes.n)
        return ERR_BAD_REQUEST;
    *what_out = check_request_line(h, p, str_make(copy, bytes.n));
    if (*what_out == NULL)
        *what_out = check_target(h);
    if (*what_out != NULL)
        return ERR_BAD_REQUEST;
    h->minor = llhttp_get_http_minor(&p->ll);
    h->keep_alive = llhttp_should_keep_alive(&p->ll) != 0;
    return check_fields(h, what_out);
}

void http_head_deinit(struct http_head *h)
{
    free(h->block);
    *h = (struct http_head){.content_length = -1};
}

/* ---- a chunked body ---- */

/* llhttp takes a bare LF here and there behind the last chunk: every line must end with CRLF and begin
 * with neither a blank nor a colon. `last` carries the byte before. */
static bool trailer_is_strict(struct http_parser *p, struct str raw)
{
    char before = p->last;
    for (size_t i = 0; i < raw.n; i++) {
        char c = raw.p[i];
        bool no_name = c == ' ' || c == '\t' || c == ':';
        if (c == '\0' || (c == '\n') != (before == '\r') || (no_name && before == '\n'))
            return false;
        before = c;
    }
    p->extras += raw.n;
    return p->extras <= EXTRAS_MAX && !p->trailer_bad;
}

enum http_chunk_result http_chunk_next(struct http_parser *p, struct str *in)
{
    for (;;) {
        if (in->n == 0)
            return HTTP_CHUNK_MORE;
        bool trailing = p->trailing;
        llhttp_resume(&p->ll);
        p->piece = (struct str){0};
        llhttp_errno_t e = llhttp_execute(&p->ll, in->p, in->n);
        if (e != HPE_OK && e != HPE_PAUSED)
            return HTTP_CHUNK_BAD;
        const char *end = e == HPE_OK ? in->p + in->n : llhttp_get_error_pos(&p->ll);
        struct str eaten = str_make(in->p, (size_t)(end - in->p));
        if (trailing && !trailer_is_strict(p, eaten))
            return HTTP_CHUNK_BAD;
        if (eaten.n > 0)
            p->last = end[-1];
        *in = str_make(end, in->n - eaten.n);
        if (p->complete)
            return HTTP_CHUNK_END;
        if (p->piece.n > 0)
            return HTTP_CHUNK_PIECE;
        if (eaten.n == 0 && p->trailing == trailing)
            return HTTP_CHUNK_BAD; /* no progress: never seen, but a loop must not depend on that */
    }
}

uint64_t http_chunk_left(const struct http_parser *p)
{
    return p->trailing ? 0 : p->ll.content_length;
}
