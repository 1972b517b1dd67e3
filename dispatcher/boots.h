/* Dead gateways: what they committed and did not hand to Redis is marked for the feeder (store/boots.c has
 * the order of proof). */
#ifndef DISPATCHER_BOOTS_H
#define DISPATCHER_BOOTS_H

#include "dispatcher.h"

struct boots;
struct boots *boots_new(struct dispatcher *d);
void boots_free(struct boots **b);

#endif
