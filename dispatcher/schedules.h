/* Schedules that are due make their invocations. On every dispatcher, whatever Redis does: PostgreSQL sees to
 * it that an instant fires once. */
#ifndef DISPATCHER_SCHEDULES_H
#define DISPATCHER_SCHEDULES_H

#include "dispatcher.h"

struct schedules;
struct schedules *schedules_new(struct dispatcher *d);
void schedules_free(struct schedules **s);

#endif
