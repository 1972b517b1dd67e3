/* Feeding. One round at a time:
 *
 *   TAKE (marks and windows) -> SHARE (drr) -> VISIT each granted tenant (read rows, enqueue) -> CLEAR ->
 * rest
 */
#include "feeder.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "batches.h"
#include "lead.h"
#include "model/drr.h"
#include "store/sweep.h"
#include "verdicts.h"

enum {
    BUSY_MS = 10,
    IDLE_MS = 100,
    QUANTUM = 64,
    BUDGET = 2000,
    PAGE_MAX = 500,
    TAIL_MS = 3000,
    LAG_MS = 15000
};

/* What is gone through of a tenant, in this order: of each priority first the rows of no batch, behind a
 * cursor; then what is fed of batches, as batches.h names it. */
enum { LANES = 2 * INV_PRIORITIES };

struct fed {
    int32_t tenant;
    struct uuid cursor[INV_PRIORITIES]; /* everything up to here was looked at */
    int lane;                           /* being scanned */
    bool tail;                          /* the second look at the newest rows */
    bool seen;                          /* has a mark in this round */
    bool drained;
    int64_t generation; /* of the mark when the scan in progress began */
    int64_t round_generation;
    int32_t room, deficit, grant;
    int32_t in_window; /* its entries on the streams that nobody has claimed */
    bool held_back;    /* items of batches wait for room in their half of the window */
    UT_hash_handle hh;
};

struct feeder {
    struct dispatcher *d;
    struct loop_timer *timer;
    struct fed *tenants;
    struct fed *visiting;
    bool running;
    size_t turn;
    int32_t limit;         /* rows asked for */
    struct uuid page_last; /* the last row of the page being enqueued */
    struct uuid *ids;      /* of the entries being enqueued, in order */
    size_t ids_n;
    struct uuid *asked; /* of batches: what was looked for, whether or not there is something to enqueue */
    size_t asked_n;
};

static void round_begin(void *arg);
static void visit_next(struct feeder *f);
static void visit(struct feeder *f);

struct feeder *feeder_new(struct dispatcher *d)
{
    struct feeder *f = calloc(1, sizeof *f);
    if (f == NULL)
        return NULL;
    f->d = d;
    f->timer = loop_timer_new(d->loop, round_begin, f);
    f->ids = calloc(PAGE_MAX, sizeof *f->ids);
    f->asked = calloc(PAGE_MAX, sizeof *f->asked);
    if (f->timer == NULL || f->ids == NULL || f->asked == NULL)
        feeder_free(&f);
    else
        loop_timer_start(f->timer, IDLE_MS);
    return f;
}

static void forget(struct feeder *f, struct fed *t)
{
    HASH_DEL(f->tenants, t);
    free(t);
}

void feeder_free(struct feeder **pf)
{
    if (pf == NULL || *pf == NULL)
        return;
    while ((*pf)->tenants != NULL)
        forget(*pf, (*pf)->tenants);
    loop_timer_free(&(*pf)->timer);
    free((*pf)->ids);
    free((*pf)->asked);
    free(*pf);
    *pf = NULL;
}

bool feeder_covers(const struct feeder *f, int32_t tenant, enum inv_priority priority, struct uuid id)
{
    struct fed *t;
    HASH_FIND_INT(f->tenants, &tenant, t);
    return t != NULL && uuid_cmp(id, t->cursor[priority]) > 0;
}

bool feeder_knows(const struct feeder *f, int32_t tenant)
{
    struct fed *t;
    HASH_FIND_INT(f->tenants, &tenant, t);
    return t != NULL;
}

static enum inv_priority priority_of(const struct fed *t)
{
    return (enum inv_priority)(t->lane / 2);
}

static bool is_batched(const struct fed *t)
{
    return t->lane % 2 == 1;
}

static void rest(struct feeder *f, bool busy)
{
    f->running = false;
    f->visiting = NULL;
    loop_timer_start(f->timer, busy ? BUSY_MS : IDLE_MS);
}

/* ---- taking marks ---- */

static struct uuid before(struct uuid id)
{
    for (int i = (int)sizeof id.b - 1; i >= 0; i--)
        if (id.b[i]-- != 0)
            break;
    return id;
}

static struct fed *find_or_add(struct feeder *f, int32_t tenant)
{
    struct fed *t;
    HASH_FIND_INT(f->tenants, &tenant, t);
    if (t != NULL)
        return t;
    t = calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    t->tenant = tenant;
    for (int p = 0; p < INV_PRIORITIES;
         p++) /* without a low id from the mark: from where the slow pass stands */
        memset(t->cursor[p].b, 0xFF, sizeof t->cursor[p].b);
    t->generation = -1;
    HASH_ADD_INT(f->tenants, tenant, t);
    return t;
}

static void take_mark(struct feeder *f, const struct queue_backlog *b)
{
    struct fed *t = find_or_add(f, b->tenant);
    if (t == NULL)
        return;
    t->seen = true;
    t->round_generation = b->generation;
    t->in_window = b->in_window;
    t->room = (int32_t)f->d->settings->tenant_window - b->in_window;
    bool fresh = t->generation < 0;
    /* A dispatcher that took over knows no cursor: the mark's low id was taken by another. Begin a day back
     * at most: the slow pass has what is older. */
    struct uuid low = b->has_low ? b->low : uuid_floor((wall_t){.us = wall_now().us - 86400 * 1000000LL});
    if (fresh)
        t->generation = b->generation;
    if (!b->has_low && !fresh)
        return;
    for (int p = 0; p < INV_PRIORITIES; p++)
        if (uuid_cmp(before(low), t->cursor[p]) < 0)
            t->cursor[p] = before(low);
    t->lane = 0;
    t->tail = false;
}

static void drop_unmarked(struct feeder *f)
{
    struct fed *t, *next;
    HASH_ITER(hh, f->tenants, t, next)
    {
        if (!t->seen)
            forget(f, t);
    }
}

static void share(struct feeder *f)
{
    size_t n = HASH_COUNT(f->tenants), i = 0;
    struct drr_tenant *rows = calloc(n + 1, sizeof *rows);
    if (rows == NULL)
        return;
    for (struct fed *t = f->tenants; t != NULL; t = t->hh.next)
        rows[i++] = (struct drr_tenant){.tenant = t->tenant,
                                        .room = t->room > 0 ? t->room : 0,
                                        .waiting = INT32_MAX,
                                        .deficit = t->deficit};
    drr_share(rows, n, QUANTUM, BUDGET, &f->turn);
    i = 0;
    for (struct fed *t = f->tenants; t != NULL; t = t->hh.next, i++) {
        t->grant = rows[i].grant;
        t->deficit = rows[i].deficit;
        t->drained = false;
    }
    free(rows);
}

static void on_taken(void *arg, const struct queue_backlog *items, size_t n, const struct err *err)
{
    struct feeder *f = arg;
    if (err != NULL || n == 0) {
        if (err == NULL)
            for (struct fed *t = f->tenants; t != NULL; t = t->hh.next)
                t->seen = false;
        if (err == NULL)
            drop_unmarked(f);
        rest(f, false);
        return;
    }
    for (struct fed *t = f->tenants; t != NULL; t = t->hh.next)
        t->seen = false;
    for (size_t i = 0; i < n; i++)
        take_mark(f, &items[i]);
    drop_unmarked(f);
    share(f);
    f->visiting = f->tenants;
    visit_next(f);
}

static void round_begin(void *arg)
{
    struct feeder *f = arg;
    if (f->running)
        return;
    if (!leading(f->d->lead) || queue_backlog_take(f->d->queue, on_taken, f) != 0) {
        rest(f, false);
        return;
    }
    f->running = true;
}

/* ---- visiting ---- */

static struct uuid newest(void)
{
    return uuid_floor((wall_t){.us = wall_now().us + 60 * 1000000LL}); /* clocks may differ by a minute */
}

static void clear_drained(struct feeder *f)
{
    size_t n = 0;
    struct queue_backlog *done = calloc(HASH_COUNT(f->tenants) + 1, sizeof *done);
    if (done == NULL)
        return;
    for (struct fed *t = f->tenants; t != NULL; t = t->hh.next)
        if (t->drained)
            done[n++] = (struct queue_backlog){.tenant = t->tenant, .generation = t->generation};
    if (n > 0)
        queue_backlog_clear(f->d->queue, done, n);
    for (struct fed *t = f->tenants; t != NULL; t = t->hh.next)
        if (t->drained) { /* not cleared after all: the next scan begins with the newest rows */
            t->generation = t->round_generation;
            t->lane = 0;
        }
    free(done);
}

static void visit_next(struct feeder *f)
{
    while (f->visiting != NULL && f->visiting->grant <= 0)
        f->visiting = f->visiting->hh.next;
    if (f->visiting != NULL) {
        visit(f);
        return;
    }
    clear_drained(f);
    rest(f, true);
}

static void leave(struct feeder *f)
{
    f->visiting = f->visiting->hh.next;
    visit_next(f);
}

/* A lane was gone through to its end: the cursor follows, or else every round would read again what has no
 * rows of its own (of a priority that nobody uses; of batches only). A commit takes no longer than LAG_MS;
 * one that did, and had to wait, takes the cursor back with its mark. */
static void follow(struct fed *t)
{
    struct uuid *cursor = &t->cursor[priority_of(t)];
    struct uuid to = uuid_floor((wall_t){.us = wall_now().us - LAG_MS * 1000LL});
    if (!is_batched(t) && uuid_cmp(*cursor, to) < 0)
        *cursor = to;
}

static void scanned(struct feeder *f)
{
    struct fed *t = f->visiting;
    follow(t);
    if (++t->lane < LANES) {
        visit(f);
        return;
    }
    t->lane = 0;
    if (!t->tail) { /* once more over what may have been committed behind the cursors */
        struct uuid tail = uuid_floor((wall_t){.us = wall_now().us - TAIL_MS * 1000LL});
        for (int p = 0; p < INV_PRIORITIES; p++)
            if (uuid_cmp(tail, t->cursor[p]) < 0)
                t->cursor[p] = tail;
        t->tail = true;
        visit(f);
        return;
    }
    t->tail = false;
    t->drained = !t->held_back;
    t->held_back = false;
    leave(f);
}

/* What was looked for of batches is done with, but for entries from the first on that found the window full.
 */
static void batched_done(struct feeder *f, const struct uuid *full)
{
    for (size_t i = 0; i < f->asked_n; i++)
        if (full == NULL || uuid_cmp(f->asked[i], *full) < 0)
            batches_queued(f->d->batches, f->asked[i]);
}

static void on_enqueued(void *arg, const int8_t *verdicts, size_t n, const struct err *err)
{
    struct feeder *f = arg;
    struct fed *t = f->visiting;
    const struct uuid *full = NULL;
    FAILPOINT(dispatcher_fed);
    if (err != NULL) {
        log_warn("feeding failed", LF_ERR(err));
        leave(f);
        return;
    }
    for (size_t i = 0; i < n && full == NULL; i++) {
        if (verdicts[i] == QUEUE_WAITS)
            full = &f->ids[i];
        if (verdicts[i] == QUEUE_ADDED) {
            t->grant--;
            t->in_window++;
        }
    }
    if (is_batched(t))
        batched_done(f, full);
    else
        t->cursor[priority_of(t)] = full != NULL ? before(*full) : f->page_last;
    if (full != NULL)
        leave(f);
    else
        visit(f);
}

/* A row to be settled unless somebody holds its job: a scan passes running jobs, too. */
struct doubt {
    struct dispatcher *d;
    struct entry job; /* without prompt */
    bool canceling;
};

static void on_withdrawn(void *arg, enum queue_cancel what, const struct err *err)
{
    struct doubt *x = arg;
    bool nobodys = err == NULL && (what == QUEUE_CANCEL_ABSENT || what == QUEUE_CANCEL_REMOVED);
    if (nobodys && x->canceling)
        verdict_result(x->d->verdicts, &x->job, (struct uuid){0}, INV_CANCELED, ERR_NONE, NULL, NULL);
    else if (nobodys)
        verdict_result(x->d->verdicts, &x->job, (struct uuid){0}, INV_EXPIRED, ERR_JOB_QUEUE_TIMEOUT, NULL,
                       NULL);
    free(x);
}

static void settle_if_free(struct dispatcher *d, const struct entry *job, bool canceling)
{
    struct doubt *x = malloc(sizeof *x);
    if (x == NULL)
        return; /* the next pass comes by */
    *x = (struct doubt){.d = d, .job = *job, .canceling = canceling};
    x->job.prompt_inline = false;
    x->job.prompt = str_of(NULL);
    int sent = canceling ? queue_cancel(d->queue, x->job.id, on_withdrawn, x, NULL)
                         : queue_withdraw(d->queue, x->job.id, on_withdrawn, x);
    if (sent != 0)
        free(x);
}

bool feed_row_expired(const struct entry *job)
{
    return job->attempt == 1 && job->queue_deadline.us < wall_now().us;
}

bool feed_row_ready(struct dispatcher *d, const struct entry *job, bool canceling, wall_t not_before)
{
    if (canceling || feed_row_expired(job)) {
        settle_if_free(d, job, canceling);
        return false;
    }
    return not_before.us <= wall_now().us; /* retries.c comes for the others */
}

static void on_rows(void *arg, const struct sweep_row *rows, size_t n, const struct err *err)
{
    struct feeder *f = arg;
    struct fed *t = f->visiting;
    struct entry *jobs = err == NULL ? calloc(n + 1, sizeof *jobs) : NULL;
    if (jobs == NULL) {
        leave(f);
        return;
    }
    f->ids_n = 0;
    for (size_t i = 0; i < n; i++) {
        if (rows[i].ended || !feed_row_ready(f->d, &rows[i].job, rows[i].canceling, rows[i].not_before))
            continue;
        f->ids[f->ids_n] = rows[i].job.id;
        jobs[f->ids_n++] = rows[i].job;
    }
    if (n > 0)
        f->page_last = rows[n - 1].job.id;
    if (n == 0 && !is_batched(t)) {
        scanned(f);
    } else if (f->ids_n == 0) {
        if (is_batched(t))
            batched_done(f, NULL);
        else
            t->cursor[priority_of(t)] = f->page_last;
        visit(f);
    } else {
        FAILPOINT(dispatcher_feed);
        if (queue_enqueue(f->d->queue, is_batched(t) ? QUEUE_FED : QUEUE_FOUND, (struct uuid){0}, jobs,
                          f->ids_n, on_enqueued, f, NULL) != 0)
            leave(f);
    }
    free(jobs);
}

/* Items of batches take half of their tenant's window at most: the other half is for what somebody submits
 * meanwhile, which they would block when they are of a lower priority and nobody comes to claim them. */
static void visit_batches(struct feeder *f)
{
    struct fed *t = f->visiting;
    int32_t half = ((int32_t)f->d->settings->tenant_window + 1) / 2 - t->in_window;
    size_t most = t->grant < PAGE_MAX ? (size_t)t->grant : PAGE_MAX;
    most = half <= 0 ? 1 : most < (size_t)half ? most : (size_t)half;
    f->asked_n = batches_waiting(f->d->batches, t->tenant, priority_of(t), f->asked, most);
    if (f->asked_n > 0 && half <= 0) {
        t->held_back = true;
        f->asked_n = 0;
    }
    if (f->asked_n == 0)
        scanned(f);
    else if (sweep_ids(f->d->pg, f->asked, f->asked_n, DB_MS, on_rows, f) != 0)
        leave(f);
}

static void visit(struct feeder *f)
{
    struct fed *t = f->visiting;
    if (t->grant <= 0 || !leading(f->d->lead)) {
        leave(f);
        return;
    }
    if (is_batched(t)) {
        visit_batches(f);
        return;
    }
    /* A page has a few rows more than the grant: ended ones among them cost a round trip each otherwise. */
    f->limit = t->grant + 32 < PAGE_MAX ? t->grant + 32 : PAGE_MAX;
    if (sweep_tenant(f->d->pg, t->tenant, priority_of(t), t->cursor[priority_of(t)], newest(), f->limit,
                     DB_MS, on_rows, f) != 0)
        leave(f);
}
