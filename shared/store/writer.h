/* Group commit: rows that arrive while a commit is in flight share the next one.
 *
 * A group is one statement with one array a column; it is capped by rows and bytes, sorted by key (unsorted
 * multi-row `ON CONFLICT DO NOTHING` from two processes deadlocks). Rows larger than WRITER_LARGE_BYTES, and
 * those that say so, go by a second connection, so that they do not hold up the small ones.
 *
 * What must stay true: every statement is idempotent by its rows' keys. So after a lost COMMIT reply the
 * group is simply sent again, until each row's deadline: a unique key that another backend is still
 * committing makes the second insert wait for the first one's outcome. On a data error (SQLSTATE class 22/23)
 * a group is bisected, so that each row gets its own answer and none fails another. */
#ifndef STORE_WRITER_H
#define STORE_WRITER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "loop/loop.h"
#include "postgres/pg.h"

enum {
    WRITER_GROUP_ROWS = 1000,
    WRITER_GROUP_BYTES = 1024 * 1024,
    WRITER_LARGE_BYTES = 64 * 1024, /* not more than what rows hold inline (INV_INLINE_BYTES) */
};

struct writer;

/* Embedded at the head of what is written; owned by the writer from writer_put to `done`. */
struct writer_row {
    struct writer_row *next;
    struct uuid key;
    size_t bytes;    /* about what it adds to the statement */
    mono_t deadline; /* until when it is tried */
    bool is_large;   /* it needs sql_large, whatever its size */
    bool sent;       /* the writer's: it was on the wire at least once */
};

struct writer_ops {
    const char *sql;       /* for groups of small rows */
    const char *sql_large; /* for large rows; may be the same */
    /* Encodes rows[0..n), sorted by key, as the statement's parameters. */
    void (*encode)(struct pg_params *p, struct writer_row *const *rows, size_t n, bool large);
    /* Reads the statement's answer into the rows (committed). May be NULL. */
    void (*apply)(struct writer_row *const *rows, size_t n, const struct pg_result *result);
    /* The row's end: err NULL committed; ERR_PG_DATA refused by the database; ERR_UNAVAILABLE not written;
     * ERR_OUTCOME_UNKNOWN perhaps written. From the loop; the row is the owner's again. */
    void (*done)(void *arg, struct writer_row *row, const struct err *err);
};

/* small and large are borrowed connections used by nobody else in between (large may equal small). max_bytes
 * caps what waits. */
struct writer *writer_new(struct loop *loop, struct pg *small, struct pg *large, const struct writer_ops *ops,
                          void *arg, size_t max_bytes);
void writer_free(struct writer **w);

/* Takes the row. ERR_OVERLOADED when too much waits (the row stays the caller's). */
int writer_put(struct writer *w, struct writer_row *row, struct err *err);

/* Rows and bytes not yet ended. */
size_t writer_rows(const struct writer *w);
size_t writer_bytes(const struct writer *w);

#endif
