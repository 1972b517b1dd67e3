/* Token buckets. A full bucket says no more than a missing one: those are dropped when there are many. */
#include "ratelimit.h"

#include <stdlib.h>
#include <uthash.h>

enum { BUCKETS_MAX = 10000, BURST_SECONDS = 10 };

struct bucket {
    int32_t tenant;
    double tokens;
    mono_t at;
    UT_hash_handle hh;
};

struct ratelimit {
    double rate, burst;
    struct bucket *buckets;
};

struct ratelimit *ratelimit_new(int64_t per_second, int64_t burst)
{
    struct ratelimit *r = calloc(1, sizeof *r);
    if (r != NULL)
        *r = (struct ratelimit){.rate = (double)per_second,
                                .burst = (double)(burst > 0 ? burst : per_second * BURST_SECONDS)};
    return r;
}

static void forget(struct ratelimit *r, struct bucket *b)
{
    HASH_DEL(r->buckets, b);
    free(b);
}

void ratelimit_free(struct ratelimit **pr)
{
    if (pr == NULL || *pr == NULL)
        return;
    while ((*pr)->buckets != NULL)
        forget(*pr, (*pr)->buckets);
    free(*pr);
    *pr = NULL;
}

static void refill(const struct ratelimit *r, struct bucket *b, mono_t now)
{
    b->tokens += (double)(now.us - b->at.us) / 1e6 * r->rate;
    b->tokens = b->tokens < r->burst ? b->tokens : r->burst;
    b->at = now;
}

static void drop_full(struct ratelimit *r, mono_t now)
{
    struct bucket *b, *next;
    HASH_ITER(hh, r->buckets, b, next)
    {
        refill(r, b, now);
        if (b->tokens >= r->burst)
            forget(r, b);
    }
}

static struct bucket *find_or_add(struct ratelimit *r, int32_t tenant, mono_t now)
{
    struct bucket *b;
    HASH_FIND_INT(r->buckets, &tenant, b);
    if (b != NULL)
        return b;
    if (HASH_COUNT(r->buckets) >= BUCKETS_MAX)
        drop_full(r, now);
    b = calloc(1, sizeof *b);
    if (b == NULL)
        return NULL;
    *b = (struct bucket){.tenant = tenant, .tokens = r->burst, .at = now};
    HASH_ADD_INT(r->buckets, tenant, b);
    return b;
}

static int64_t whole_up(double v)
{
    return (int64_t)v + ((double)(int64_t)v < v);
}

struct ratelimit_state ratelimit_take(struct ratelimit *r, int32_t tenant, mono_t now)
{
    struct bucket *b = r->rate > 0 ? find_or_add(r, tenant, now) : NULL;
    if (b == NULL)
        return (struct ratelimit_state){0};
    refill(r, b, now);
    bool refused = b->tokens < 1;
    b->tokens -= refused ? 0 : 1;
    return (struct ratelimit_state){.limited = true,
                                    .refused = refused,
                                    .burst = (int64_t)r->burst,
                                    .window_s = whole_up(r->burst / r->rate),
                                    .remaining = (int64_t)b->tokens,
                                    .reset_s = whole_up((r->burst - b->tokens) / r->rate)};
}
