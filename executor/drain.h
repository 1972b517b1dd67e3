/* Stopping without anybody noticing: nothing more is claimed, running jobs may come to their end, what is
 * left when the time is over is handed back to the queue, and this process strikes itself off the register,
 * so that no dispatcher has to find it dead.
 *
 *   FINISHING (jobs end by themselves) -> HANDING_BACK (the rest goes back; outcomes, releases and destroys
 *   are waited for) -> LEAVING (off the register) -> left()
 *
 * Each has a deadline; what a lost reply leaves behind is found by the dispatchers as of a dead executor. */
#ifndef EXECUTOR_DRAIN_H
#define EXECUTOR_DRAIN_H

#include "executor.h"

struct drain;
/* left: called once, from the loop. */
struct drain *drain_new(struct executor *x, void (*left)(void *arg), void *arg);
void drain_free(struct drain **d);

/* Begins; again: does not wait for jobs any longer. A third time: leaves at once. */
void drain_begin(struct drain *d);

#endif
