/* PostgreSQL's clock for this process. What daemons write into rows (when an attempt may begin, when it
 * ended) and what they decide by the time (whether a queue limit has passed) meets now() there and other
 * daemons' times; one clock for all makes a host whose clock is off, or steps, harmless. Looked at each 10 s;
 * between the looks the wall clock goes by the monotonic one (base/clock.h).
 *
 * Gateways keep their own and refuse work when it is off: ids are made by it. */
#ifndef STORE_CLOCK_KEEP_H
#define STORE_CLOCK_KEEP_H

#include "loop/loop.h"
#include "postgres/pg.h"

struct clock_keep;

/* ready: the clock is set (once). NULL without memory. */
struct clock_keep *clock_keep_new(struct loop *loop, struct pg *pg, void (*ready)(void *arg), void *arg);
void clock_keep_free(struct clock_keep **k);

#endif
