/* JSON out: one flag (`comma`) is the whole state; the buffer's sticky failure is the whole error handling.
 */
#include "json/writer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "crypto/crypto.h"
#include "json/utf8.h"

/* Before every value and key. */
static void lead(struct json_writer *w)
{
    if (w->comma)
        buf_byte(w->out, ',');
}

static void open_with(struct json_writer *w, char c)
{
    lead(w);
    buf_byte(w->out, c);
    w->comma = false;
}

static void close_with(struct json_writer *w, char c)
{
    buf_byte(w->out, c);
    w->comma = true;
}

void jw_object(struct json_writer *w)
{
    open_with(w, '{');
}

void jw_object_end(struct json_writer *w)
{
    close_with(w, '}');
}

void jw_array(struct json_writer *w)
{
    open_with(w, '[');
}

void jw_array_end(struct json_writer *w)
{
    close_with(w, ']');
}

/* ---- strings ---- */

static void put_escape(struct buf *out, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    switch (c) {
    case '"':
        buf_append(out, "\\\"", 2);
        return;
    case '\\':
        buf_append(out, "\\\\", 2);
        return;
    case '\n':
        buf_append(out, "\\n", 2);
        return;
    case '\r':
        buf_append(out, "\\r", 2);
        return;
    case '\t':
        buf_append(out, "\\t", 2);
        return;
    default: {
        char u[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
        buf_append(out, u, sizeof u);
    }
    }
}

/* The bytes from p on that can be copied as they stand: plain ones and whole UTF-8 sequences. */
static size_t copyable(const char *p, const char *end)
{
    const char *at = p;
    for (;;) {
        at += json_plain_run(at, end);
        if (at == end || (unsigned char)*at < 0x80)
            return (size_t)(at - p);
        size_t n = json_utf8_len(at, end);
        if (n == 0)
            return (size_t)(at - p);
        at += n;
    }
}

static void put_quoted(struct buf *out, struct str s)
{
    const char *p = s.p, *end = s.p + s.n;
    buf_byte(out, '"');
    while (p < end && !out->failed) {
        size_t n = copyable(p, end);
        buf_append(out, p, n);
        p += n;
        if (p == end)
            break;
        if ((unsigned char)*p < 0x80)
            put_escape(out, (unsigned char)*p);
        else
            buf_append(out, "\xef\xbf\xbd", 3); /* U+FFFD */
        p++;
    }
    buf_byte(out, '"');
}

void jw_key(struct json_writer *w, const char *key)
{
    lead(w);
    buf_byte(w->out, '"');
    buf_cstr_append(w->out, key);
    buf_append(w->out, "\":", 2);
    w->comma = false;
}

void jw_key_str(struct json_writer *w, struct str key)
{
    lead(w);
    put_quoted(w->out, key);
    buf_byte(w->out, ':');
    w->comma = false;
}

void jw_str(struct json_writer *w, struct str s)
{
    lead(w);
    put_quoted(w->out, s);
    w->comma = true;
}

void jw_cstr(struct json_writer *w, const char *s)
{
    if (s == NULL)
        jw_null(w);
    else
        jw_str(w, str_of(s));
}

/* ---- the other values ---- */

void jw_raw(struct json_writer *w, struct str json)
{
    lead(w);
    buf_str(w->out, json);
    w->comma = true;
}

void jw_int(struct json_writer *w, int64_t v)
{
    lead(w);
    buf_i64(w->out, v);
    w->comma = true;
}

/* 15 digits suffice for most, 17 for all (IEEE 754 binary64). */
void jw_double(struct json_writer *w, double v)
{
    if (!isfinite(v)) {
        jw_null(w);
        return;
    }
    char text[40];
    int n = 0;
    for (int digits = 15; digits <= 17; digits++) {
        n = snprintf(text, sizeof text, "%.*g", digits, v);
        double back = strtod(text, NULL);
        if (back >= v && back <= v)
            break;
    }
    jw_raw(w, str_make(text, (size_t)n));
}

void jw_bool(struct json_writer *w, bool v)
{
    jw_raw(w, v ? STR("true") : STR("false"));
}

void jw_null(struct json_writer *w)
{
    jw_raw(w, STR("null"));
}

void jw_base64(struct json_writer *w, struct str bytes)
{
    lead(w);
    buf_byte(w->out, '"');
    crypto_base64(bytes, w->out);
    buf_byte(w->out, '"');
    w->comma = true;
}

/* A text that needs no escaping. */
static void put_plain(struct json_writer *w, const char *s)
{
    lead(w);
    buf_byte(w->out, '"');
    buf_cstr_append(w->out, s);
    buf_byte(w->out, '"');
    w->comma = true;
}

void jw_time(struct json_writer *w, wall_t t)
{
    if (t.us == 0) {
        jw_null(w);
        return;
    }
    char text[WALL_TEXT_BYTES];
    wall_format(t, text);
    put_plain(w, text);
}

void jw_id(struct json_writer *w, const char *prefix, struct uuid id)
{
    char text[ID_TEXT_BYTES];
    id_format(prefix, id, text);
    put_plain(w, text);
}

/* ---- key and value in one go ---- */

void jw_kstr(struct json_writer *w, const char *key, struct str s)
{
    jw_key(w, key);
    jw_str(w, s);
}

void jw_kcstr(struct json_writer *w, const char *key, const char *s)
{
    jw_key(w, key);
    jw_cstr(w, s);
}

void jw_kint(struct json_writer *w, const char *key, int64_t v)
{
    jw_key(w, key);
    jw_int(w, v);
}

void jw_kbool(struct json_writer *w, const char *key, bool v)
{
    jw_key(w, key);
    jw_bool(w, v);
}

void jw_knull(struct json_writer *w, const char *key)
{
    jw_key(w, key);
    jw_null(w);
}

void jw_ktime(struct json_writer *w, const char *key, wall_t t)
{
    jw_key(w, key);
    jw_time(w, t);
}

void jw_kid(struct json_writer *w, const char *key, const char *prefix, struct uuid id)
{
    jw_key(w, key);
    jw_id(w, prefix, id);
}
