/* How many sandboxes a pool keeps ready. */
#include "warm_size.h"

#include <math.h>
#include <string.h>

#define SPAN_SEC 10.0
#define QUIET_PER_SEC 0.02 /* nothing came for half a minute or more */

int warm_share(int n, const struct uuid *boots, size_t boots_n, struct uuid self, struct uuid version)
{
    size_t before = 0, count = 1; /* self, whether or not the register has it yet */
    for (size_t i = 0; i < boots_n; i++) {
        int order = memcmp(boots[i].b, self.b, sizeof self.b);
        before += order < 0;
        count += order != 0;
    }
    size_t turn = version.b[15] % count; /* whose is the first of what is left over */
    size_t place = (before + count - turn) % count;
    return n / (int)count + ((size_t)n % count > place ? 1 : 0);
}

double warm_rate_now(const struct warm_rate *r, mono_t now)
{
    if (r->at.us == 0)
        return 0;
    return r->per_sec * exp(-(double)(now.us - r->at.us) / 1e6 / SPAN_SEC);
}

void warm_rate_arrival(struct warm_rate *r, mono_t now)
{
    r->per_sec = warm_rate_now(r, now) + 1 / SPAN_SEC;
    r->at = now;
}

int warm_wanted(double per_sec, double create_sec, int min, int max)
{
    double n = per_sec < QUIET_PER_SEC ? 0 : ceil(per_sec * 2 * create_sec) + 1;
    if (n < min)
        return min;
    return n < max ? (int)n : max;
}
