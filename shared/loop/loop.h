/* The event loop: libev behind one door. One loop, one thread per process.
 *
 * Rules that keep callbacks safe:
 *  - every callback is called from loop_run, never from inside the call that asked for it;
 *  - a watcher may be stopped or freed inside its own callback;
 *  - long work ends with a fresh clock: timers are armed against the time of arming, not of the turn's start.
 */
#ifndef LOOP_LOOP_H
#define LOOP_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

struct loop;

/* A loop, or NULL without memory or descriptors. */
struct loop *loop_new(void);

/* Frees the loop and nulls the pointer; watchers must have been freed before. NULL is fine. */
void loop_free(struct loop **loop);

/* Runs until loop_stop. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* The monotonic time of the current turn (cached: cheap, at most one turn old). */
mono_t loop_now(const struct loop *loop);

/* ---- descriptors ---- */

enum { LOOP_READ = 1, LOOP_WRITE = 2 };

struct loop_io;
typedef void loop_io_fn(void *arg, int fd, int events);

/* Watches fd (borrowed: the owner closes it, after freeing the watcher) for events, LOOP_READ|LOOP_WRITE or
 * 0. */
struct loop_io *loop_io_new(struct loop *loop, int fd, int events, loop_io_fn *fn, void *arg);

/* Changes what is watched for; 0 pauses. Cheap when nothing changes. */
void loop_io_set(struct loop_io *io, int events);
void loop_io_free(struct loop_io **io);

/* ---- timers ---- */

struct loop_timer;
typedef void loop_timer_fn(void *arg);

/* A timer, not started. NULL without memory. */
struct loop_timer *loop_timer_new(struct loop *loop, loop_timer_fn *fn, void *arg);

/* Fires once, ms from now (>= 0); starting again moves it. */
void loop_timer_start(struct loop_timer *t, int64_t ms);

/* Fires every ms (>= 1), the first time ms from now. */
void loop_timer_every(struct loop_timer *t, int64_t ms);
void loop_timer_stop(struct loop_timer *t);
bool loop_timer_active(const struct loop_timer *t);
void loop_timer_free(struct loop_timer **t);

/* ---- deferred work: runs at the end of this turn, before the loop waits again ---- */

typedef void loop_task_fn(void *arg);

/* Embedded in its owner, zeroed before the first use; the owner cancels it before going away. */
struct loop_task {
    struct loop_task *next, **pprev; /* the loop's; pprev != NULL while posted */
    loop_task_fn *fn;
    void *arg;
};

/* Posts the task; posting a posted task does nothing. Tasks run in order; one that posts another (or itself)
 * lets the loop poll its descriptors in between. */
void loop_task_post(struct loop *loop, struct loop_task *task, loop_task_fn *fn, void *arg);
void loop_task_cancel(struct loop *loop, struct loop_task *task);

/* ---- signals ---- */

struct loop_signal;
typedef void loop_signal_fn(void *arg, int signum);

struct loop_signal *loop_signal_new(struct loop *loop, int signum, loop_signal_fn *fn, void *arg);
void loop_signal_free(struct loop_signal **s);

/* ---- waking the loop from another thread: the only call here that other threads may make is loop_wake_send
 * ---- */

struct loop_wake;

struct loop_wake *loop_wake_new(struct loop *loop, loop_task_fn *fn, void *arg);
void loop_wake_send(struct loop_wake *w);
void loop_wake_free(struct loop_wake **w);

#endif
