/* The runner of flows. One task enters steps and reports the end; one timer holds the current deadline. */
#include "loop/flow.h"

enum { PENDING_NONE = -1, PENDING_END = -2 };

static void run(void *arg);
static void deadline(void *arg);

int flow_init(struct flow *f, struct loop *loop, const struct flow_step *steps, int count, void *self,
              flow_end_fn *end, struct err *err)
{
    *f = (struct flow){.loop = loop,
                       .steps = steps,
                       .count = count,
                       .at = -1,
                       .pending = PENDING_NONE,
                       .self = self,
                       .culprit = culprit_now(),
                       .end = end};
    f->timer = loop_timer_new(loop, deadline, f);
    return f->timer != NULL ? 0 : err_set(err, ERR_NO_MEMORY, "no memory for a flow's timer");
}

void flow_deinit(struct flow *f)
{
    if (f->loop == NULL)
        return;
    loop_task_cancel(f->loop, &f->task);
    loop_timer_free(&f->timer);
    f->ended = true;
    f->at = -1;
}

void flow_start(struct flow *f)
{
    flow_goto(f, 0);
}

void flow_next(struct flow *f)
{
    if (f->at + 1 < f->count)
        flow_goto(f, f->at + 1);
    else
        flow_end(f, NULL);
}

void flow_goto(struct flow *f, int step)
{
    INVARIANT(step >= 0 && step < f->count);
    if (f->ended || f->pending == PENDING_END)
        return;
    loop_timer_stop(f->timer);
    f->turn++;
    f->pending = step;
    loop_task_post(f->loop, &f->task, run, f);
}

void flow_end(struct flow *f, const struct err *err)
{
    if (f->ended || f->pending == PENDING_END)
        return;
    loop_timer_stop(f->timer);
    f->turn++;
    if (err != NULL)
        f->err = *err;
    f->pending = PENDING_END;
    loop_task_post(f->loop, &f->task, run, f);
}

static void run(void *arg)
{
    struct flow *f = arg;
    CULPRIT(f->culprit);
    int step = f->pending;
    f->pending = PENDING_NONE;
    if (step == PENDING_END) {
        f->ended = true;
        f->at = -1;
        f->end(f->self, f->err.code != ERR_NONE ? &f->err : NULL);
        return; /* the flow may be gone */
    }
    f->at = step;
    if (f->steps[step].deadline_ms > 0)
        loop_timer_start(f->timer, f->steps[step].deadline_ms);
    f->steps[step].enter(f->self);
}

static void deadline(void *arg)
{
    struct flow *f = arg;
    if (f->ended || f->at < 0)
        return;
    CULPRIT(f->culprit);
    const struct flow_step *step = &f->steps[f->at];
    if (step->late != NULL) {
        step->late(f->self);
        return;
    }
    struct err err;
    err_set(&err, ERR_TIMEOUT, "step %s took longer than its deadline", step->name);
    flow_end(f, &err);
}

void flow_extend(struct flow *f, int64_t ms)
{
    if (ms > 0)
        loop_timer_start(f->timer, ms);
    else
        loop_timer_stop(f->timer);
}

uint64_t flow_turn(const struct flow *f)
{
    return f->turn;
}

const char *flow_step_name(const struct flow *f)
{
    return f->at >= 0 ? f->steps[f->at].name : "-";
}
