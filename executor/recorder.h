/* Outcomes on their way: large outputs into blobs, the outcome into PostgreSQL, then the lease released and
 * the callers told (DESIGN section 3, step 5). Dying between any two of these loses nothing.
 *
 * While PostgreSQL is away outcomes wait here, outputs in their spools; while Redis is away releases wait and
 * are sent again when it is back. */
#ifndef EXECUTOR_RECORDER_H
#define EXECUTOR_RECORDER_H

#include "job.h"

struct recorder;
struct recorder *recorder_new(struct executor *x);
void recorder_free(struct recorder **r);

/* Takes the job: j->outcome is filled but for output and logs, which come from its spools (results only).
 * Frees the job in the end. */
void recorder_put(struct recorder *r, struct job *j);

/* The job ends without an outcome of ours: only its lease is released (builds; fenced jobs without usage). */
void recorder_release(struct recorder *r, struct job *j);

/* The job goes back to the queue as it was claimed, with nothing spent: tried until Redis has taken it. Frees
 * the job. Only before its program has started. */
void recorder_hand_back(struct recorder *r, struct job *j);

void recorder_redis_up(struct recorder *r);

/* No lease waits to be released. */
bool recorder_idle(const struct recorder *r);

#endif
