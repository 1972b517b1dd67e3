/* Reaping. */
#include "reaper.h"

#include <stdlib.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "lead.h"
#include "leftovers.h"
#include "reclaim.h"
#include "store/nonce.h"
#include "store/sweep.h"
#include "verdicts.h"

enum {
    PASS_MS = 20000,
    SOON_MS = 100,
    AGAIN_MS = 1000,
    LIST_MS = 30000,
    DESTROY_MS = 60000,
    REAP_MAX = 500,
    YOUNG_MS = 2000
};

struct reaper {
    struct dispatcher *d;
    struct loop_timer *timer;
    bool listing, again;
};

/* One orphan. Its usage is written first, its destruction asked for then: were this process to die in
 * between, the next pass finds it again. */
struct orphan {
    struct reaper *r;
    char id[SANDBOX_ID_BYTES];
    wall_t started;
    struct uuid executor;
    int attempt;
};

/* The sandbox stays, and is found again. */
static void leave_alone(struct orphan *o)
{
    struct reaper *r = o->r;
    free(o);
    if (r->listing)
        r->again = true;
    else
        loop_timer_start(r->timer, AGAIN_MS);
}

static void on_destroyed(void *arg, const struct sandbox_failure *failure)
{
    (void)arg;
    FAILPOINT(dispatcher_reaped);
    if (failure != NULL)
        log_warn("an orphaned sandbox could not be destroyed; the next pass or its TTL will",
                 LF_ERR(&failure->err));
}

static void destroy(struct orphan *o)
{
    FAILPOINT(dispatcher_reap_kill);
    log_info("reaping an orphaned sandbox", LF_STR("sandbox", o->id));
    sandbox_destroy(o->r->d->provider, o->id, DESTROY_MS, on_destroyed, o->r);
    free(o);
}

static void on_usage(void *arg, bool won, const struct err *err)
{
    (void)won;
    if (err != NULL)
        leave_alone(arg);
    else
        destroy(arg);
}

/* A build's sandbox has no invocation, and no usage. */
static void on_row(void *arg, const struct sweep_row *rows, size_t n, const struct err *err)
{
    struct orphan *o = arg;
    if (err != NULL) {
        leave_alone(o);
    } else if (n == 1 && o->attempt > 0) {
        struct entry job = rows[0].job;
        job.attempt = (int16_t)o->attempt;
        verdict_usage(o->r->d->verdicts, &job, o->executor, o->id, o->started, on_usage, o);
    } else {
        destroy(o);
    }
}

static void reap(struct reaper *r, const struct sandbox_listed *s)
{
    struct orphan *o = calloc(1, sizeof *o);
    if (o == NULL)
        return;
    struct uuid id = nonce_read(s->nonce, &o->attempt);
    o->r = r;
    o->started = s->started_at;
    o->executor = s->executor_boot;
    str_copy(str_of(s->id), o->id, sizeof o->id);
    FAILPOINT(dispatcher_reap);
    if (sweep_ids(r->d->pg, &id, 1, DB_MS, on_row, o) != 0)
        leave_alone(o);
}

/* Young ones may belong to an executor that has registered after the last look at the register. One that is
 * from the future tells of clocks that differ, and nothing of its age. */
static bool is_young(const struct sandbox_listed *s)
{
    int64_t age_ms = (wall_now().us - s->started_at.us) / 1000;
    return age_ms <= YOUNG_MS && age_ms >= -YOUNG_MS;
}

static void on_leftover(void *arg, const struct sandbox_listed *s)
{
    reap(arg, s);
}

static void on_list(void *arg, const struct sandbox_listed *items, size_t n,
                    const struct sandbox_failure *failure)
{
    struct reaper *r = arg;
    size_t reaped = 0;
    r->listing = false;
    if (failure != NULL)
        log_warn("listing sandboxes failed", LF_ERR(&failure->err));
    bool sure = reclaim_sure(r->d->reclaim), soon = failure != NULL || !sure || r->again;
    for (size_t i = 0; failure == NULL && sure && i < n && reaped < REAP_MAX; i++) {
        if (reclaim_alive(r->d->reclaim, items[i].executor_boot))
            continue;
        if (is_young(&items[i])) {
            soon = true;
            continue;
        }
        reap(r, &items[i]);
        reaped++;
    }
    if (failure == NULL && sure)
        leftovers_look(r->d, items, n, on_leftover, r);
    r->again = false;
    loop_timer_start(r->timer, soon || reaped == REAP_MAX ? AGAIN_MS : PASS_MS);
}

static void pass(void *arg)
{
    struct reaper *r = arg;
    if (r->listing)
        return;
    if (!reclaim_sure(r->d->reclaim)) {
        loop_timer_start(r->timer, AGAIN_MS);
        return;
    }
    r->listing =
        sandbox_list(r->d->provider, r->d->deployment, (struct uuid){0}, LIST_MS, on_list, r) != NULL;
    if (!r->listing)
        loop_timer_start(r->timer, PASS_MS);
}

void reaper_wake(struct reaper *r)
{
    if (r->listing)
        r->again = true;
    else
        loop_timer_start(r->timer, SOON_MS);
}

struct reaper *reaper_new(struct dispatcher *d)
{
    struct reaper *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    r->d = d;
    r->timer = loop_timer_new(d->loop, pass, r);
    if (r->timer == NULL)
        reaper_free(&r);
    else
        loop_timer_start(r->timer, AGAIN_MS);
    return r;
}

void reaper_free(struct reaper **r)
{
    if (r == NULL || *r == NULL)
        return;
    loop_timer_free(&(*r)->timer);
    free(*r);
    *r = NULL;
}
