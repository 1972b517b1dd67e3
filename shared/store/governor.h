/* The provider's governor: one per provider key, in Redis, shared by the fleet (DESIGN section 6).
 *
 * Meters creates a second (token bucket) and live sandboxes (semaphore). Permits come before entries: a job
 * is claimed only when its sandbox may be created. Unlimited unless configured; then nothing is asked of
 * Redis. */
#ifndef STORE_GOVERNOR_H
#define STORE_GOVERNOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/id.h"
#include "redis/redis.h"

struct governor;

struct governor_limits {
    int64_t creates_per_sec; /* 0: unlimited */
    int64_t live;            /* 0: unlimited */
};

/* redis is borrowed. */
struct governor *governor_new(struct redis *redis, struct uuid boot, const struct governor_limits *limits);
void governor_free(struct governor **g);
bool governor_unlimited(const struct governor *g);

/* Of jobs' and of builds' permits none is granted while no entry of the kind waits on a stream, so that idle
 * executors hold none. */
enum governor_for { GOVERNOR_JOBS, GOVERNOR_BUILDS, GOVERNOR_ANY };

/* granted of n; wait_ms until asking again makes sense. On err nothing is
 * granted. From the loop. */
typedef void governor_fn(void *arg, int granted, int64_t wait_ms, const struct err *err);
int governor_take(struct governor *g, int n, enum governor_for what, governor_fn *fn, void *arg);
/* Sandboxes of ours that are gone. */
void governor_give(struct governor *g, int n);
/* Permits that led to no create. */
void governor_return(struct governor *g, int n);
/* Tells how many we hold, after Redis lost something. */
void governor_set(struct governor *g, int n);
/* The provider answered 429: nobody creates for ms. */
void governor_pause(struct governor *g, int64_t ms);
/* A dead executor's sandboxes are gone. */
void governor_drop(struct governor *g, struct uuid boot);

#endif
