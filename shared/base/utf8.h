/* Bytes that come in pieces, made into UTF-8 text: what is none, and NUL, becomes U+FFFD. A character that is
 * cut by the border of two pieces is whole again in the second. Pure. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include "base/buf.h"

enum { UTF8_CHAR_BYTES = 4, UTF8_GROWTH = 3 }; /* a byte becomes three at most */

/* Zeroed before the first piece. */
struct utf8_mend {
    char held[UTF8_CHAR_BYTES]; /* the beginning of a character */
    size_t held_n;
};

/* Appends whole characters to out. False, and out failed, when they do not fit. */
bool utf8_mend(struct utf8_mend *m, struct str piece, struct buf *out);

/* No piece follows: a character that was begun is none. */
bool utf8_mend_end(struct utf8_mend *m, struct buf *out);

/* How much of s, which is UTF-8, its first n bytes are without cutting a character. */
size_t utf8_floor(struct str s, size_t n);

#endif
