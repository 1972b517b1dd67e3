/* Batches: fed bit by bit from behind a durable cursor, counted as they end, ended when all of them have, and
 * canceled as a whole.
 *
 * A batch's items wait in PostgreSQL beyond its cursor, where nothing else of the dispatcher looks. A step
 * moves the cursor as far as the batch's max_concurrency and a look-ahead allow: what lies before it is the
 * queue's, is enqueued by the feeder (which asks here what is to be), and found again after any loss. What is
 * held in memory (the fed items that are open, and which of them Redis was given) is read again by whoever
 * takes the lead, or after Redis was lost; then all of it is given to Redis again, which knows what it has
 * already. */
#ifndef DISPATCHER_BATCHES_H
#define DISPATCHER_BATCHES_H

#include "dispatcher.h"

struct batches;
struct batches *batches_new(struct dispatcher *d);
void batches_free(struct batches **b);

/* Up to max fed items of a tenant and priority that Redis was not given yet; sorted; of all its batches
 * equally. */
size_t batches_waiting(const struct batches *b, int32_t tenant, enum inv_priority priority, struct uuid *out,
                       size_t max);
/* Redis has it, or nothing is to be enqueued of it now. */
void batches_queued(struct batches *b, struct uuid id);
/* Redis lost it. */
void batches_missing(struct batches *b, struct uuid id);

#endif
