/* Cells built ahead of need, and the queue of those who wait for one. */
#ifndef SANDBOXD_POOL_H
#define SANDBOXD_POOL_H

#include "cell.h"

struct pool;
struct pool_wait; /* one who waits */

/* Keeps options->spare_cells ready, building at most options->build_at_once at a time. NULL without memory.
 */
struct pool *pool_new(struct cell_works *works);
/* Kills the ready and the half-built; waiters are dropped silently. */
void pool_free(struct pool **p);

/* A READY cell (now the callee's), or NULL and why none can be had. Called from the loop, never from
 * pool_take. */
typedef void pool_fn(void *arg, struct cell *cell, const char *why);

/* Asks for a cell. NULL and *err (ERR_OVERLOADED: too many wait; ERR_TOO_MANY: the live limit is reached). */
struct pool_wait *pool_take(struct pool *p, int64_t deadline_ms, pool_fn *fn, void *arg, struct err *err);
/* Withdraws; NULL is fine. */
void pool_cancel(struct pool_wait **w);

/* False while no cell is ready and the last builds have failed, several in a row. */
bool pool_works(const struct pool *p);

#endif
