/* Sums of usage: deltas are folded into a row a tenant, day, agent and key. In PostgreSQL alone, on every
 * dispatcher, whatever Redis does: a delta is folded once, however many try. */
#ifndef DISPATCHER_SUMS_H
#define DISPATCHER_SUMS_H

#include "dispatcher.h"

struct sums;
struct sums *sums_new(struct dispatcher *d);
void sums_free(struct sums **s);

#endif
