/* Lanes. */
#include "webhook_lane.h"

#include <stdlib.h>

#include "base/err.h"

enum { IDLE_MS = 60 * 1000, OPEN_IDLE_MS = 15 * 60 * 1000 };

struct lane *lane_get(struct lanes *ls, int64_t id, mono_t now)
{
    struct lane *l;
    HASH_FIND(hh, ls->all, &id, sizeof id, l);
    if (l == NULL && (l = calloc(1, sizeof *l)) != NULL) {
        l->id = id;
        l->limit = LANE_FIRST < ls->max_each ? LANE_FIRST : ls->max_each;
        l->pause_ms = ls->pause_ms;
        HASH_ADD(hh, ls->all, id, sizeof l->id, l);
    }
    if (l != NULL)
        l->used = now;
    return l;
}

static void drop(struct lanes *ls, struct lane *l)
{
    HASH_DELETE(hh, ls->all, l);
    free(l);
}

void lanes_free(struct lanes *ls)
{
    struct lane *l, *next;
    HASH_ITER(hh, ls->all, l, next)
    {
        drop(ls, l);
    }
}

bool lane_forget(struct lanes *ls, struct lane *l, mono_t now)
{
    int64_t idle = mono_ms_between(l->used, now);
    if (l->running > 0 || l->dirty || l->waiting != NULL || l->has_parked || l->taking ||
        idle < (l->state == LANE_CLOSED ? IDLE_MS : OPEN_IDLE_MS))
        return false;
    drop(ls, l);
    return true;
}

static bool has_place(const struct lanes *ls, const struct lane *l)
{
    return ls->running < ls->max && (l->proven || ls->unproven < (ls->max + 1) / 2);
}

bool lane_may_start(const struct lanes *ls, const struct lane *l)
{
    switch (l->state) {
    case LANE_CLOSED:
        return l->running < l->limit && has_place(ls, l);
    case LANE_HALF_OPEN:
        return l->running == 0 && has_place(ls, l);
    case LANE_OPEN:
        return false;
    }
    return false;
}

bool lane_is_full(const struct lanes *ls, const struct lane *l)
{
    if (l->state != LANE_CLOSED)
        return true; /* its rows are taken one by one */
    return l->waiting_n >= 4 * l->limit || (!l->proven && l->waiting_n > 0 && !has_place(ls, l));
}

static void set_proven(struct lanes *ls, struct lane *l, bool proven)
{
    if (l->proven != proven)
        ls->unproven += proven ? -l->running : l->running;
    l->proven = proven;
}

void lane_started(struct lanes *ls, struct lane *l, mono_t now)
{
    l->running++;
    ls->running++;
    ls->unproven += l->proven ? 0 : 1;
    l->used = now;
}

static void open_for(struct lane *l, int64_t ms, int jitter, mono_t now)
{
    l->state = LANE_OPEN;
    l->until = mono_add_ms(now, ms + ms * jitter / 400); /* up to a quarter more */
}

/* A throttling receiver says itself for how long: that is no reason to distrust it. */
static bool fail(struct lane *l, int64_t asked_ms, int jitter, mono_t now)
{
    bool was_probe = l->state == LANE_HALF_OPEN;
    l->failures++;
    l->limit = l->limit > 1 ? l->limit / 2 : 1;
    if (asked_ms > 0) {
        open_for(l, asked_ms < LANE_ASKED_MAX_MS ? asked_ms : LANE_ASKED_MAX_MS, jitter, now);
        return false;
    }
    if (l->state == LANE_OPEN || (!was_probe && l->failures < LANE_FAILURES))
        return false;
    open_for(l, l->pause_ms, jitter, now);
    l->pause_ms = l->pause_ms * 2 < LANE_PAUSE_MAX_MS ? l->pause_ms * 2 : LANE_PAUSE_MAX_MS;
    return true;
}

bool lane_ended(struct lanes *ls, struct lane *l, bool success, int64_t asked_ms, int jitter, mono_t now)
{
    INVARIANT(l->running > 0);
    l->running--;
    ls->running--;
    ls->unproven -= l->proven ? 0 : 1;
    l->used = now;
    set_proven(ls, l, success);
    if (!success)
        return fail(l, asked_ms, jitter, now);
    l->failures = 0;
    l->pause_ms = ls->pause_ms;
    l->limit += l->limit < ls->max_each ? 1 : 0;
    if (l->state == LANE_HALF_OPEN)
        l->state = LANE_CLOSED; /* while it is open, only the probe counts */
    return false;
}

bool lane_wake(struct lane *l, mono_t now)
{
    if (l->state != LANE_OPEN || mono_before(now, l->until))
        return false;
    l->state = LANE_HALF_OPEN;
    return true;
}
