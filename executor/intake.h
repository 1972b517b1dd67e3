/* Claiming: permits first, then entries, never more than fit (DESIGN section 3, step 3). Two of them in a
 * process: one for invocations, one for builds; each with a blocking connection of its own. */
#ifndef EXECUTOR_INTAKE_H
#define EXECUTOR_INTAKE_H

#include "executor.h"

struct intake;

/* streams: NULL-ended. slots: jobs of kind at once. Starts when intake_start is called. */
struct intake *intake_new(struct executor *x, enum entry_kind kind, const char *const *streams, int slots,
                          struct err *err);
void intake_free(struct intake **in);

void intake_start(struct intake *in);
/* Claims no more; what is being claimed is still taken. */
void intake_stop(struct intake *in);
/* A slot is free: look again. */
void intake_wake(struct intake *in);
/* The provider's quota is reached: nothing is claimed for so long, whatever wakes it. */
void intake_pause(struct intake *in, int64_t ms);
/* Of the governor's, granted and not with a job yet. */
int intake_permits(const struct intake *in);
/* Nothing is being claimed any more: with intake_stop, no job comes after this. */
bool intake_idle(const struct intake *in);

#endif
