/* The governor: one script, seven verbs. */
#include "store/governor.h"

#include <stdlib.h>

#include "store/queue_internal.h"

struct governor {
    struct redis *redis;
    struct uuid boot;
    struct governor_limits limits;
};

static struct redis_script script_permit = {.body = lua_permit};

struct governor *governor_new(struct redis *redis, struct uuid boot, const struct governor_limits *limits)
{
    struct governor *g = calloc(1, sizeof *g);
    if (g != NULL)
        *g = (struct governor){.redis = redis, .boot = boot, .limits = *limits};
    return g;
}

void governor_free(struct governor **g)
{
    if (g == NULL || *g == NULL)
        return;
    free(*g);
    *g = NULL;
}

bool governor_unlimited(const struct governor *g)
{
    return g->limits.creates_per_sec == 0 && g->limits.live == 0;
}

/* A burst of one second's worth: E2B's quota is per second. */
static int call(struct governor *g, const char *verb, struct uuid boot, int64_t n, enum governor_for what,
                redis_done_fn *reply, struct queue_call *c)
{
    static const char *const keys[] = {"sp:gov:bucket", "sp:gov:live", "sp:gov:pause", "sp:tw", "sp:q:build"};
    static const char *const names[] = {"", "build", "any"};
    struct queue via = {.redis = g->redis};
    struct args a;
    args_init(&a, 512);
    args_cstr(&a, verb);
    args_uuid_text(&a, boot);
    args_int(&a, n);
    args_int(&a, g->limits.creates_per_sec);
    args_int(&a, g->limits.creates_per_sec > 1 ? g->limits.creates_per_sec : 1);
    args_int(&a, g->limits.live);
    args_cstr(&a, names[what]);
    return queue_eval(&via, &script_permit, keys, 5, &a, reply, c, NULL);
}

static void reply_take(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct queue_call *c = arg;
    ((governor_fn *)c->fn)(c->arg, err == NULL ? (int)redis_int(redis_at(reply, 0)) : 0,
                           err == NULL ? redis_int(redis_at(reply, 1)) : 0, err);
    queue_call_free(c);
}

int governor_take(struct governor *g, int n, enum governor_for what, governor_fn *fn, void *arg)
{
    return call(g, "take", g->boot, n, what, reply_take, queue_call_new((void (*)(void))fn, arg, 0));
}

static void tell(struct governor *g, const char *verb, struct uuid boot, int64_t n)
{
    call(g, verb, boot, n, GOVERNOR_ANY, queue_reply_done, queue_call_new(NULL, NULL, 0));
}

void governor_give(struct governor *g, int n)
{
    if (!governor_unlimited(g) && n > 0)
        tell(g, "give", g->boot, n);
}

void governor_return(struct governor *g, int n)
{
    if (!governor_unlimited(g) && n > 0)
        tell(g, "return", g->boot, n);
}

void governor_set(struct governor *g, int n)
{
    if (!governor_unlimited(g))
        tell(g, "set", g->boot, n);
}

void governor_pause(struct governor *g, int64_t ms)
{
    tell(g, "pause", g->boot, ms);
}

void governor_drop(struct governor *g, struct uuid boot)
{
    tell(g, "drop", boot, 0);
}
