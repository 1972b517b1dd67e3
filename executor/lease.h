/* Keeping leases: the heartbeat, cancels, and asserting again after a loss (DESIGN section 4, "Leases").
 *
 * A lease is lost only when Redis names another attempt or owner; a merely missing key is put back together
 * with the running set. So a flush or an outage of Redis kills no running work, and an executor that was
 * frozen finds itself fenced when it wakes. */
#ifndef EXECUTOR_LEASE_H
#define EXECUTOR_LEASE_H

#include "executor.h"

struct lease_keeper;
struct lease_keeper *lease_keeper_new(struct executor *x, struct err *err);
void lease_keeper_free(struct lease_keeper **k);

/* The job's program has started: told with the others of this turn, unless it has ended by then. */
void lease_started(struct lease_keeper *k, struct uuid id);

/* Beats no more: the lease is left to run out, or is given up by queue_executor_leave. */
void lease_keeper_stop(struct lease_keeper *k);

/* Redis is back: beat and assert at once. */
void lease_keeper_redis_up(struct lease_keeper *k);

#endif
