/* /healthz, /readyz, /metrics. */
#ifndef GATEWAY_HEALTH_H
#define GATEWAY_HEALTH_H

#include "call.h"

void health_live(struct call *c);
/* Ready: submissions are accepted, so PostgreSQL answers, its schema is ours and the clocks agree. Redis is
 * shown but not required: without it jobs are accepted and wait. */
void health_ready(struct call *c);
void health_metrics(struct call *c);

#endif
