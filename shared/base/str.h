/* String views: bytes with a length, owned by somebody else. Never NUL-ended by promise. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *p; /* never NULL when n > 0 */
    size_t n;
};

#define STR(literal) ((struct str){.p = "" literal, .n = sizeof(literal) - 1})
/* For printf: "%.*s", STR_ARG(s). */
#define STR_ARG(s) (int)(s).n, (s).p

/* A view of a C string; NULL gives the empty view. */
static inline struct str str_of(const char *s)
{
    return (struct str){.p = s != NULL ? s : "", .n = s != NULL ? strlen(s) : 0};
}

static inline struct str str_make(const char *p, size_t n)
{
    return (struct str){.p = p, .n = n};
}

/* Equality; not constant-time (secrets: crypto_equal). */
bool str_eq(struct str a, struct str b);
bool str_eq_c(struct str a, const char *b);
bool str_eq_nocase(struct str a, struct str b); /* ASCII */
bool str_starts(struct str s, struct str prefix);

/* Without leading and trailing spaces and tabs. */
struct str str_trim(struct str s);

/* Cuts s at the first sep: *head_out is what stands before it, *rest what follows (empty when there is no
 * sep). Returns false when *rest was exhausted (p == NULL) before the call. */
bool str_split(struct str *rest, char sep, struct str *head_out);

/* A decimal integer, the whole of s, no sign for u64, no spaces, no overflow. False leaves *out alone. */
bool str_to_u64(struct str s, uint64_t *out);
bool str_to_i64(struct str s, int64_t *out);

/* The length of the UTF-8 character (RFC 3629: no overlong forms, no surrogates) that s, which is not empty,
 * begins with; 0: none does; -1: s ends within one. */
int str_utf8_next(struct str s);

/* The same all through. */
bool str_is_utf8(struct str s);

/* A malloc'd NUL-ended copy (free it), or NULL without memory. */
char *str_dup(struct str s);

/* Copies into a fixed array, NUL-ended; false when it did not fit (then out is the empty string). */
bool str_copy(struct str s, char *out, size_t out_bytes);

/* Levenshtein distance of two short names (at most 64 bytes each; longer count as far apart), two swapped
 * neighbours counting as one edit.
 * For "did you mean" in error texts. */
unsigned str_distance(struct str a, struct str b);

/* Of a NULL-ended list, the name that the writer of `name` probably meant; NULL when none is near. */
const char *str_nearest(struct str name, const char *const *known);

#endif
