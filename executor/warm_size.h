/* How many sandboxes a pool keeps ready. Pure. */
#ifndef EXECUTOR_WARM_SIZE_H
#define EXECUTOR_WARM_SIZE_H

#include <stddef.h>

#include "base/clock.h"
#include "base/id.h"

/* What is self's of the fleet's n. Executors that see the same register come to n together; who gets one
 * more differs from version to version. */
int warm_share(int n, const struct uuid *boots, size_t boots_n, struct uuid self, struct uuid version);

/* Arrivals a second, those of the last 10 s or so. */
struct warm_rate {
    double per_sec;
    mono_t at;
};
void warm_rate_arrival(struct warm_rate *r, mono_t now);
double warm_rate_now(const struct warm_rate *r, mono_t now);

/* As many as arrive while two are made one after the other, and one for the next; within min and max. */
int warm_wanted(double per_sec, double create_sec, int min, int max);

#endif
