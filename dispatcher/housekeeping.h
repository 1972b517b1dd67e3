/* Housekeeping in PostgreSQL, on every dispatcher, whatever Redis does: partitions for the coming days,
 * expired idempotency keys, chunks of uploads that came to nothing. */
#ifndef DISPATCHER_HOUSEKEEPING_H
#define DISPATCHER_HOUSEKEEPING_H

#include "dispatcher.h"

struct housekeeping;
struct housekeeping *housekeeping_new(struct dispatcher *d);
void housekeeping_free(struct housekeeping **h);

#endif
