/* A request as its owner sees it: what the head said, decoding, where the body goes. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "http/conn.h"

/* ---- life ---- */

void request_begin(struct conn *c)
{
    struct http_request *r = &c->request;
    r->active = true;
    r->started = mono_now();
    r->has_body = r->head.chunked || r->head.content_length > 0;
    r->body_left = r->head.content_length > 0 ? r->head.content_length : 0;
    r->reply_left = -1;
}

void request_end(struct conn *c)
{
    struct http_request *r = &c->request;
    http_head_deinit(&r->head);
    arena_free(&r->arena);
    body_drop(r);
    buf_deinit(&r->set_headers);
    size_t max = r->set_headers.max;
    *r = (struct http_request){.c = c, .head.content_length = -1};
    buf_init(&r->set_headers, max);
    c->fail = ERR_NONE; /* it was this request's */
}

/* ---- the head ---- */

enum http_method http_method_of(const struct http_request *r)
{
    static const struct {
        const char *text;
        enum http_method method;
    } known[] = {{"GET", HTTP_M_GET},        {"POST", HTTP_M_POST},     {"HEAD", HTTP_M_HEAD},
                 {"PUT", HTTP_M_PUT},        {"DELETE", HTTP_M_DELETE}, {"PATCH", HTTP_M_PATCH},
                 {"OPTIONS", HTTP_M_OPTIONS}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (str_eq_c(r->head.method, known[i].text))
            return known[i].method;
    return HTTP_M_OTHER;
}

struct str http_method_text(const struct http_request *r)
{
    return r->head.method;
}

struct str http_path(const struct http_request *r)
{
    struct str rest = r->head.target, path = {0};
    str_split(&rest, '?', &path);
    return path;
}

struct str http_query(const struct http_request *r)
{
    struct str rest = r->head.target, path;
    str_split(&rest, '?', &path);
    return rest.p != NULL ? rest : STR("");
}

bool http_header(const struct http_request *r, const char *name, struct str *out)
{
    struct str wanted = str_of(name);
    for (int i = 0; i < r->head.count; i++) {
        if (str_eq_nocase(r->head.fields[i].name, wanted)) {
            *out = r->head.fields[i].value;
            return true;
        }
    }
    return false;
}

int http_header_count(const struct http_request *r, const char *name)
{
    struct str wanted = str_of(name);
    int n = 0;
    for (int i = 0; i < r->head.count; i++)
        n += str_eq_nocase(r->head.fields[i].name, wanted);
    return n;
}

const char *http_peer(const struct http_request *r)
{
    const struct sockaddr_in6 *a6 = &r->c->peer;
    char *text = r->c->s->peer_text;
    const struct sockaddr_in *a4 = (const struct sockaddr_in *)(const void *)a6;
    bool v4 = a6->sin6_family == AF_INET;
    const void *address = v4 ? (const void *)&a4->sin_addr : (const void *)&a6->sin6_addr;
    if (inet_ntop(v4 ? AF_INET : AF_INET6, address, text, PEER_BYTES) == NULL)
        text[0] = '\0';
    return text;
}

struct arena *http_arena(struct http_request *r)
{
    if (r->arena == NULL)
        r->arena = arena_new(ARENA_BYTES);
    if (r->arena == NULL)
        BUG("no memory for an arena's head");
    return r->arena;
}

void http_set_data(struct http_request *r, void *data)
{
    r->data = data;
}

void *http_data(const struct http_request *r)
{
    return r->data;
}

mono_t http_started(const struct http_request *r)
{
    return r->started;
}

/* ---- decoding ---- */

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    int low = c | 0x20;
    return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

bool http_decode(struct http_request *r, struct str s, bool plus, struct str *out)
{
    char *to = arena_alloc(http_arena(r), s.n + 1);
    if (to == NULL)
        return false;
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = plus && s.p[i] == '+' ? ' ' : s.p[i];
        if (c == '%') {
            int high = s.n - i > 2 ? hex(s.p[i + 1]) : -1;
            int low = high >= 0 ? hex(s.p[i + 2]) : -1;
            if (low < 0)
                return false;
            c = (char)(high * 16 + low);
            i += 2;
        }
        to[n++] = c;
    }
    *out = str_make(to, n);
    return true;
}

int http_query_get(struct http_request *r, const char *name, struct str *out, struct err *err)
{
    struct str rest = http_query(r), pair;
    while (str_split(&rest, '&', &pair)) {
        struct str value = pair, key, raw;
        str_split(&value, '=', &raw);
        if (!http_decode(r, raw, true, &key))
            return err_set(err, ERR_BAD_QUERY, "malformed query");
        if (!str_eq_c(key, name))
            continue;
        if (!http_decode(r, value.p != NULL ? value : STR(""), true, out))
            return err_set(err, ERR_BAD_QUERY, "malformed value of %s", name);
        return 1;
    }
    return 0;
}

/* The place of a name among the known ones, or -1. */
static int place_of(struct str name, const char *const *known)
{
    for (int i = 0; known[i] != NULL; i++) {
        struct str k = str_of(known[i]);
        bool family = k.n > 0 && k.p[k.n - 1] == '.';
        if (family ? name.n > k.n && str_starts(name, k) : str_eq(name, k))
            return i;
    }
    return -1;
}

static int unknown_parameter(struct str name, const char *const *known, struct err *err)
{
    const char *meant = str_nearest(name, known);
    int shown = name.n < 60 ? (int)name.n : 60;
    if (meant != NULL)
        return err_set(err, ERR_BAD_QUERY, "unknown query parameter \"%.*s\"; did you mean \"%s\"?", shown,
                       name.p, meant);
    return err_set(err, ERR_BAD_QUERY, "unknown query parameter \"%.*s\"%s%s", shown, name.p,
                   known[0] == NULL ? "; none is known here" : "; known here is ",
                   known[0] == NULL ? "" : known[0]);
}

int http_query_check(struct http_request *r, const char *const *known, struct err *err)
{
    struct str rest = http_query(r), pair, name, value;
    uint64_t seen = 0;
    while (str_split(&rest, '&', &pair)) {
        if (pair.n == 0)
            continue;
        struct str raw = pair, first;
        str_split(&raw, '=', &first);
        if (!http_decode(r, first, true, &name) ||
            !http_decode(r, raw.p != NULL ? raw : STR(""), true, &value))
            return err_set(err, ERR_BAD_QUERY, "malformed query: a \"%%\" without two hexadecimal digits");
        int at = place_of(name, known);
        if (at < 0)
            return unknown_parameter(name, known, err);
        uint64_t bit = str_eq_c(name, known[at]) ? UINT64_C(1) << (at & 63) : 0;
        if ((seen & bit) != 0)
            return err_set(err, ERR_BAD_QUERY, "the query parameter %s was given more than once", known[at]);
        seen |= bit;
    }
    return 0;
}

/* ---- the body ---- */

static void fail_later(struct conn *c, enum err_code code, const char *what)
{
    c->fail = code;
    c->fail_what = what;
}

static void body_begin(struct http_request *r, size_t max_bytes, enum body_mode mode)
{
    struct conn *c = r->c;
    INVARIANT(r->active && r->mode == BODY_UNREAD);
    r->mode = mode;
    r->max_body = max_bytes;
    buf_init(&r->body, max_bytes);
    r->body_from = r->span_from = r->body_at = mono_now();
    conn_enter(c, CONN_BODY);
    if (r->body_left > 0 && (uint64_t)r->body_left > max_bytes)
        fail_later(c, ERR_BODY_TOO_LARGE, "body");
    else if (mode == BODY_COLLECT && !body_fits(r, (size_t)r->body_left))
        fail_later(c, ERR_OVERLOADED, "too many bodies are held");
    else if (r->head.expect_continue && r->has_body && c->input.n == 0 && c->in.len == 0)
        reply_continue(c);
    if (!c->running)
        conn_wake(c);
}

void http_read_body(struct http_request *r, size_t max_bytes, http_body_fn *fn, void *arg)
{
    r->body_fn = fn;
    r->body_arg = arg;
    body_begin(r, max_bytes, BODY_COLLECT);
}

void http_stream_body(struct http_request *r, size_t max_bytes, const struct http_body_stream *stream)
{
    r->stream = *stream;
    body_begin(r, max_bytes, BODY_STREAM);
}

void http_body_resume(struct http_request *r)
{
    if (!r->paused)
        return;
    struct conn *c = r->c;
    r->paused = false;
    mono_t now = mono_now();
    int64_t paused_ms = mono_ms_between(r->body_at, now);
    r->body_from = mono_add_ms(r->body_from, paused_ms);
    r->span_from = mono_add_ms(r->span_from, paused_ms);
    r->body_at = now;
    quiet_renew(c);
    c->in_due_us = now.us; /* its deadlines are looked at in the next sweep */
    conn_wake(c);
}

int64_t http_content_length(const struct http_request *r)
{
    return r->head.content_length;
}

bool http_has_body(const struct http_request *r)
{
    return r->head.chunked || r->head.content_length > 0;
}
