/* The slow pass: open invocations compared with Redis, rate-limited, for partial losses (DESIGN section 4,
 * "Redis lost something"). From the oldest open id to ten seconds ago, a page at a time; then live records of
 * jobs that have ended; then builds that nobody works on. Its low-water mark is kept in PostgreSQL. */
#ifndef DISPATCHER_AUDIT_H
#define DISPATCHER_AUDIT_H

#include "dispatcher.h"

struct audit;
struct audit *audit_new(struct dispatcher *d);
void audit_free(struct audit **a);

/* No open invocation has a smaller id. */
struct uuid audit_low(const struct audit *a);

#endif
