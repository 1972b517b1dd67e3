/* From commit to queue: committed jobs are put on their streams in the same turn, neither awaited nor
 * retried.
 *
 * What must stay true: every committed id that may not have reached Redis is at or above the low id of this
 * boot's row in PostgreSQL, which is refreshed each second. The row is written before the first submission is
 * accepted and again whenever it would be wrong. When a script fails, the tenants concerned are marked for
 * the dispatcher's feeder as soon as Redis answers again; until then their ids hold the low id down. When
 * this process dies, a dispatcher reads the row (store/boots.c). */
#ifndef GATEWAY_HANDOFF_H
#define GATEWAY_HANDOFF_H

#include "gateway.h"

struct handoff;
struct handoff_ticket;

struct handoff *handoff_new(struct gateway *g);
void handoff_free(struct handoff **h);

/* Before a submission is given to the submitter: from here on its id holds the low id down. NULL without
 * memory. */
struct handoff_ticket *handoff_begin(struct handoff *h, int32_t tenant);
/* As soon as the id is known (ids grow: tickets are in order). */
void handoff_id(struct handoff_ticket *t, struct uuid id);
/* Nothing was committed. */
void handoff_drop(struct handoff *h, struct handoff_ticket *t);
/* Committed: enqueue. The prompt is copied when it is inline. */
void handoff_commit(struct handoff *h, struct handoff_ticket *t, const struct entry *e);

/* Perhaps committed: left to the dispatcher's feeder, which reads what is. */
void handoff_unsure(struct handoff *h, struct handoff_ticket *t);

/* Whether submissions may be accepted: the boot's row and locks stand, clocks agree. */
bool handoff_ready(const struct handoff *h, struct err *err);

/* Redis is back: marks what failed meanwhile. */
void handoff_redis_up(struct handoff *h);
/* One of the writing connections is new: locks and row again. */
void handoff_pg_up(struct handoff *h, struct pg *pg);

/* The end of a clean shutdown: nothing is left to hand off. Calls fn when the row is gone (or could not be).
 */
void handoff_finish(struct handoff *h, void (*fn)(void *arg), void *arg);

#endif
