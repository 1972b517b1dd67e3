/* /v1/schedules: invocations that come again and again. */
#ifndef GATEWAY_SCHEDULES_H
#define GATEWAY_SCHEDULES_H

#include "call.h"

void schedule_create(struct call *c);
void schedules_list(struct call *c);
void schedule_show(struct call *c);
void schedule_remove(struct call *c);
void schedule_pause(struct call *c);
void schedule_resume(struct call *c);

#endif
