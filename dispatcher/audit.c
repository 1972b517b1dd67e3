/* The slow pass. One step a tick:
 *
 *   ROWS (pages of invocations) -> LIVE (pages of sp:live) -> BUILDS -> ROWS from the low-water mark …
 */
#include "audit.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "batches.h"
#include "feeder.h"
#include "lead.h"
#include "store/sweep.h"

enum {
    TICK_MS = 100,
    ROUND_MS = 3000,
    PAGE = 500,
    LIVE_MAX = 2000,
    AGE_MS = 10000,
    BUILD_AGE_MS = 3000,
    BUILDS = 100,
    LATE_MS =
        120 *
        1000, /* an id's commit follows it within this: deadlines and statement timeouts add up to less */
};

enum audit_step { AUDIT_LOAD, AUDIT_ROWS, AUDIT_LIVE, AUDIT_BUILDS };

struct audit {
    struct dispatcher *d;
    struct loop_timer *timer;
    enum audit_step step;
    struct uuid low, cursor, oldest_open;
    bool have_open;
    char live_cursor[24];

    /* the page in hand */
    struct entry jobs[PAGE];
    bool canceling[PAGE], batched[PAGE], unfed[PAGE];
    wall_t not_before[PAGE];
    size_t n;
    struct uuid page_end;
    struct uuid live_ids[LIVE_MAX];
    struct queue_live live[LIVE_MAX];
    size_t live_n;
};

static void tick(void *arg);

static void next(struct audit *a, enum audit_step step, int64_t ms)
{
    a->step = step;
    loop_timer_start(a->timer, ms);
}

struct uuid audit_low(const struct audit *a)
{
    return a->low;
}

/* ---- rows ---- */

static struct uuid upto(void)
{
    return uuid_floor((wall_t){.us = wall_now().us - AGE_MS * 1000LL});
}

static void rows_end(struct audit *a)
{
    /* Never beyond what may still be committed behind the cursor: nothing would look there again. */
    struct uuid late = uuid_floor((wall_t){.us = wall_now().us - LATE_MS * 1000LL});
    a->low = a->have_open ? a->oldest_open : a->cursor;
    if (uuid_cmp(late, a->low) < 0)
        a->low = late;
    if (!uuid_is_zero(a->low))
        mark_set(a->d->pg, STR("open"), a->low, DB_MS);
    str_copy(STR("0"), a->live_cursor, sizeof a->live_cursor);
    next(a, AUDIT_LIVE, TICK_MS);
}

static void page_end(struct audit *a, bool last)
{
    a->cursor = a->page_end;
    if (last)
        rows_end(a);
    else
        next(a, AUDIT_ROWS, TICK_MS);
}

/* A job that Redis does not know, and that the feeder will not come by: its tenant is marked from here. */
static void missing(struct audit *a, size_t i, struct queue_mark *marks, size_t *n)
{
    const struct entry *job = &a->jobs[i];
    if (!feed_row_ready(a->d, job, a->canceling[i], a->not_before[i]))
        return;
    if (a->unfed[i])
        return; /* Redis is not to know it yet */
    if (a->batched[i]) {
        batches_missing(a->d->batches, job->id);
        return;
    }
    if (feeder_covers(a->d->feeder, job->tenant, job->priority, job->id))
        return;
    for (size_t k = 0; k < *n; k++)
        if (marks[k].tenant == job->tenant)
            return; /* rows come in order of ids */
    marks[(*n)++] = (struct queue_mark){.tenant = job->tenant, .low = job->id};
}

static void on_states(void *arg, const struct queue_live *items, size_t n, const struct err *err)
{
    struct audit *a = arg;
    struct queue_mark marks[PAGE];
    size_t count = 0;
    if (err != NULL || !leading(a->d->lead)) {
        next(a, AUDIT_ROWS, ROUND_MS); /* this page again */
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (items[i].state == INV_NONE)
            missing(a, i, marks, &count);
        else if (a->canceling[i] || (items[i].state == INV_QUEUED && feed_row_expired(&a->jobs[i])))
            feed_row_ready(a->d, &a->jobs[i], a->canceling[i],
                           a->not_before[i]); /* settled, or its owner told */
    }
    if (count > 0) {
        log_warn("open jobs were missing from Redis: feeding them again", LF_INT("tenants", count));
        queue_mark(a->d->queue, marks, count, NULL, NULL);
    }
    page_end(a, false);
}

static void on_rows(void *arg, const struct sweep_row *rows, size_t n, const struct err *err)
{
    struct audit *a = arg;
    struct uuid ids[PAGE];
    if (err != NULL) {
        log_warn("looking through open jobs failed; trying again", LF_ERR(err));
        next(a, AUDIT_ROWS, ROUND_MS);
        return;
    }
    a->n = 0;
    for (size_t i = 0; i < n; i++) {
        if (rows[i].ended)
            continue;
        if (!a->have_open)
            a->oldest_open = rows[i].job.id;
        a->have_open = true;
        a->jobs[a->n] = rows[i].job;
        a->jobs[a->n].prompt_inline = false; /* the view dies here; nothing is enqueued from this copy */
        a->canceling[a->n] = rows[i].canceling;
        a->batched[a->n] = rows[i].batched;
        a->unfed[a->n] = rows[i].unfed;
        a->not_before[a->n] = rows[i].not_before;
        ids[a->n++] = rows[i].job.id;
    }
    a->page_end = n > 0 ? rows[n - 1].job.id : a->cursor;
    if (n == 0)
        page_end(a, true);
    else if (a->n == 0)
        page_end(a, false);
    else if (queue_states(a->d->queue, ids, a->n, on_states, a, NULL) != 0)
        next(a, AUDIT_ROWS, ROUND_MS);
}

static struct uuid just_below(struct uuid id)
{
    for (int i = (int)sizeof id.b - 1; i >= 0; i--)
        if (id.b[i]-- != 0)
            break;
    return id;
}

static void step_rows(struct audit *a)
{
    if (sweep_all(a->d->pg, a->cursor, upto(), PAGE, DB_MS, on_rows, a) != 0)
        next(a, AUDIT_ROWS, ROUND_MS);
}

/* ---- live records of jobs that have ended ---- */

static void on_live_rows(void *arg, const struct sweep_row *rows, size_t n, const struct err *err)
{
    struct audit *a = arg;
    for (size_t i = 0; err == NULL && i < n; i++)
        for (size_t k = 0; rows[i].ended && k < a->live_n; k++)
            if (uuid_eq(a->live_ids[k], rows[i].job.id) && a->live[k].state == INV_QUEUED)
                queue_forget(a->d->queue, &a->live[k], 1);
    bool end = err != NULL || strcmp(a->live_cursor, "0") == 0;
    next(a, end ? AUDIT_BUILDS : AUDIT_LIVE, TICK_MS);
}

/* Only queued ones: what an executor holds it releases itself. */
static void on_live(void *arg, struct str cursor, const struct uuid *ids, const struct queue_live *items,
                    size_t n, const struct err *err)
{
    struct audit *a = arg;
    struct uuid old = upto();
    a->live_n = 0;
    for (size_t i = 0; i < n && a->live_n < LIVE_MAX; i++)
        if (items[i].state == INV_QUEUED && uuid_cmp(ids[i], old) < 0) {
            a->live_ids[a->live_n] = ids[i];
            a->live[a->live_n++] = items[i];
        }
    bool ok = err == NULL && str_copy(cursor, a->live_cursor, sizeof a->live_cursor);
    if (!ok)
        next(a, AUDIT_BUILDS, TICK_MS);
    else if (a->live_n == 0)
        on_live_rows(a, NULL, 0, NULL);
    else if (sweep_ids(a->d->pg, a->live_ids, a->live_n, DB_MS, on_live_rows, a) != 0)
        next(a, AUDIT_BUILDS, TICK_MS);
}

static void step_live(struct audit *a)
{
    if (queue_scan(a->d->queue, str_of(a->live_cursor), on_live, a) != 0)
        next(a, AUDIT_BUILDS, TICK_MS);
}

/* ---- builds: enqueueing one that Redis knows does nothing ---- */

static void builds_end(struct audit *a)
{
    a->cursor = uuid_is_zero(a->low) ? a->low : just_below(a->low);
    a->have_open = false;
    next(a, AUDIT_ROWS, ROUND_MS);
}

static void on_builds(void *arg, const struct entry *builds, size_t n, const struct err *err)
{
    struct audit *a = arg;
    struct entry old[BUILDS];
    size_t count = 0;
    for (size_t i = 0; err == NULL && i < n; i++)
        if (wall_now().us - builds[i].ready.us > BUILD_AGE_MS * 1000LL)
            old[count++] = builds[i];
    if (count > 0)
        queue_enqueue(a->d->queue, QUEUE_FED, (struct uuid){0}, old, count, NULL, NULL, NULL);
    builds_end(a);
}

static void step_builds(struct audit *a)
{
    if (sweep_builds(a->d->pg, BUILDS, DB_MS, on_builds, a) != 0)
        builds_end(a);
}

/* ---- the rounds ---- */

static void on_mark(void *arg, struct uuid id, const struct err *err)
{
    struct audit *a = arg;
    if (err != NULL) {
        next(a, AUDIT_LOAD, ROUND_MS);
        return;
    }
    a->low = id;
    builds_end(a);
}

static void tick(void *arg)
{
    struct audit *a = arg;
    if (a->step != AUDIT_LOAD && !leading(a->d->lead)) {
        next(a, a->step, TICK_MS * 5);
        return;
    }
    switch (a->step) {
    case AUDIT_LOAD:
        if (mark_get(a->d->pg, STR("open"), DB_MS, on_mark, a) != 0)
            next(a, AUDIT_LOAD, ROUND_MS);
        break;
    case AUDIT_ROWS:
        step_rows(a);
        break;
    case AUDIT_LIVE:
        step_live(a);
        break;
    case AUDIT_BUILDS:
        step_builds(a);
        break;
    }
}

struct audit *audit_new(struct dispatcher *d)
{
    struct audit *a = calloc(1, sizeof *a);
    if (a == NULL)
        return NULL;
    a->d = d;
    a->timer = loop_timer_new(d->loop, tick, a);
    if (a->timer == NULL)
        audit_free(&a);
    else
        next(a, AUDIT_LOAD, 0);
    return a;
}

void audit_free(struct audit **a)
{
    if (a == NULL || *a == NULL)
        return;
    loop_timer_free(&(*a)->timer);
    free(*a);
    *a = NULL;
}
