/* Reclaiming: jobs of executors that died.
 *
 * Dead is an executor whose lease key was missing for 2.5 s of this process's monotonic clock with Redis
 * answering throughout; or for 0.5 s when Redis, asked meanwhile, has none of its connections any more: the
 * connections of a killed process are closed by its kernel at once, those of a frozen or cut-off one stay.
 * (DESIGN section 4 has only the first rule; the second one spares the callers two seconds in the common
 * case, and an error of it costs what an error of the first costs: a job run twice, one outcome.) After any
 * loss or reconnect nobody is declared dead for 3 s. Its jobs are those that sp:live says it owns, and the
 * entries delivered to it that it never leased. Each gets its next attempt allocated in PostgreSQL first (the
 * fence), then goes back to its stream.
 */
#ifndef DISPATCHER_RECLAIM_H
#define DISPATCHER_RECLAIM_H

#include "dispatcher.h"

struct reclaim;
struct reclaim *reclaim_new(struct dispatcher *d);
void reclaim_free(struct reclaim **r);

/* Whether a boot is known alive right now; false also while that cannot be said. */
bool reclaim_alive(const struct reclaim *r, struct uuid boot);
/* Whether liveness can be said at all. */
bool reclaim_sure(const struct reclaim *r);

#endif
