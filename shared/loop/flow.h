/* Flows: an asynchronous procedure as a table of named steps, each with a deadline, and one runner.
 * Reading the table is reading the feature.
 *
 *   static const struct flow_step steps[] = {
 *       {"acquire", acquire_enter, 75000, acquire_late},
 *       {"start",   start_enter,   10000, start_late},
 *       ...
 *   };
 *
 * A step's `enter` begins its work and returns; when the work's answer arrives, the owner calls flow_next
 * (the step below), flow_goto or flow_end. Steps are entered from the loop, never from inside flow_next, so
 * `enter` may run to its end at once without recursion. When the deadline passes first, `late` is called
 * (NULL: flow_end with ERR_TIMEOUT naming the step); the owner must then ignore the late answer: compare
 * flow_turn() with the value taken when the work began. */
#ifndef LOOP_FLOW_H
#define LOOP_FLOW_H

#include "base/culprit.h"
#include "base/err.h"
#include "loop/loop.h"

struct flow_step {
    const char *name;
    void (*enter)(void *self);
    int64_t deadline_ms; /* 0: none but the flow's own (give the reason beside it) */
    void (*late)(void *self);
};

/* Called once, from the loop, with the flow finished: NULL error after the last step or flow_end(NULL). The
 * flow may be freed here. */
typedef void flow_end_fn(void *self, const struct err *err);

struct flow {
    struct loop *loop;
    const struct flow_step *steps;
    int count;
    int at;        /* the current step's index; -1 before the first and after the end */
    int pending;   /* the step to enter next turn */
    uint64_t turn; /* grows with each step entered */
    void *self;
    flow_end_fn *end;
    struct loop_timer *timer;
    struct loop_task task;
    struct uuid culprit; /* for whom it was made: entered around every step */
    struct err err;
    bool ended;
};

/* Prepares a flow embedded in its owner. -1 without memory. */
int flow_init(struct flow *f, struct loop *loop, const struct flow_step *steps, int count, void *self,
              flow_end_fn *end, struct err *err);

/* Stops timers and pending steps; calls nothing. Fine on a zeroed or ended flow. */
void flow_deinit(struct flow *f);

/* Enters step 0 on the loop's next turn. */
void flow_start(struct flow *f);

/* Leaves the current step for the one below (ending the flow after the last) or for any other. */
void flow_next(struct flow *f);
void flow_goto(struct flow *f, int step);

/* Ends the flow; err NULL for success (copied otherwise). Later calls change nothing. */
void flow_end(struct flow *f, const struct err *err);

/* Gives the current step another deadline, ms from now; 0 takes it away. */
void flow_extend(struct flow *f, int64_t ms);

uint64_t flow_turn(const struct flow *f);

/* The current step's name, "-" outside. */
const char *flow_step_name(const struct flow *f);

#endif
