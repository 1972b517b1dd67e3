/* Feeding: what waits in PostgreSQL goes to the streams as its tenant's window has room, by deficit round
 * robin over tenants, high priority first, reading insert-only rows by id.
 *
 * A tenant is fed from the lowest id that its backlog mark names, behind one cursor a priority. A scan that
 * reaches the end is repeated once over the last TAIL_MS: ids are minted before they are committed, so a row
 * may appear behind the cursor. Only then is the mark cleared, and only if nothing was added meanwhile
 * (generations). */
#ifndef DISPATCHER_FEEDER_H
#define DISPATCHER_FEEDER_H

#include "dispatcher.h"

struct feeder;
struct feeder *feeder_new(struct dispatcher *d);
void feeder_free(struct feeder **f);

/* Whether the feeder will come by id by itself: its tenant has a mark and its cursor lies before it. */
bool feeder_covers(const struct feeder *f, int32_t tenant, enum inv_priority priority, struct uuid id);

/* Whether the tenant is marked, as of the last round. */
bool feeder_knows(const struct feeder *f, int32_t tenant);

/* Whether its queue limit has passed before anybody tried it. */
bool feed_row_expired(const struct entry *job);

/* Whether an open row may be enqueued now. One that is canceled or expired may not: it is settled, after
 * Redis has said that nobody holds it (a canceled one's owner is told). */
bool feed_row_ready(struct dispatcher *d, const struct entry *job, bool canceling, wall_t not_before);

#endif
