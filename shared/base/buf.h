/* A growing byte buffer with a cap.
 *
 * Anything whose size a peer decides goes through one of these. Going over the cap, or running out of memory,
 * sets a sticky `failed` flag and appends nothing more; so a sequence of appends is checked once, at its end.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

struct buf {
    char *data;  /* owned; NULL while empty; not NUL-ended (see buf_cstr) */
    size_t len;  /* bytes in use */
    size_t cap;  /* bytes allocated */
    size_t max;  /* the cap on len */
    bool failed; /* sticky: an append did not fit */
    bool secret; /* what it held is wiped wherever it lets memory go */
};

/* A buffer that holds at most max bytes. Allocates nothing yet. */
void buf_init(struct buf *b, size_t max);

/* The same for secrets: its memory is wiped before it is given back, also when it grows. */
void buf_init_secret(struct buf *b, size_t max);

/* Frees the memory; the buffer is as after buf_init. NULL is fine. */
void buf_deinit(struct buf *b);

/* Forgets the content and the failure, keeps the memory. */
void buf_clear(struct buf *b);

/* Makes room for n more bytes and returns where they go, or NULL (and failed) when they do not fit.
 * Write at most n bytes there, then buf_commit what was written. */
char *buf_reserve(struct buf *b, size_t n);
void buf_commit(struct buf *b, size_t n);

/* Append; false (and failed) when it did not fit. */
bool buf_append(struct buf *b, const void *data, size_t n);
bool buf_str(struct buf *b, struct str s);
bool buf_cstr_append(struct buf *b, const char *s);
bool buf_byte(struct buf *b, char c);
bool buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool buf_u64(struct buf *b, uint64_t v); /* decimal */
bool buf_i64(struct buf *b, int64_t v);  /* decimal */

/* Drops the first n bytes (n <= len). */
void buf_consume(struct buf *b, size_t n);

/* The content as a view; valid until the buffer changes. */
struct str buf_view(const struct buf *b);

/* The content NUL-ended, or NULL when that does not fit. Valid until the buffer changes. */
const char *buf_cstr(struct buf *b);

/* Gives the memory away: the caller frees it with free(); *len_out may be NULL. The buffer is then empty. */
char *buf_take(struct buf *b, size_t *len_out);

#endif
