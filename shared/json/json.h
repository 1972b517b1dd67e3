/* JSON in: a strict RFC 8259 scan, then cJSON's tree behind typed, case-sensitive look-ups.
 *
 * cJSON 1.7.15 accepts and truncates what it should refuse, so nothing reaches it that the scan has not
 * passed: valid UTF-8, no raw control characters, `\u0000` refused, surrogates paired, RFC number forms
 * within double's range, no duplicate keys in one object (compared unescaped), no trailing bytes, depth and
 * the number of values within limits. */
#ifndef JSON_JSON_H
#define JSON_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum {
    JSON_MAX_DEPTH = 64,
    JSON_MAX_KEYS = 10000,    /* members in one object */
    JSON_MAX_VALUES = 200000, /* in all: each costs some 80 bytes once parsed, and two in the text */
};

/* Checks that text is exactly one JSON value. ERR_BAD_JSON with "line L column C: what" otherwise. */
int json_scan(struct str text, struct err *err);

struct json;       /* a parsed document */
struct json_value; /* a value inside it; NULL stands for "absent" everywhere below */

/* Scans, then parses. Keeps `text` by reference: it must outlive the document. NULL and *err on failure. */
struct json *json_parse(struct str text, struct err *err);
void json_free(struct json **doc);
/* The same for a document that holds secrets: its strings are wiped first. The text is its owner's. */
void json_free_secret(struct json **doc);
const struct json_value *json_root(const struct json *doc);

enum json_type { JSON_ABSENT, JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };
enum json_type json_type_of(const struct json_value *v);

/* An object's member (case-sensitive), or NULL. NULL in, NULL out. */
const struct json_value *json_get(const struct json_value *object, const char *key);

/* Walks an array's or object's children in order: first, then next. The key of a member ("" in arrays). */
const struct json_value *json_first(const struct json_value *container);
const struct json_value *json_next(const struct json_value *v);
struct str json_key(const struct json_value *member);
size_t json_count(const struct json_value *container);

/* The line, from 1, on which the value's key stands, or the value when it has none. A pass over the text: for
 * errors. */
unsigned json_line(const struct json *doc, const struct json_value *v);

/* Typed reads: false when absent or of another type. Strings are unescaped and live as long as the document.
 * Integers are exact over the whole 64-bit range (read from the source text; "1.0" and "1e3" are not
 * integers). */
bool json_str(const struct json_value *v, struct str *out);
bool json_int(const struct json *doc, const struct json_value *v, int64_t *out);
bool json_double(const struct json_value *v, double *out);
bool json_bool(const struct json_value *v, bool *out);

/* The source text of a member of the ROOT object (as it was sent, validated): for `metadata` and the like. */
struct str json_member_source(const struct json *doc, const char *key);

/* Checks an object's member names against a NULL-ended list. The first unknown one gives ERR_UNKNOWN_FIELD
 * with `unknown field "promt"; did you mean "prompt"?`. */
int json_known_fields(const struct json_value *object, const char *const *known, struct err *err);
/* The first unknown one, or NULL. */
const struct json_value *json_unknown_field(const struct json_value *object, const char *const *known);

#endif
