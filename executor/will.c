/* Usage that must not die with this process: a look at all jobs each 250 ms. */
#include "will.h"

#include <stdlib.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "store/queue_will.h"

enum {
    LOOK_MS = 250,
    HELD_MS = 700, /* a sandbox waits so long for its outcome's commit; a program may still run in it */
};

struct will {
    struct executor *x;
    struct loop_timer *look;
};

/* A copy on its way; its job may be over when the answer comes. */
struct copy {
    struct executor *x;
    struct uuid id;
    int16_t attempt;
};

static void on_copied(void *arg, const struct err *err)
{
    struct copy *c = arg;
    struct job *j = jobs_find(c->x->jobs, c->id);
    if (j != NULL && j->lease.attempt == c->attempt && j->will == WILL_ASKED) {
        FAILPOINT(executor_willed);
        j->will = err == NULL ? WILL_KNOWN : WILL_UNKNOWN;
        if (j->will == WILL_KNOWN)
            job_destroy_sandbox(j);
    }
    free(c);
}

static void copy_usage(struct will *w, struct job *j)
{
    const struct outcome *o = &j->outcome;
    struct queue_usage u = {.id = o->row.key,
                            .agent = o->agent,
                            .tenant = o->tenant,
                            .attempt = o->attempt,
                            .started_at = o->started_at,
                            .queue_ms = o->queue_ms,
                            .sandbox_start_ms = o->sandbox_start_ms,
                            .run_ms = o->run_ms,
                            .sandbox_ms = o->sandbox_ms,
                            .cpu_ms = o->cpu_ms,
                            .peak_memory_bytes = o->peak_memory_bytes};
    struct copy *c = malloc(sizeof *c);
    if (c == NULL || !str_copy(o->sandbox, u.sandbox, sizeof u.sandbox)) {
        free(c);
        return;
    }
    *c = (struct copy){.x = w->x, .id = o->row.key, .attempt = o->attempt};
    if (queue_will_put(w->x->queue, w->x->boot, &u, on_copied, c) != 0) {
        free(c);
        return;
    }
    j->will = WILL_ASKED;
}

/* PostgreSQL is slow or away. */
static void look(void *arg)
{
    struct will *w = arg;
    mono_t now = loop_now(w->x->loop);
    if (!redis_connected(w->x->redis))
        return;
    for (struct job *j = jobs_first(w->x->jobs); j != NULL; j = j->next) {
        if (j->phase != JOB_RECORDING || mono_ms_between(j->ended_at, now) < HELD_MS)
            continue;
        if (!j->outcome.has_usage)
            job_destroy_sandbox(j); /* the database refused its usage */
        else if (j->will == WILL_NONE || j->will == WILL_UNKNOWN)
            copy_usage(w, j);
    }
}

struct will *will_new(struct executor *x)
{
    struct will *w = calloc(1, sizeof *w);
    if (w == NULL)
        return NULL;
    w->x = x;
    w->look = loop_timer_new(x->loop, look, w);
    if (w->look == NULL)
        will_free(&w);
    else
        loop_timer_every(w->look, LOOK_MS);
    return w;
}

void will_free(struct will **w)
{
    if (w == NULL || *w == NULL)
        return;
    loop_timer_free(&(*w)->look);
    free(*w);
    *w = NULL;
}

/* One that is lost on its way does no harm: carrying it out a second time changes nothing. */
void will_settled(struct will *w, const struct job *j)
{
    if (j->will != WILL_NONE || j->noted)
        queue_will_drop(w->x->queue, w->x->boot, j->lease.id, j->lease.attempt);
}

static bool stands(const struct will *w, const struct queue_usage *u)
{
    const struct job *j = jobs_find(w->x->jobs, u->id);
    return j != NULL && j->lease.attempt == u->attempt && (j->will != WILL_NONE || j->noted);
}

/* A Redis that came back with an older memory knows of what has been settled since. */
static void on_read(void *arg, const struct queue_will *will, const struct err *err)
{
    struct will *w = arg;
    for (size_t i = 0; err == NULL && i < will->usage_n; i++)
        if (!stands(w, &will->usage[i]))
            queue_will_drop(w->x->queue, w->x->boot, will->usage[i].id, will->usage[i].attempt);
}

void will_forgotten(struct will *w)
{
    for (struct job *j = jobs_first(w->x->jobs); j != NULL; j = j->next)
        if (j->will != WILL_NONE)
            j->will = WILL_UNKNOWN;
    queue_will_read(w->x->queue, w->x->boot, on_read, w);
}
