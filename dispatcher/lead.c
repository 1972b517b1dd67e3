/* The lead. */
#include "lead.h"

#include <stdlib.h>

#include "base/log.h"

enum { RENEW_MS = 1000, TTL_MS = 3000, LEAVE_MS = 1000 };

struct lead {
    struct dispatcher *d;
    struct loop_timer *timer;
    bool held, asking, whole;
    void (*left)(void *arg); /* once it was told to leave */
    void *left_arg;
    mono_t until; /* the lead is ours for sure until then */
    mono_t calm;  /* since when Redis has answered without a loss */
};

static void on_lead(void *arg, bool held, const struct err *err)
{
    struct lead *l = arg;
    l->asking = false;
    if (err != NULL || l->left != NULL)
        return; /* it runs out by itself */
    if (held != l->held)
        log_info(held ? "leading" : "another dispatcher leads");
    l->held = held;
    if (held)
        l->until = mono_add_ms(loop_now(l->d->loop), TTL_MS - RENEW_MS);
}

static void on_given_up(void *arg, bool is_held, const struct err *err)
{
    struct lead *l = arg;
    void (*left)(void *arg) = l->left;
    (void)is_held, (void)err;
    l->left = NULL;
    loop_timer_stop(l->timer);
    if (left != NULL)
        left(l->left_arg);
}

static void renew(void *arg)
{
    struct lead *l = arg;
    if (l->left != NULL)
        on_given_up(l, false, NULL); /* no answer */
    else if (!l->asking && redis_connected(l->d->redis))
        l->asking = queue_lead(l->d->queue, l->d->boot, TTL_MS, on_lead, l) == 0;
}

void lead_leave(struct lead *l, void (*left)(void *arg), void *arg)
{
    bool was_held = l->held;
    l->held = false;
    l->left = left;
    l->left_arg = arg;
    loop_timer_start(l->timer, was_held ? LEAVE_MS : 0);
    if (was_held)
        queue_lead(l->d->queue, l->d->boot, 0, on_given_up, l);
}

struct lead *lead_new(struct dispatcher *d)
{
    struct lead *l = calloc(1, sizeof *l);
    if (l == NULL)
        return NULL;
    l->d = d;
    l->calm = loop_now(d->loop);
    l->timer = loop_timer_new(d->loop, renew, l);
    if (l->timer == NULL)
        lead_free(&l);
    else
        loop_timer_every(l->timer, RENEW_MS);
    return l;
}

void lead_free(struct lead **l)
{
    if (l == NULL || *l == NULL)
        return;
    loop_timer_free(&(*l)->timer);
    free(*l);
    *l = NULL;
}

static bool held(const struct lead *l)
{
    return l->held && redis_connected(l->d->redis) && mono_before(loop_now(l->d->loop), l->until);
}

bool leading(const struct lead *l)
{
    return l->whole && held(l);
}

bool leading_calmly(const struct lead *l, int64_t ms)
{
    return leading(l) && mono_ms_between(l->calm, loop_now(l->d->loop)) >= ms;
}

void lead_redis_state(struct lead *l, bool connected)
{
    lead_disturbed(l);
    l->asking = false;
    if (connected)
        renew(l);
}

void lead_disturbed(struct lead *l)
{
    l->calm = loop_now(l->d->loop);
}

void lead_set_whole(struct lead *l, bool whole)
{
    l->whole = whole;
}
