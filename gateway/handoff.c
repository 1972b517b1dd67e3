/* From commit to queue. */
#include "handoff.h"

#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

#include "base/arena.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "store/sweep.h"

enum { KEEP_MS = 1000, CLOCK_MS = 10000, SKEW_MAX_MS = 60000, KEEP_DEADLINE_MS = 5000 };

/* An id that may not have reached Redis. In order of ids but for those not known yet, which are newest. */
struct handoff_ticket {
    struct handoff_ticket *prev, *next;
    struct uuid id;    /* zero: not known yet */
    struct uuid fence; /* of the queue, before the commit */
    int32_t tenant;
};

/* A tenant with jobs whose script failed: from `low` on they are to be marked. One each, however many jobs.
 */
struct failed {
    int32_t tenant;
    struct uuid low;
    uint64_t seq; /* grows with each failure: a mark sent before the last one does not cover it */
    UT_hash_handle hh;
};

/* Commits of one turn, going out in one script. */
struct batch {
    struct handoff *h;
    size_t n;
    struct uuid fence; /* of all of them; one that knew another goes with the next */
    struct handoff_ticket *tickets[QUEUE_BATCH];
    struct entry entries[QUEUE_BATCH];
    struct arena *prompts;
};

/* A writing connection and the boot's lock on it. */
struct writer_lock {
    struct handoff *h;
    struct pg *pg;
    bool held, asking;
};

enum { WRITERS = 3 };

struct handoff {
    struct gateway *g;
    struct writer_lock locks[WRITERS];
    struct handoff_ticket *tickets;
    struct failed *failed;
    uint64_t seq;
    struct batch *open;
    struct loop_task flush;
    struct loop_timer *keep, *clock;
    bool kept;    /* the boot's row stands */
    bool keeping; /* a refresh is under way */
    bool skewed;
    bool clock_seen;
    int64_t agreed_us; /* this clock less the monotonic one, when it agreed with PostgreSQL's */
    bool marking;
    void (*finished)(void *arg);
    void *finished_arg;
};

static void keep(void *arg);
static void look_at_clock(void *arg);

struct handoff *handoff_new(struct gateway *g)
{
    struct handoff *h = calloc(1, sizeof *h);
    if (h == NULL)
        return NULL;
    h->g = g;
    h->keep = loop_timer_new(g->loop, keep, h);
    h->clock = loop_timer_new(g->loop, look_at_clock, h);
    if (h->keep == NULL || h->clock == NULL) {
        handoff_free(&h);
        return NULL;
    }
    loop_timer_every(h->keep, KEEP_MS);
    loop_timer_every(h->clock, CLOCK_MS);
    return h;
}

static void batch_free(struct batch *b)
{
    if (b == NULL)
        return;
    arena_free(&b->prompts);
    free(b);
}

void handoff_free(struct handoff **ph)
{
    if (ph == NULL || *ph == NULL)
        return;
    struct handoff *h = *ph;
    struct handoff_ticket *t, *next;
    DL_FOREACH_SAFE(h->tickets, t, next)
    {
        free(t);
    }
    struct failed *f, *after;
    HASH_ITER(hh, h->failed, f, after)
    {
        HASH_DEL(h->failed, f);
        free(f);
    }
    loop_task_cancel(h->g->loop, &h->flush);
    loop_timer_free(&h->keep);
    loop_timer_free(&h->clock);
    batch_free(h->open);
    free(h);
    *ph = NULL;
}

/* ---- tickets ---- */

struct handoff_ticket *handoff_begin(struct handoff *h, int32_t tenant)
{
    struct handoff_ticket *t = calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    t->tenant = tenant;
    t->fence = queue_fence(h->g->queue);
    DL_APPEND(h->tickets, t);
    return t;
}

void handoff_id(struct handoff_ticket *t, struct uuid id)
{
    t->id = id;
}

void handoff_drop(struct handoff *h, struct handoff_ticket *t)
{
    DL_DELETE(h->tickets, t);
    free(t);
}

static struct uuid least(struct uuid a, struct uuid b)
{
    return uuid_cmp(a, b) < 0 ? a : b;
}

/* The lowest id that may not have reached Redis. Tickets are in order of ids; the floor of now bounds what
 * comes. */
static struct uuid low(const struct handoff *h)
{
    struct uuid id = uuid_floor((wall_t){.us = wall_now().us - 1000});
    if (h->tickets != NULL && !uuid_is_zero(h->tickets->id))
        id = least(id, h->tickets->id);
    for (const struct failed *f = h->failed; f != NULL; f = f->hh.next)
        id = least(id, f->low);
    return id;
}

/* The ticket's job did not reach Redis: its tenant is marked when Redis is back. Without memory the ticket
 * stays, and holds the low id down until this process ends. */
static void fail(struct handoff *h, struct handoff_ticket *t)
{
    struct failed *f;
    metric_add(&h->g->metrics.row[M_HANDOFF_FAILED], 1);
    HASH_FIND_INT(h->failed, &t->tenant, f);
    if (f == NULL) {
        f = calloc(1, sizeof *f);
        if (f == NULL)
            return;
        f->tenant = t->tenant;
        f->low = t->id;
        HASH_ADD_INT(h->failed, tenant, f);
    }
    f->low = least(f->low, t->id);
    f->seq = ++h->seq;
    handoff_drop(h, t);
}

void handoff_unsure(struct handoff *h, struct handoff_ticket *t)
{
    fail(h, t);
}

/* ---- batches ---- */

static void on_enqueued(void *arg, const int8_t *verdicts, size_t n, const struct err *err)
{
    struct batch *b = arg;
    struct handoff *h = b->h;
    struct metric *m = h->g->metrics.row;
    FAILPOINT(gateway_handed);
    if (err != NULL && h->failed == NULL) /* once an outage, not once a batch */
        log_warn("enqueueing fails; the dispatcher will feed these jobs", LF_INT("jobs", b->n), LF_ERR(err));
    for (size_t i = 0; i < b->n; i++) {
        if (err != NULL) {
            fail(h, b->tickets[i]);
            continue;
        }
        metric_add(&m[i < n && verdicts[i] == QUEUE_WAITS ? M_LEFT_WAITING : M_HANDED], 1);
        handoff_drop(h, b->tickets[i]);
    }
    batch_free(b);
    if (err != NULL && redis_connected(h->g->redis))
        handoff_redis_up(h);
}

static void flush(void *arg)
{
    struct handoff *h = arg;
    struct batch *b = h->open;
    struct err err;
    h->open = NULL;
    if (b == NULL)
        return;
    FAILPOINT(gateway_answered);
    if (queue_enqueue(h->g->queue, QUEUE_FIRST, b->fence, b->entries, b->n, on_enqueued, b, &err) != 0)
        on_enqueued(b, NULL, 0, &err);
}

static struct batch *open_batch(struct handoff *h)
{
    if (h->open != NULL)
        return h->open;
    struct batch *b = calloc(1, sizeof *b);
    if (b == NULL)
        return NULL;
    b->h = h;
    b->prompts = arena_new((size_t)QUEUE_BATCH * INV_ENTRY_PROMPT_BYTES + QUEUE_BATCH * 16);
    if (b->prompts == NULL) {
        free(b);
        return NULL;
    }
    return h->open = b;
}

void handoff_commit(struct handoff *h, struct handoff_ticket *t, const struct entry *e)
{
    if (h->open != NULL && !uuid_eq(h->open->fence, t->fence)) {
        loop_task_cancel(h->g->loop, &h->flush);
        flush(h);
    }
    struct batch *b = open_batch(h);
    char *prompt = b != NULL && e->prompt_inline ? arena_dup(b->prompts, e->prompt) : NULL;
    if (b == NULL || (e->prompt_inline && prompt == NULL)) {
        fail(h, t); /* no memory: as if Redis had failed */
        return;
    }
    b->fence = t->fence;
    b->tickets[b->n] = t;
    b->entries[b->n] = *e;
    b->entries[b->n].prompt = str_make(prompt, e->prompt.n);
    if (++b->n == QUEUE_BATCH) {
        loop_task_cancel(h->g->loop, &h->flush);
        flush(h);
        return;
    }
    loop_task_post(h->g->loop, &h->flush, flush, h);
}

/* ---- what failed: marked for the feeder, per tenant the lowest id ---- */

struct marking {
    struct handoff *h;
    size_t n;
    struct queue_mark marks[QUEUE_BATCH];
    uint64_t upto; /* failures up to here are covered */
};

static void on_marked(void *arg, const struct err *err)
{
    struct marking *m = arg;
    struct handoff *h = m->h;
    h->marking = false;
    for (size_t i = 0; err == NULL && i < m->n; i++) {
        struct failed *f;
        HASH_FIND_INT(h->failed, &m->marks[i].tenant, f);
        if (f != NULL && f->seq <= m->upto) {
            HASH_DEL(h->failed, f);
            free(f);
        }
    }
    free(m);
}

void handoff_redis_up(struct handoff *h)
{
    struct marking *m = h->marking || h->failed == NULL ? NULL : calloc(1, sizeof *m);
    if (m == NULL)
        return;
    m->h = h;
    m->upto = h->seq;
    for (const struct failed *f = h->failed; f != NULL && m->n < QUEUE_BATCH; f = f->hh.next)
        m->marks[m->n++] = (struct queue_mark){.tenant = f->tenant, .low = f->low};
    h->marking = queue_mark(h->g->queue, m->marks, m->n, on_marked, m) == 0;
    if (!h->marking)
        free(m);
}

/* ---- the boot's row ---- */

static void on_kept(void *arg, const struct err *err)
{
    struct handoff *h = arg;
    h->keeping = false;
    if (err != NULL && h->kept)
        log_warn("this boot's row could not be refreshed", LF_ERR(err));
    h->kept = err == NULL;
}

static void lock_again(struct handoff *h);

static void keep(void *arg)
{
    struct handoff *h = arg;
    lock_again(h);
    if (redis_connected(h->g->redis))
        handoff_redis_up(h); /* marks that failed themselves */
    if (h->keeping || h->finished != NULL)
        return;
    h->keeping = boot_keep(h->g->write_small, h->g->boot, low(h), KEEP_DEADLINE_MS, on_kept, h) == 0;
}

static void on_locked(void *arg, const struct err *err)
{
    struct writer_lock *l = arg;
    l->asking = false;
    l->held = err == NULL;
    if (err != NULL)
        log_error("the boot's lock could not be taken; trying again", LF_ERR(err));
}

static void take_lock(struct writer_lock *l)
{
    l->asking = boot_lock(l->pg, l->h->g->boot, KEEP_DEADLINE_MS, on_locked, l) == 0;
}

/* The place of a connection among the locks; made when it is first seen. */
static struct writer_lock *lock_of(struct handoff *h, struct pg *pg)
{
    for (int i = 0; i < WRITERS; i++) {
        if (h->locks[i].pg == NULL)
            h->locks[i] = (struct writer_lock){.h = h, .pg = pg};
        if (h->locks[i].pg == pg)
            return &h->locks[i];
    }
    BUG("more writing connections than locks");
}

/* Commits of a connection without the lock could not be fenced off after this process's death. */
static bool all_locked(const struct handoff *h)
{
    for (int i = 0; i < WRITERS; i++)
        if (h->locks[i].pg != NULL && pg_connected(h->locks[i].pg) && !h->locks[i].held)
            return false;
    return true;
}

static void lock_again(struct handoff *h)
{
    for (int i = 0; i < WRITERS; i++)
        if (h->locks[i].pg != NULL && pg_connected(h->locks[i].pg) && !h->locks[i].held &&
            !h->locks[i].asking)
            take_lock(&h->locks[i]);
}

void handoff_pg_up(struct handoff *h, struct pg *pg)
{
    /* Session set-up runs before queued statements: no commit of this connection precedes its lock. */
    struct writer_lock *l = lock_of(h, pg);
    l->held = false;
    take_lock(l);
    if (pg == h->g->write_small) {
        h->kept = false;
        h->keeping = boot_keep(pg, h->g->boot, low(h), KEEP_DEADLINE_MS, on_kept, h) == 0;
        look_at_clock(h);
    }
}

static void on_clock(void *arg, wall_t theirs, const struct err *err)
{
    struct handoff *h = arg;
    if (err != NULL)
        return;
    int64_t skew_ms = (wall_now().us - theirs.us) / 1000;
    bool skewed = skew_ms > SKEW_MAX_MS || skew_ms < -SKEW_MAX_MS;
    if (skewed != h->skewed)
        log_warn(skewed ? "this clock is off PostgreSQL's: refusing submissions" : "clocks agree again",
                 LF_INT("skew_ms", skew_ms));
    h->skewed = skewed;
    h->clock_seen = true;
    if (!skewed)
        h->agreed_us = wall_now().us - mono_now().us;
}

/* It agreed a moment ago, and has been put forward or back since: seen at once, so that no id is made by it.
 */
static bool has_stepped(const struct handoff *h)
{
    int64_t step_ms = (wall_now().us - mono_now().us - h->agreed_us) / 1000;
    return step_ms > SKEW_MAX_MS || step_ms < -SKEW_MAX_MS;
}

static void look_at_clock(void *arg)
{
    struct handoff *h = arg;
    clock_get(h->g->read, KEEP_DEADLINE_MS, on_clock, h);
}

bool handoff_ready(const struct handoff *h, struct err *err)
{
    if (h->skewed || (h->clock_seen && has_stepped(h))) {
        err_set(err, ERR_CLOCK_SKEW, "this server's clock is more than 60 s from the database's");
        return false;
    }
    if (!h->kept && !pg_connected(h->g->write_small)) {
        err_set(err, ERR_UNAVAILABLE, "the database is not available");
        return false;
    }
    if (!h->kept || !h->clock_seen || !all_locked(h)) {
        err_set(err, ERR_UNAVAILABLE, "starting");
        return false;
    }
    return true;
}

static void on_ended(void *arg, const struct err *err)
{
    (void)err;
    struct handoff *h = arg;
    h->finished(h->finished_arg);
}

void handoff_finish(struct handoff *h, void (*fn)(void *arg), void *arg)
{
    h->finished = fn;
    h->finished_arg = arg;
    loop_timer_stop(h->keep);
    /* Tickets left: the row stays, and a dispatcher takes it over. */
    if (h->tickets != NULL || h->failed != NULL ||
        boot_end(h->g->write_small, h->g->boot, 2000, on_ended, h) != 0)
        on_ended(h, NULL);
}
