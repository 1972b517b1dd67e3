/* Warm pools: sandboxes created ahead for versions that ask for them (agent.json's warm_pool), each used by
 * one attempt and never again.
 *
 * The pools are each executor's own, its share of the fleet's; nothing of them is in Redis, so a sandbox's
 * token goes nowhere. Every 2 s an executor reads which versions serve and want one, and who else lives.
 *
 * A sandbox made for an attempt carries that attempt in its nonce: the evidence by which its usage is written
 * when its executor dies (store/nonce.h). A warm one cannot. So before it is used Redis must know of it, in
 * this executor's will (store/queue_will.h): one round trip, the price of a hit. While Redis does not answer,
 * jobs get sandboxes of their own. A dead executor's idle ones belong to no attempt: the reaper destroys
 * them.
 *
 * Quota: each counts as live at the governor, and its create takes a token. They yield: when jobs wait for
 * want of permits, the oldest idle one goes, and none is made for a while. */
#ifndef EXECUTOR_WARM_H
#define EXECUTOR_WARM_H

#include "job.h"

struct warm;
struct warm *warm_new(struct executor *x);
void warm_free(struct warm **w);
/* Begins to fill; stops and destroys what is idle. */
void warm_start(struct warm *w);
void warm_stop(struct warm *w);
/* Nothing is being made any more. */
bool warm_quiet(const struct warm *w);

/* Gives the job a sandbox when one is ready for its version and will live long enough: has_sandbox is set,
 * and noted is called once Redis knows (err NULL), or does not. False: there is none. */
typedef void warm_noted_fn(struct executor *x, struct uuid job, int16_t attempt, const struct err *err);
bool warm_take(struct warm *w, struct job *j, warm_noted_fn *noted);
/* Redis may have forgotten: what jobs took is noted again. */
void warm_forgotten(struct warm *w);

/* One that was taken turned out to be gone: the others are doubtful, too. */
void warm_doubt(struct warm *w);
/* A job waits for a permit: the oldest idle one goes. */
void warm_yield(struct warm *w);
/* Ready now; and the governor's permits that the pools hold. */
int warm_ready(const struct warm *w);
int warm_permits(const struct warm *w);

#endif
