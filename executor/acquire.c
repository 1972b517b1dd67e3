/* How an attempt comes to a sandbox without creating one, or to the right to create one. */
#include <stdlib.h>

#include "base/culprit.h"
#include "run.h"
#include "warm.h"

/* ---- one that was made ahead ---- */

static void on_noted(struct executor *x, struct uuid id, int16_t attempt, const struct err *err)
{
    struct job *j = run_current(x, id, STEP_WARM);
    if (j == NULL || j->lease.attempt != attempt)
        return;
    CULPRIT(id);
    if (err != NULL)
        late_warm(j);
    else
        flow_goto(&j->flow, STEP_FILES);
}

void enter_warm(void *self)
{
    struct job *j = self;
    if (!warm_take(j->x->warm, j, on_noted))
        flow_next(&j->flow);
}

/* Redis does not say that it knows: nobody could tell that the attempt held this one. */
void late_warm(void *self)
{
    struct job *j = self;
    job_disown(j);
    flow_goto(&j->flow, STEP_PERMIT);
}

bool warm_was_gone(struct job *j, const struct sandbox_failure *f)
{
    if (!j->warm || !f->sandbox_gone || j->phase != JOB_STARTING || j->fenced || j->canceled || j->leaving)
        return false;
    warm_doubt(j->x->warm);
    job_disown(j);
    flow_goto(&j->flow, STEP_PERMIT);
    return true;
}

/* ---- a permit: it was claimed for a warm one, and has none ---- */

struct ask {
    struct executor *x;
    struct uuid id;
    uint64_t turn;
};

static void on_permit(void *arg, int granted, int64_t wait_ms, const struct err *err)
{
    struct ask *a = arg;
    struct executor *x = a->x;
    struct job *j = run_current(x, a->id, STEP_PERMIT);
    bool stale = j == NULL || flow_turn(&j->flow) != a->turn;
    free(a);
    if (stale) {
        governor_return(x->governor, granted);
        return;
    }
    CULPRIT(j->lease.id);
    if (granted > 0) {
        j->holds_permit = true;
        flow_next(&j->flow);
        return;
    }
    if (err == NULL)
        warm_yield(x->warm);
    flow_extend(&j->flow, wait_ms > 0 ? wait_ms : 200);
}

void enter_permit(void *self)
{
    struct job *j = self;
    struct executor *x = j->x;
    if (j->holds_permit || governor_unlimited(x->governor)) {
        flow_next(&j->flow);
        return;
    }
    if (mono_ms_between(j->asked_at, loop_now(x->loop)) > x->settings->start_deadline_ms) {
        run_hand_back(j); /* jobs wait in the queue, not in a process */
        return;
    }
    struct ask *a = malloc(sizeof *a);
    INVARIANT(a != NULL); /* bounded by the jobs of this process */
    *a = (struct ask){.x = x, .id = j->lease.id, .turn = flow_turn(&j->flow)};
    if (governor_take(x->governor, 1, GOVERNOR_ANY, on_permit, a) == 0)
        return;
    free(a);
    flow_extend(&j->flow, 200);
}

/* The wait is over. */
void late_permit(void *self)
{
    struct job *j = self;
    flow_goto(&j->flow, STEP_PERMIT);
}
