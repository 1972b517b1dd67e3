/* Draining. */
#include "drain.h"

#include <stdlib.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "intake.h"
#include "job.h"
#include "lease.h"
#include "recorder.h"
#include "warm.h"

enum {
    LOOK_MS = 20,
    HAND_BACK_MS = 15000, /* for outcomes to be committed, leases released, sandboxes destroyed */
    LEAVE_MS = 2000,
};

enum drain_state { DRAIN_OFF, DRAIN_FINISHING, DRAIN_HANDING_BACK, DRAIN_LEAVING, DRAIN_LEFT };

struct drain {
    struct executor *x;
    enum drain_state state;
    struct loop_timer *look;
    mono_t until; /* of this state */
    void (*left)(void *arg);
    void *arg;
};

static int jobs_left(const struct drain *d)
{
    return jobs_count(d->x->jobs, ENTRY_INVOCATION) + jobs_count(d->x->jobs, ENTRY_BUILD);
}

static bool nothing_claimed(const struct drain *d)
{
    return jobs_left(d) == 0 && intake_idle(d->x->intake) && intake_idle(d->x->build_intake);
}

static bool nothing_under_way(const struct drain *d)
{
    return nothing_claimed(d) && recorder_idle(d->x->recorder) && warm_quiet(d->x->warm) &&
           jobs_destroying(d->x->jobs) == 0;
}

static void enter(struct drain *d, enum drain_state state, int64_t ms)
{
    d->state = state;
    d->until = mono_add_ms(loop_now(d->x->loop), ms);
    loop_timer_start(d->look, 0);
}

static void leave(struct drain *d)
{
    if (d->state == DRAIN_LEFT)
        return;
    d->state = DRAIN_LEFT;
    loop_timer_stop(d->look);
    log_info("stopped");
    d->left(d->arg);
}

static void on_forgotten(void *arg, const struct err *err)
{
    (void)err; /* the dispatchers will find out by themselves */
    leave(arg);
}

static void hand_back(struct drain *d)
{
    if (jobs_left(d) > 0)
        log_info("handing running jobs back to the queue", LF_INT("jobs", jobs_left(d)));
    enter(d, DRAIN_HANDING_BACK, HAND_BACK_MS);
}

static void strike_off(struct drain *d)
{
    FAILPOINT(executor_leave);
    enter(d, DRAIN_LEAVING, LEAVE_MS);
    lease_keeper_stop(d->x->leases);
    governor_drop(d->x->governor, d->x->boot);
    if (queue_executor_leave(d->x->queue, d->x->boot, on_forgotten, d) != 0)
        leave(d);
}

static void give_up(struct drain *d)
{
    log_warn("stopping with work under way: the dispatchers take it over", LF_INT("jobs", jobs_left(d)),
             LF_INT("sandboxes", jobs_destroying(d->x->jobs)));
    leave(d);
}

static void look(void *arg)
{
    struct drain *d = arg;
    bool late = !mono_before(loop_now(d->x->loop), d->until);
    loop_timer_start(d->look, LOOK_MS);
    switch (d->state) {
    case DRAIN_FINISHING:
        if (late || nothing_claimed(d))
            hand_back(d);
        break;
    case DRAIN_HANDING_BACK:
        jobs_hand_back(d->x->jobs); /* and what was being claimed meanwhile */
        if (nothing_under_way(d))
            strike_off(d);
        else if (late)
            give_up(d);
        break;
    case DRAIN_LEAVING:
        if (late)
            leave(d);
        break;
    case DRAIN_OFF:
    case DRAIN_LEFT:
        loop_timer_stop(d->look);
        break;
    }
}

struct drain *drain_new(struct executor *x, void (*left)(void *arg), void *arg)
{
    struct drain *d = calloc(1, sizeof *d);
    if (d == NULL)
        return NULL;
    *d = (struct drain){.x = x, .left = left, .arg = arg};
    d->look = loop_timer_new(x->loop, look, d);
    if (d->look == NULL)
        drain_free(&d);
    return d;
}

void drain_free(struct drain **d)
{
    if (d == NULL || *d == NULL)
        return;
    loop_timer_free(&(*d)->look);
    free(*d);
    *d = NULL;
}

void drain_begin(struct drain *d)
{
    switch (d->state) {
    case DRAIN_OFF:
        intake_stop(d->x->intake);
        intake_stop(d->x->build_intake);
        warm_stop(d->x->warm);
        enter(d, DRAIN_FINISHING, d->x->settings->drain_ms);
        break;
    case DRAIN_FINISHING:
        hand_back(d);
        break;
    case DRAIN_HANDING_BACK:
    case DRAIN_LEAVING:
    case DRAIN_LEFT:
        leave(d);
        break;
    }
}
