/* Schedules. One statement fires one of them: it moves the schedule on and inserts the invocation, so that
 * neither happens without the other, and whoever comes second changes nothing. The job then waits in
 * PostgreSQL like any other; its tenant is marked for the feeder.
 *
 * What fell due while no dispatcher ran fires once, for all the instants that were missed. */
#include "schedules.h"

#include <stdlib.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "store/schedules.h"

enum { PASS_MS = 500, PAGE = 200 };

struct schedules {
    struct dispatcher *d;
    struct loop_timer *timer;
    size_t under_way; /* statements that have not answered: the next pass waits for them */
};

/* One that is being fired; freed with the answer. */
struct firing {
    struct schedules *s;
    int32_t tenant;
    struct uuid schedule, invocation;
    bool planned;
};

static void say_fired(const struct firing *f)
{
    char schedule[ID_TEXT_BYTES], invocation[ID_TEXT_BYTES];
    id_format("sch", f->schedule, schedule);
    id_format("inv", f->invocation, invocation);
    log_info("a schedule fired", LF_STR("schedule", schedule), LF_STR("invocation", invocation));
}

static void on_fired(void *arg, bool made, const struct err *err)
{
    struct firing *f = arg;
    struct schedules *s = f->s;
    FAILPOINT(dispatcher_schedule_fired);
    s->under_way--;
    if (err != NULL)
        log_warn("a schedule could not be moved on; trying again", LF_ERR(err));
    else if (made)
        say_fired(f);
    /* Of an unknown outcome it may be there; a mark too many finds nothing. */
    if (f->planned && (made || err != NULL)) {
        const struct queue_mark mark = {.tenant = f->tenant, .low = f->invocation};
        queue_mark(s->d->queue, &mark, 1, NULL, NULL);
    }
    free(f);
}

static void fire(struct schedules *s, const struct schedule_due *due)
{
    struct cron cron;
    struct cron_minute next;
    struct err err;
    struct firing *f = malloc(sizeof *f);
    if (f == NULL || cron_parse(due->cron, &cron, &err) != 0 || !cron_next(&cron, due->now, &next)) {
        free(f); /* of a row that no gateway wrote */
        return;
    }
    *f = (struct firing){.s = s,
                         .tenant = due->tenant,
                         .schedule = due->id,
                         .invocation = uuid_new(),
                         .planned = due->planned};
    FAILPOINT(dispatcher_schedule);
    s->under_way++;
    if (schedule_fire(s->d->pg, due, f->invocation, next, cron_every_hour(&cron), DB_MS, on_fired, f) == 0)
        return;
    s->under_way--;
    free(f);
}

static void on_due(void *arg, const struct schedule_due *list, size_t n, const struct err *err)
{
    struct schedules *s = arg;
    s->under_way--;
    if (err != NULL)
        log_warn("looking for due schedules failed", LF_ERR(err));
    for (size_t i = 0; err == NULL && i < n; i++)
        fire(s, &list[i]);
}

static void pass(void *arg)
{
    struct schedules *s = arg;
    if (s->under_way > 0)
        return;
    if (schedules_due(s->d->pg, PAGE, DB_MS, on_due, s) == 0)
        s->under_way++;
}

struct schedules *schedules_new(struct dispatcher *d)
{
    struct schedules *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->d = d;
    s->timer = loop_timer_new(d->loop, pass, s);
    if (s->timer == NULL)
        schedules_free(&s);
    else
        loop_timer_every(s->timer, PASS_MS);
    return s;
}

void schedules_free(struct schedules **s)
{
    if (s == NULL || *s == NULL)
        return;
    loop_timer_free(&(*s)->timer);
    free(*s);
    *s = NULL;
}
