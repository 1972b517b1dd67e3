/* Reclaiming. A pass each 100 ms looks at all leases; burying one dead executor is a procedure of its own,
 * one at a time: its will -> scan sp:live -> rows from PostgreSQL -> next attempts -> requeue -> its pending
 * lists -> strike it off. */
#include "reclaim.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "lead.h"
#include "reaper.h"
#include "store/agents.h"
#include "store/queue_will.h"
#include "store/sweep.h"
#include "verdicts.h"

enum {
    PASS_MS = 100,
    FRESH_MS = 1000,
    DEAD_MS = 2500,
    GONE_MS = 500,
    CALM_MS = 3000,
    SURE_MS = 5000,
    JOBS_MAX = 2000,
    STREAMS = 4
};

struct watched {
    struct uuid boot;
    bool alive, seen;
    bool gone; /* while its lease was missing, Redis saw none of its connections */
    mono_t missing_since;
    UT_hash_handle hh;
};

/* A job of a dead executor on its way back. */
struct lost_job {
    struct burial *b;
    struct lease lease;
    struct entry again;
    char prompt[INV_ENTRY_PROMPT_BYTES];
};

struct burial {
    struct reclaim *r;
    struct uuid boot;
    struct uuid culprit; /* the job that it crashed on; zero: none, or not known */
    char cursor[24];
    struct queue_live live[JOBS_MAX]; /* of this page */
    size_t n;
    size_t outstanding; /* verdicts under way */
    bool failed;        /* something of it could not be done: it stays on the register, and is buried again */
    int stream;         /* whose pending list is read */
    size_t found;
    mono_t began;
};

struct reclaim {
    struct dispatcher *d;
    struct loop_timer *timer;
    struct watched *boots;
    struct burial *burial;
    bool asking, asking_clients;
    mono_t last_pass;
};

static void scan(struct burial *b);
static void pending(struct burial *b);

/* ---- the end of a burial ---- */

static void burial_end(struct burial *b, bool complete)
{
    struct reclaim *r = b->r;
    char boot[UUID_TEXT_BYTES];
    uuid_format(b->boot, boot);
    if (complete) {
        log_info("a dead executor's jobs are queued again", LF_STR("boot", boot), LF_INT("jobs", b->found),
                 LF_INT("ms", mono_ms_between(b->began, loop_now(r->d->loop))));
        FAILPOINT(dispatcher_bury_strike);
        queue_executor_forget(r->d->queue, b->boot);
        reaper_wake(r->d->reaper);
        governor_drop(r->d->governor, b->boot);
        FAILPOINT(dispatcher_buried);
    }
    r->burial = NULL;
    free(b);
}

/* ---- jobs ---- */

static void page_done(struct burial *b)
{
    if (b->outstanding > 0)
        return;
    if (strcmp(b->cursor, "0") == 0)
        pending(b);
    else
        scan(b);
}

static void on_requeued(void *arg, const int8_t *verdicts, size_t n, const struct err *err)
{
    struct lost_job *l = arg;
    struct burial *b = l->b;
    FAILPOINT(dispatcher_bury_requeued);
    if (err != NULL)
        l->b->failed = true;
    else if (n == 1 && verdicts[0] == 1)
        b->found++;
    free(l);
    b->outstanding--;
    page_done(b);
}

/* The next attempt is on record (ours, or somebody's): the old lease goes, the job is queued if it is ours.
 */
static void requeue(struct lost_job *l, bool again)
{
    struct burial *b = l->b;
    const struct queue_requeue_item item = {.lease = l->lease, .again = again ? &l->again : NULL};
    if (queue_requeue(b->r->d->queue, &b->boot, &item, 1, on_requeued, l) == 0)
        return;
    struct err down;
    err_set(&down, ERR_REDIS, "refused");
    on_requeued(l, NULL, 0, &down);
}

/* Its lease stays: dropped with nothing on record nobody would look for it. */
static void job_failed(struct lost_job *l)
{
    struct burial *b = l->b;
    b->failed = true;
    free(l);
    b->outstanding--;
    page_done(b);
}

static void on_attempt(void *arg, bool won, const struct err *err)
{
    struct lost_job *l = arg;
    if (err != NULL) {
        job_failed(l);
        return;
    }
    FAILPOINT(dispatcher_bury_attempt);
    l->again.attempt = (int16_t)(l->again.attempt + 1);
    requeue(l, won);
}

static void on_ended(void *arg, bool won, const struct err *err)
{
    struct lost_job *l = arg;
    (void)won;
    if (err != NULL)
        job_failed(l);
    else
        requeue(l, false);
}

static struct lost_job *lost_new(struct burial *b, const struct queue_live *live, const struct entry *job)
{
    struct lost_job *l = calloc(1, sizeof *l);
    INVARIANT(l != NULL); /* bounded by JOBS_MAX a page */
    l->b = b;
    l->lease = live->lease;
    l->again = *job;
    l->again.ready = wall_now();
    if (job->prompt_inline) {
        memcpy(l->prompt, job->prompt.p, job->prompt.n);
        l->again.prompt.p = l->prompt;
    }
    b->outstanding++;
    return l;
}

static void bury_job(struct burial *b, const struct queue_live *live, const struct sweep_row *row)
{
    struct verdicts *v = b->r->d->verdicts;
    struct lost_job *l = lost_new(b, live, &row->job);
    bool guilty = uuid_eq(row->job.id, b->culprit);
    if (row->ended)
        requeue(l, false); /* settled: only the record was left */
    else if (row->job.attempt !=
             live->attempt) /* the next attempt is on record, and waits for this lease's end */
        requeue(l,
                row->job.attempt > live->attempt && row->not_before.us <= wall_now().us && !row->canceling);
    else if (row->canceling)
        verdict_result(v, &row->job, b->boot, INV_CANCELED, ERR_NONE, on_ended, l);
    else if (guilty && row->crashes + 1 >= INV_MAX_BLAMES)
        verdict_result(v, &row->job, b->boot, INV_ERROR, ERR_JOB_POISON, on_ended, l);
    else if (row->job.reruns + row->job.blames >= INV_MAX_ATTEMPTS)
        verdict_result(v, &row->job, b->boot, INV_ERROR, ERR_JOB_SANDBOX_LOST, on_ended, l);
    else {
        l->again.blames = (int16_t)(row->job.blames + 1);
        verdict_retry(v, &row->job, b->boot, guilty ? SWEEP_CRASHED : "executor_lost", row->job.reruns,
                      l->again.blames, l->again.ready, on_attempt, l);
    }
}

static const struct queue_live *live_of(const struct burial *b, struct uuid id)
{
    for (size_t i = 0; i < b->n; i++)
        if (uuid_eq(b->live[i].lease.id, id))
            return &b->live[i];
    return NULL;
}

static void on_rows(void *arg, const struct sweep_row *rows, size_t n, const struct err *err)
{
    struct burial *b = arg;
    b->failed = b->failed || err != NULL; /* it stays on the register: the next pass begins again */
    for (size_t i = 0; err == NULL && i < n; i++) {
        const struct queue_live *live = live_of(b, rows[i].job.id);
        if (live != NULL)
            bury_job(b, live, &rows[i]);
    }
    b->outstanding--;
    page_done(b);
}

static void drop_build(struct burial *b, const struct lease *lease)
{
    const struct queue_requeue_item item = {.lease = *lease};
    queue_requeue(b->r->d->queue, &b->boot, &item, 1, NULL, NULL);
}

/* The build that the executor crashed on. */
struct guilty_build {
    struct burial *b;
    struct lease lease;
};

static void on_build_ended(void *arg, const struct err *err)
{
    struct guilty_build *g = arg;
    struct burial *b = g->b;
    if (err != NULL)
        b->failed = true; /* its lease stays, and is found by the next burial */
    else
        drop_build(b, &g->lease);
    free(g);
    b->outstanding--;
    page_done(b);
}

/* Once is enough: nobody counts a build's crashes, and whoever deploys can do so again. */
static void end_build(struct burial *b, const struct lease *lease)
{
    const struct agent_built built = {.id = lease->id,
                                      .error = ERR_JOB_POISON,
                                      .error_message =
                                          STR("an executor crashed over this build; deploy again")};
    struct guilty_build *g = malloc(sizeof *g);
    INVARIANT(g != NULL); /* one a burial */
    *g = (struct guilty_build){.b = b, .lease = *lease};
    b->outstanding++;
    if (agent_build_finish(b->r->d->pg, &built, DB_MS, on_build_ended, g, NULL) == 0)
        return;
    b->outstanding--;
    b->failed = true;
    free(g);
}

/* Builds have no row among invocations: their version still says `building`, so the audit queues them again.
 */
static void drop_builds(struct burial *b)
{
    for (size_t i = 0; i < b->n; i++) {
        const struct lease *lease = &b->live[i].lease;
        if (strcmp(lease->stream, queue_build_stream) != 0)
            continue;
        if (uuid_eq(lease->id, b->culprit))
            end_build(b, lease);
        else
            drop_build(b, lease);
    }
}

static void on_scanned(void *arg, struct str next, const struct uuid *ids, const struct queue_live *items,
                       size_t n, const struct err *err)
{
    struct burial *b = arg;
    struct uuid mine[JOBS_MAX];
    (void)ids;
    if (err != NULL || !str_copy(next, b->cursor, sizeof b->cursor)) {
        burial_end(b, false);
        return;
    }
    b->n = 0;
    for (size_t i = 0; i < n; i++)
        if (uuid_eq(items[i].owner, b->boot)) {
            if (b->n == JOBS_MAX) {
                b->failed = true; /* a page larger than Redis was asked for: the rest in another burial */
                break;
            }
            mine[b->n] = items[i].lease.id;
            b->live[b->n++] = items[i];
        }
    b->outstanding++; /* holds the page open while its jobs are dealt with */
    drop_builds(b);
    if (b->n > 0 && sweep_ids(b->r->d->pg, mine, b->n, DB_MS, on_rows, b) == 0)
        return;
    b->failed = b->failed || b->n > 0;
    b->outstanding--;
    page_done(b);
}

static void scan(struct burial *b)
{
    if (queue_scan(b->r->d->queue, str_of(b->cursor), on_scanned, b) != 0)
        burial_end(b, false);
}

/* ---- entries delivered but never leased: back as they were ---- */

static void on_pending(void *arg, const struct queue_delivery *items, size_t n, const struct err *err)
{
    struct burial *b = arg;
    if (err != NULL && !str_starts(str_of(err->msg), STR("NOGROUP"))) {
        burial_end(b, false);
        return;
    }
    struct queue_requeue_item *back = calloc(n + 1, sizeof *back);
    INVARIANT(back != NULL); /* at most QUEUE_BATCH */
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        back[count++] = (struct queue_requeue_item){.lease = items[i].lease,
                                                    .again = items[i].broken ? NULL : &items[i].job};
    if (count > 0)
        queue_requeue(b->r->d->queue, NULL, back, count, NULL, NULL);
    free(back);
    b->found += count;
    b->stream++;
    pending(b);
}

static void pending(struct burial *b)
{
    if (b->stream == STREAMS) {
        burial_end(b, !b->failed);
        return;
    }
    const char *stream = b->stream < STREAMS - 1 ? queue_streams[b->stream] : queue_build_stream;
    if (queue_pending_of(b->r->d->queue, b->boot, stream, on_pending, b) != 0)
        burial_end(b, false);
}

/* ---- its will ---- */

static void on_left(void *arg, bool won, const struct err *err)
{
    struct burial *b = arg;
    (void)won; /* the attempt may have its record already */
    b->failed = b->failed || err != NULL;
    if (--b->outstanding == 0)
        scan(b);
}

/* Usage whose sandboxes are gone: durable before anything else, since the will goes with the burial's end. */
static void on_will(void *arg, const struct queue_will *will, const struct err *err)
{
    struct burial *b = arg;
    if (err != NULL) {
        burial_end(b, false);
        return;
    }
    b->culprit = will->culprit;
    b->outstanding++; /* for those that are refused at once */
    for (size_t i = 0; i < will->usage_n; i++) {
        b->outstanding++;
        verdict_usage_left(b->r->d->verdicts, b->boot, &will->usage[i], on_left, b);
    }
    on_left(b, false, NULL);
}

static void bury(struct reclaim *r, struct uuid boot)
{
    struct burial *b = calloc(1, sizeof *b);
    if (b == NULL)
        return;
    char text[UUID_TEXT_BYTES];
    uuid_format(boot, text);
    log_warn("an executor is dead", LF_STR("boot", text));
    *b = (struct burial){.r = r, .boot = boot, .began = loop_now(r->d->loop)};
    str_copy(STR("0"), b->cursor, sizeof b->cursor);
    r->burial = b;
    FAILPOINT(dispatcher_bury);
    if (queue_will_read(r->d->queue, boot, on_will, b) != 0)
        burial_end(b, false);
}

/* ---- the passes ---- */

static struct watched *watched(struct reclaim *r, struct uuid boot)
{
    struct watched *w;
    HASH_FIND(hh, r->boots, &boot, sizeof boot, w);
    if (w != NULL)
        return w;
    w = calloc(1, sizeof *w);
    INVARIANT(w != NULL); /* one an executor */
    w->boot = boot;
    w->alive = true;
    HASH_ADD(hh, r->boots, boot, sizeof w->boot, w);
    return w;
}

static void drop_unseen(struct reclaim *r)
{
    struct watched *w, *next;
    HASH_ITER(hh, r->boots, w, next)
    {
        if (w->seen)
            continue;
        HASH_DEL(r->boots, w);
        free(w);
    }
}

static bool listed(const struct uuid *boots, size_t n, struct uuid boot)
{
    for (size_t i = 0; i < n; i++)
        if (uuid_eq(boots[i], boot))
            return true;
    return false;
}

static void on_connected(void *arg, const struct uuid *boots, size_t n, const struct err *err)
{
    struct reclaim *r = arg;
    r->asking_clients = false;
    for (struct watched *w = r->boots; err == NULL && w != NULL; w = w->hh.next)
        w->gone = w->missing_since.us != 0 && !listed(boots, n, w->boot);
}

/* How long its lease has been missing; 0 while it is there. */
static int64_t missing_ms(const struct reclaim *r, const struct watched *w)
{
    return w->missing_since.us != 0 ? mono_ms_between(w->missing_since, loop_now(r->d->loop)) : 0;
}

static bool is_dead(const struct reclaim *r, const struct watched *w)
{
    return missing_ms(r, w) >= (w->gone ? GONE_MS : DEAD_MS);
}

/* A lease has been missing for a moment: does Redis still see its executor? */
static void ask_connections(struct reclaim *r)
{
    for (struct watched *w = r->boots; w != NULL && !r->asking_clients; w = w->hh.next)
        if (missing_ms(r, w) >= PASS_MS && !w->gone)
            r->asking_clients = queue_connected(r->d->queue, on_connected, r) == 0;
}

static void on_executors(void *arg, const struct uuid *boots, const bool *alive, size_t n,
                         const struct err *err)
{
    struct reclaim *r = arg;
    mono_t now = loop_now(r->d->loop);
    r->asking = false;
    if (err != NULL) {
        lead_disturbed(r->d->lead);
        return;
    }
    r->last_pass = now;
    for (struct watched *w = r->boots; w != NULL; w = w->hh.next)
        w->seen = false;
    for (size_t i = 0; i < n; i++) {
        struct watched *w = watched(r, boots[i]);
        w->seen = true;
        if (alive[i])
            w->missing_since.us = 0;
        else if (w->missing_since.us == 0)
            w->missing_since = now;
        w->gone = w->gone && !alive[i];
        w->alive = alive[i];
    }
    drop_unseen(r);
    if (r->burial != NULL || !leading_calmly(r->d->lead, CALM_MS))
        return;
    ask_connections(r);
    for (struct watched *w = r->boots; w != NULL; w = w->hh.next)
        if (is_dead(r, w)) {
            bury(r, w->boot);
            return;
        }
}

static void pass(void *arg)
{
    struct reclaim *r = arg;
    if (!leading(r->d->lead)) {
        for (struct watched *w = r->boots; w != NULL; w = w->hh.next)
            w->missing_since.us = 0; /* counted only while Redis is whole and this process leads */
        return;
    }
    if (!r->asking)
        r->asking = queue_executors(r->d->queue, on_executors, r) == 0;
}

bool reclaim_sure(const struct reclaim *r)
{
    return leading_calmly(r->d->lead, SURE_MS) &&
           mono_ms_between(r->last_pass, loop_now(r->d->loop)) < FRESH_MS;
}

bool reclaim_alive(const struct reclaim *r, struct uuid boot)
{
    struct watched *w;
    HASH_FIND(hh, r->boots, &boot, sizeof boot, w);
    return w != NULL && !is_dead(r, w);
}

struct reclaim *reclaim_new(struct dispatcher *d)
{
    struct reclaim *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    r->d = d;
    r->timer = loop_timer_new(d->loop, pass, r);
    if (r->timer == NULL)
        reclaim_free(&r);
    else
        loop_timer_every(r->timer, PASS_MS);
    return r;
}

void reclaim_free(struct reclaim **r)
{
    if (r == NULL || *r == NULL)
        return;
    struct watched *w, *next;
    HASH_ITER(hh, (*r)->boots, w, next)
    {
        HASH_DEL((*r)->boots, w);
        free(w);
    }
    free((*r)->burial);
    loop_timer_free(&(*r)->timer);
    free(*r);
    *r = NULL;
}
