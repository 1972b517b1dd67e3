/* JSON out: appends to a buffer, inserting commas itself. Length-aware: strings may hold any valid UTF-8 (NUL
 * is written as \u0000). Over-full buffers stay failed (see base/buf.h); check once at the end. */
#ifndef JSON_WRITER_H
#define JSON_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/id.h"

struct json_writer {
    struct buf *out; /* borrowed */
    bool comma;      /* the next value or key is preceded by a comma */
};

static inline struct json_writer json_writer(struct buf *out)
{
    return (struct json_writer){.out = out};
}

void jw_object(struct json_writer *w);
void jw_object_end(struct json_writer *w);
void jw_array(struct json_writer *w);
void jw_array_end(struct json_writer *w);
void jw_key(struct json_writer *w, const char *key);    /* key: plain ASCII, not escaped */
void jw_key_str(struct json_writer *w, struct str key); /* any UTF-8 */

void jw_str(struct json_writer *w, struct str s);   /* bytes that are not UTF-8 become U+FFFD: check before */
void jw_cstr(struct json_writer *w, const char *s); /* NULL writes null */
void jw_int(struct json_writer *w, int64_t v);
void jw_double(struct json_writer *w, double v); /* shortest form that reads back equal; not finite: null */
void jw_bool(struct json_writer *w, bool v);
void jw_null(struct json_writer *w);
void jw_raw(struct json_writer *w, struct str json);     /* valid JSON as it stands */
void jw_base64(struct json_writer *w, struct str bytes); /* a string: standard base64 with padding */
void jw_time(struct json_writer *w, wall_t t);           /* RFC 3339 string; t.us == 0 writes null */
void jw_id(struct json_writer *w, const char *prefix, struct uuid id);

/* key and value in one go */
void jw_kstr(struct json_writer *w, const char *key, struct str s);
void jw_kcstr(struct json_writer *w, const char *key, const char *s);
void jw_kint(struct json_writer *w, const char *key, int64_t v);
void jw_kbool(struct json_writer *w, const char *key, bool v);
void jw_knull(struct json_writer *w, const char *key);
void jw_ktime(struct json_writer *w, const char *key, wall_t t);
void jw_kid(struct json_writer *w, const char *key, const char *prefix, struct uuid id);

#endif
