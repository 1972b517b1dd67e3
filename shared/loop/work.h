/* A small pool of threads for work that would hold up the loop: archives, hashing, blocking name look-ups. */
#ifndef LOOP_WORK_H
#define LOOP_WORK_H

#include "base/err.h"
#include "loop/loop.h"

struct work_pool;

/* `run` is called on a thread of the pool and must touch nothing but what arg owns; `done` is called on the
 * loop afterwards, exactly once for every accepted job, except those discarded by work_pool_free. */
typedef void work_run_fn(void *arg);
typedef void work_done_fn(void *arg);

/* threads >= 1; at most max_queued jobs wait. NULL without memory or threads. */
struct work_pool *work_pool_new(struct loop *loop, int threads, int max_queued);

/* Waits for the running jobs, discards the rest without calling `done`. NULL is fine. */
void work_pool_free(struct work_pool **pool);

/* Takes arg until `done`. ERR_OVERLOADED when the queue is full. */
int work_submit(struct work_pool *pool, work_run_fn *run, work_done_fn *done, void *arg, struct err *err);

#endif
