/* Retries. */
#include "retries.h"

#include <stdlib.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "feeder.h"
#include "lead.h"
#include "store/sweep.h"

enum { PASS_MS = 200, PAGE = 500 };
#define OVERLAP_US (5 * 1000000LL)
#define FIRST_US (86400 * 1000000LL) /* a new leader looks a day back; the slow pass has what is older */

struct retries {
    struct dispatcher *d;
    struct loop_timer *timer;
    wall_t from; /* where the next pass starts */
    wall_t at;   /* the last row of the page before */
    struct uuid at_id;
    bool running;
};

static void page(struct retries *r);

static void pass_end(struct retries *r, bool whole)
{
    if (whole)
        r->from.us = wall_now().us - OVERLAP_US;
    r->running = false;
}

/* What was offered to the queue; freed with the answer. */
struct offer {
    struct retries *r;
    struct queue_mark jobs[PAGE];
};

/* Their window is full: the feeder comes for these once their tenant is marked. */
static void on_enqueued(void *arg, const int8_t *verdicts, size_t n, const struct err *err)
{
    struct offer *o = arg;
    size_t count = 0;
    FAILPOINT(dispatcher_retried);
    if (err != NULL)
        log_warn("queueing retries failed; the slow pass will", LF_ERR(err));
    for (size_t i = 0; err == NULL && i < n; i++)
        if (verdicts[i] == QUEUE_WAITS)
            o->jobs[count++] = o->jobs[i];
    if (count > 0)
        queue_mark(o->r->d->queue, o->jobs, count, NULL, NULL);
    free(o);
}

static void offer(struct retries *r, const struct entry *jobs, size_t n)
{
    struct offer *o = n > 0 ? calloc(1, sizeof *o) : NULL;
    if (o == NULL)
        return;
    o->r = r;
    for (size_t i = 0; i < n; i++)
        o->jobs[i] = (struct queue_mark){.tenant = jobs[i].tenant, .low = jobs[i].id};
    FAILPOINT(dispatcher_retry);
    if (queue_enqueue(r->d->queue, QUEUE_FED, (struct uuid){0}, jobs, n, on_enqueued, o, NULL) != 0)
        free(o);
}

static void on_due(void *arg, const struct sweep_row *rows, size_t n, const struct err *err)
{
    struct retries *r = arg;
    struct entry *jobs = err == NULL ? calloc(n + 1, sizeof *jobs) : NULL;
    size_t count = 0;
    if (jobs == NULL) {
        pass_end(r, false);
        return;
    }
    for (size_t i = 0; i < n; i++)
        if (!rows[i].ended && feed_row_ready(r->d, &rows[i].job, rows[i].canceling, rows[i].not_before))
            jobs[count++] = rows[i].job;
    offer(r, jobs, count);
    free(jobs);
    if (n < PAGE) {
        pass_end(r, true);
        return;
    }
    r->at = rows[n - 1].not_before;
    r->at_id = rows[n - 1].job.id;
    page(r);
}

static void page(struct retries *r)
{
    if (sweep_due(r->d->pg, r->at, r->at_id, PAGE, DB_MS, on_due, r) != 0)
        pass_end(r, false);
}

static void pass(void *arg)
{
    struct retries *r = arg;
    if (r->running || !leading(r->d->lead))
        return;
    r->running = true;
    r->at = r->from;
    r->at_id = (struct uuid){0};
    page(r);
}

struct retries *retries_new(struct dispatcher *d)
{
    struct retries *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    r->d = d;
    r->from.us = wall_now().us - FIRST_US;
    r->timer = loop_timer_new(d->loop, pass, r);
    if (r->timer == NULL)
        retries_free(&r);
    else
        loop_timer_every(r->timer, PASS_MS);
    return r;
}

void retries_free(struct retries **r)
{
    if (r == NULL || *r == NULL)
        return;
    loop_timer_free(&(*r)->timer);
    free(*r);
    *r = NULL;
}
