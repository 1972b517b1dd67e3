/* Ends that the dispatcher writes itself, through the one settling function: canceled and expired jobs that
 * nobody runs, attempts of dead executors, usage of reaped sandboxes. */
#ifndef DISPATCHER_VERDICTS_H
#define DISPATCHER_VERDICTS_H

#include "dispatcher.h"
#include "store/queue_will.h"

struct verdicts;
struct verdicts *verdicts_new(struct dispatcher *d);
void verdicts_free(struct verdicts **v);

/* won: it is on record as given. From the loop; fn may be NULL. */
typedef void verdict_fn(void *arg, bool won, const struct err *err);

/* Settles the job's current attempt, which executor had (zero: nobody), and tells the callers. */
void verdict_result(struct verdicts *v, const struct entry *job, struct uuid executor, enum inv_state state,
                    enum err_code code, verdict_fn *fn, void *arg);
/* Allocates the attempt after the job's current one, which executor had. */
void verdict_retry(struct verdicts *v, const struct entry *job, struct uuid executor, const char *reason,
                   int reruns, int blames, wall_t not_before, verdict_fn *fn, void *arg);
/* Usage of an attempt whose executor died: of a sandbox that is still there, and as the executor left it.
 * Both change nothing when the attempt has its record. */
void verdict_usage(struct verdicts *v, const struct entry *job, struct uuid executor, const char *sandbox,
                   wall_t started, verdict_fn *fn, void *arg);
void verdict_usage_left(struct verdicts *v, struct uuid executor, const struct queue_usage *u, verdict_fn *fn,
                        void *arg);

#endif
