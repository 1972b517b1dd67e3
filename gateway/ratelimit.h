/* How many requests a tenant may send: a token bucket each, refilled evenly, told by the RateLimit fields
 * (draft-ietf-httpapi-ratelimit-headers). Each gateway has buckets of its own. Without a rate nothing is
 * limited and nothing told. */
#ifndef GATEWAY_RATELIMIT_H
#define GATEWAY_RATELIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

struct ratelimit;

/* per_second 0: no limit. burst: what a bucket holds; 0: ten seconds' worth. */
struct ratelimit *ratelimit_new(int64_t per_second, int64_t burst);
void ratelimit_free(struct ratelimit **r);

struct ratelimit_state {
    bool limited;      /* there is a limit at all */
    bool refused;      /* the bucket was empty */
    int64_t burst;     /* requests in a full bucket */
    int64_t window_s;  /* in which an empty one fills */
    int64_t remaining; /* requests left */
    int64_t reset_s;   /* until it is full */
};

/* Takes one request of the tenant's. */
struct ratelimit_state ratelimit_take(struct ratelimit *r, int32_t tenant, mono_t now);

#endif
