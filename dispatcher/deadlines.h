/* Queue limits: a job that nobody started within the limit its caller gave ends as `expired`, whether or not
 * an executor lives to claim it. A pass each 500 ms over the limits that have passed since the last one, with
 * an overlap; only limits shorter than the default are looked at, the slow pass (audit.h) has the others. */
#ifndef DISPATCHER_DEADLINES_H
#define DISPATCHER_DEADLINES_H

#include "dispatcher.h"

struct deadlines;
struct deadlines *deadlines_new(struct dispatcher *d);
void deadlines_free(struct deadlines **l);

#endif
