/* Batches. One round at a time, over all that have not ended:
 *
 *   LIST -> for each: (first: LOAD its open fed items) -> STEP -> canceling: DROP what waits … -> STOP what
 * is fed, page by page -> next one -> rest
 *
 * What a canceled batch has waiting is beyond its cursor, or (items that begin later) wherever it is. */
#include "batches.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "feeder.h"
#include "lead.h"
#include "store/batch_feed.h"
#include "store/sweep.h"
#include "webhooks.h"

enum {
    BUSY_MS = 50,
    IDLE_MS = 200,
    WATCH_MS = 100,
    LIST_MAX = 4096,
    HELD_MAX = 100000, /* open fed items of all batches together */
    DROP_ROWS = 1000,
    STOP_ROWS = 500,
    STOP_AGAIN_MS = 500,
};

struct item {
    struct uuid id;
    bool queued; /* Redis was given it */
};

struct held {
    struct batch_open b;
    struct item *items; /* open and fed; sorted */
    size_t n;
    size_t unqueued;
    bool loaded, seen;
    mono_t stopped_at; /* when its fed items were last told to stop; 0: never */
    UT_hash_handle hh;
};

struct batches {
    struct dispatcher *d;
    struct loop_timer *timer, *watch;
    struct held *all; /* oldest first */
    struct held *at;
    size_t held; /* items in all */
    bool running, moved;
    bool stale;       /* the lead was lost, or Redis: what Redis was given is not known any more */
    size_t stop_from; /* the page of a canceled batch's items */
};

static void visit(struct batches *b);
static void drop_waiting(struct batches *b);
static void drop_delayed(struct batches *b);
static void stop_fed(struct batches *b);
static void stop_page(struct batches *b);

static void forget(struct batches *b, struct held *h)
{
    HASH_DEL(b->all, h);
    b->held -= h->n;
    free(h->items);
    free(h);
}

static void forget_all(struct batches *b)
{
    while (b->all != NULL)
        forget(b, b->all);
}

static void rest(struct batches *b)
{
    b->running = false;
    b->at = NULL;
    loop_timer_start(b->timer, b->moved ? BUSY_MS : IDLE_MS);
}

static void next(struct batches *b)
{
    b->at = b->at->hh.next;
    visit(b);
}

/* The one in hand is not as it was thought to be: the next round reads it anew. */
static void drop_current(struct batches *b)
{
    struct held *h = b->at;
    b->at = h->hh.next;
    forget(b, h);
    visit(b);
}

/* ---- items ---- */

static int order_items(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    return uuid_cmp(x->id, y->id);
}

static struct item *find_item(const struct batches *b, struct uuid id, struct held **in)
{
    const struct item key = {.id = id};
    for (struct held *h = b->all; h != NULL; h = h->hh.next) {
        if (uuid_cmp(id, h->b.first) < 0 || uuid_cmp(id, h->b.last) > 0 || h->n == 0)
            continue;
        struct item *i = bsearch(&key, h->items, h->n, sizeof *h->items, order_items);
        *in = h;
        if (i != NULL)
            return i;
    }
    return NULL;
}

void batches_queued(struct batches *b, struct uuid id)
{
    struct held *h;
    struct item *i = find_item(b, id, &h);
    if (i != NULL && !i->queued) {
        i->queued = true;
        h->unqueued--;
    }
}

void batches_missing(struct batches *b, struct uuid id)
{
    struct held *h;
    struct item *i = find_item(b, id, &h);
    if (i != NULL && i->queued) {
        log_warn("an item of a batch was missing from Redis: feeding it again");
        i->queued = false;
        h->unqueued++;
    }
}

/* The items that are left of those before, with those whose time has come, and the new ones. Both lists are
 * sorted, and new ids are greater. */
static bool keep(struct batches *b, struct held *h, const struct batch_step *s)
{
    size_t n = s->open_n + s->added_n, old = 0;
    struct item *items = calloc(n + 1, sizeof *items);
    if (items == NULL)
        return false;
    h->unqueued = 0;
    for (size_t i = 0; i < n; i++) {
        items[i].id = i < s->open_n ? s->open[i] : s->added[i - s->open_n];
        while (old < h->n && uuid_cmp(h->items[old].id, items[i].id) < 0)
            old++;
        items[i].queued = old < h->n && uuid_eq(h->items[old].id, items[i].id) && h->items[old].queued;
        h->unqueued += items[i].queued ? 0 : 1;
    }
    b->held = b->held - h->n + n;
    free(h->items);
    h->items = items;
    h->n = n;
    return true;
}

static bool is_of(const struct held *h, int32_t tenant, enum inv_priority priority)
{
    return h->b.tenant == tenant && h->b.priority == priority && h->b.state == BATCH_RUNNING &&
           h->unqueued > 0;
}

static int order_ids(const void *a, const void *b)
{
    const struct uuid *x = a, *y = b;
    return uuid_cmp(*x, *y);
}

size_t batches_waiting(const struct batches *b, int32_t tenant, enum inv_priority priority, struct uuid *out,
                       size_t max)
{
    size_t n = 0, sharing = 0;
    for (const struct held *h = b->all; h != NULL; h = h->hh.next)
        sharing += is_of(h, tenant, priority) ? 1 : 0;
    for (const struct held *h = b->all; h != NULL && n < max; h = h->hh.next) {
        if (!is_of(h, tenant, priority))
            continue;
        size_t share = (max - n + sharing - 1) / sharing;
        sharing--;
        for (size_t i = 0; i < h->n && share > 0; i++)
            if (!h->items[i].queued) {
                out[n++] = h->items[i].id;
                share--;
            }
    }
    if (n > 1)
        qsort(out, n, sizeof *out, order_ids);
    return n;
}

/* ---- a step ---- */

/* How many of its items may be open and fed. */
static int most_open(const struct batches *b, const struct held *h)
{
    size_t most = h->b.max_concurrency > 0 ? (size_t)h->b.max_concurrency : BATCH_CONCURRENCY_MAX;
    size_t ahead = 2 * (size_t)b->d->settings->tenant_window, room = HELD_MAX - b->held;
    ahead = ahead > h->unqueued ? ahead - h->unqueued : 0;
    if (room < ahead)
        ahead = room;
    if (most > h->n + ahead)
        most = h->n + ahead;
    return (int)(most < BATCH_CONCURRENCY_MAX ? most : BATCH_CONCURRENCY_MAX);
}

static void mark_tenant(struct batches *b, const struct held *h)
{
    const struct queue_mark mark = {.tenant = h->b.tenant, .low = uuid_floor(wall_now())};
    if (h->unqueued > 0 && h->b.state == BATCH_RUNNING && !feeder_knows(b->d->feeder, h->b.tenant))
        queue_mark(b->d->queue, &mark, 1, NULL, NULL);
}

static void on_step(void *arg, const struct batch_step *s, const struct err *err)
{
    struct batches *b = arg;
    struct held *h = b->at;
    if (err != NULL) {
        log_warn("a batch could not be fed; the next round will try again", LF_ERR(err));
        next(b);
        return;
    }
    FAILPOINT(dispatcher_batch_fed);
    size_t before = h->n;
    if (!s->found || s->ended || !keep(b, h, s)) {
        b->moved = true;
        if (s->ended) {
            log_info("a batch has ended");
            webhooks_wake(b->d->webhooks);
        }
        drop_current(b);
        return;
    }
    h->b.fed = s->fed;
    h->b.state = s->state;
    h->b.delayed = s->delayed;
    b->moved = b->moved || s->added_n > 0 || s->open_n != before;
    mark_tenant(b, h);
    if (s->state == BATCH_CANCELING)
        drop_waiting(b);
    else
        next(b);
}

static void step(struct batches *b)
{
    struct held *h = b->at;
    struct uuid *ids = calloc(h->n + 1, sizeof *ids);
    for (size_t i = 0; ids != NULL && i < h->n; i++)
        ids[i] = h->items[i].id;
    FAILPOINT(dispatcher_batch);
    bool sent =
        ids != NULL && batch_step(b->d->pg, &h->b, ids, h->n, most_open(b, h), DB_MS, on_step, b) == 0;
    free(ids);
    if (!sent)
        next(b);
}

static void on_loaded(void *arg, const struct uuid *ids, size_t n, const struct err *err)
{
    struct batches *b = arg;
    const struct batch_step s = {.open = ids, .open_n = n};
    if (err != NULL || !keep(b, b->at, &s)) {
        next(b);
        return;
    }
    b->at->loaded = true;
    step(b);
}

/* ---- cancel ---- */

static void tell_dropped(struct batches *b, const struct uuid *ids, size_t n)
{
    struct buf done;
    buf_init(&done, DROP_ROWS * QUEUE_DONE_RECORD_BYTES);
    for (size_t i = 0; i < n; i++)
        queue_done_put(&done, ids[i], INV_CANCELED, i == 0); /* perhaps with webhooks */
    if (n > 0)
        queue_release(b->d->queue, b->d->boot, NULL, 0, buf_view(&done), NULL, NULL);
    buf_deinit(&done);
}

static void on_dropped(void *arg, bool moved, struct uuid fed, const struct uuid *ids, size_t n,
                       const struct err *err)
{
    struct batches *b = arg;
    if (err != NULL) {
        log_warn("a batch could not be canceled; the next round will try again", LF_ERR(err));
        next(b);
        return;
    }
    tell_dropped(b, ids, n);
    b->moved = b->moved || moved;
    if (moved) {
        b->at->b.fed = fed;
        drop_waiting(b);
        return;
    }
    if (b->at->b.delayed > 0)
        drop_delayed(b);
    else
        stop_fed(b);
}

static void on_dropped_delayed(void *arg, int32_t delayed, const struct uuid *ids, size_t n,
                               const struct err *err)
{
    struct batches *b = arg;
    if (err != NULL) {
        log_warn("a batch could not be canceled; the next round will try again", LF_ERR(err));
        next(b);
        return;
    }
    tell_dropped(b, ids, n);
    bool more = delayed > 0 && delayed < b->at->b.delayed;
    b->moved = true;
    b->at->b.delayed = delayed;
    if (more)
        drop_delayed(b);
    else
        stop_fed(b);
}

static void drop_delayed(struct batches *b)
{
    if (batch_drop_delayed(b->d->pg, &b->at->b, b->d->boot, DROP_ROWS, DB_MS, on_dropped_delayed, b) != 0)
        next(b);
}

static void stop_fed(struct batches *b)
{
    b->stop_from = 0;
    bool again = b->at->stopped_at.us == 0 ||
                 mono_ms_between(b->at->stopped_at, loop_now(b->d->loop)) >= STOP_AGAIN_MS;
    if (!again) {
        next(b);
        return;
    }
    b->at->stopped_at = loop_now(b->d->loop);
    stop_page(b);
}

static void drop_waiting(struct batches *b)
{
    if (batch_drop(b->d->pg, &b->at->b, b->d->boot, DROP_ROWS, DB_MS, on_dropped, b) != 0)
        next(b);
}

static size_t page_of(const struct batches *b, struct uuid ids[STOP_ROWS])
{
    size_t n = 0;
    for (size_t i = b->stop_from; i < b->at->n && n < STOP_ROWS; i++)
        ids[n++] = b->at->items[i].id;
    return n;
}

/* Each one's executor is told; one that nobody runs is settled. */
static void on_stop_rows(void *arg, const struct sweep_row *rows, size_t n, const struct err *err)
{
    struct batches *b = arg;
    for (size_t i = 0; err == NULL && i < n; i++)
        if (!rows[i].ended)
            feed_row_ready(b->d, &rows[i].job, true, rows[i].not_before);
    b->stop_from += STOP_ROWS;
    stop_page(b);
}

static void on_cancels(void *arg, const struct err *err)
{
    struct batches *b = arg;
    struct uuid ids[STOP_ROWS];
    size_t n = page_of(b, ids);
    if (err != NULL || sweep_ids(b->d->pg, ids, n, DB_MS, on_stop_rows, b) != 0)
        next(b);
}

static void stop_page(struct batches *b)
{
    struct uuid ids[STOP_ROWS];
    size_t n = page_of(b, ids);
    if (n == 0 || batch_cancel_items(b->d->pg, b->at->b.tenant, ids, n, DB_MS, on_cancels, b) != 0)
        next(b);
}

/* ---- rounds ---- */

static void visit(struct batches *b)
{
    if (b->at == NULL || b->stale || !leading(b->d->lead)) {
        rest(b);
        return;
    }
    if (b->at->loaded)
        step(b);
    else if (batch_fed_open(b->d->pg, &b->at->b, BATCH_CONCURRENCY_MAX, DB_MS, on_loaded, b) != 0)
        next(b);
}

static void take(struct batches *b, const struct batch_open *o)
{
    struct held *h;
    HASH_FIND(hh, b->all, &o->id, sizeof o->id, h);
    if (h == NULL && (h = calloc(1, sizeof *h)) != NULL) {
        h->b = *o;
        HASH_ADD(hh, b->all, b.id, sizeof h->b.id, h);
    }
    if (h == NULL)
        return;
    h->seen = true;
    h->b.state = o->state;
    if (!uuid_eq(h->b.fed, o->fed) || h->b.delayed != o->delayed) { /* another leader moved it */
        h->b.fed = o->fed;
        h->b.delayed = o->delayed;
        h->loaded = false;
    }
}

static void on_list(void *arg, const struct batch_open *list, size_t n, const struct err *err)
{
    struct batches *b = arg;
    struct held *h, *following;
    if (err != NULL) {
        rest(b);
        return;
    }
    for (h = b->all; h != NULL; h = h->hh.next)
        h->seen = false;
    for (size_t i = 0; i < n; i++)
        take(b, &list[i]);
    HASH_ITER(hh, b->all, h, following)
    {
        if (!h->seen)
            forget(b, h);
    }
    b->at = b->all;
    visit(b);
}

static void round_begin(void *arg)
{
    struct batches *b = arg;
    b->moved = false;
    if (b->stale) {
        forget_all(b);
        b->stale = false;
    }
    b->running = true;
    if (!leading(b->d->lead) || batch_open_list(b->d->pg, (struct uuid){0}, LIST_MAX, DB_MS, on_list, b) != 0)
        rest(b);
}

/* A loss is seen however long a round takes: it lasts longer than this timer's period. */
static void look(void *arg)
{
    struct batches *b = arg;
    if (!leading(b->d->lead))
        b->stale = true;
}

struct batches *batches_new(struct dispatcher *d)
{
    struct batches *b = calloc(1, sizeof *b);
    if (b == NULL)
        return NULL;
    b->d = d;
    b->timer = loop_timer_new(d->loop, round_begin, b);
    b->watch = loop_timer_new(d->loop, look, b);
    if (b->timer == NULL || b->watch == NULL) {
        batches_free(&b);
        return NULL;
    }
    loop_timer_start(b->timer, IDLE_MS);
    loop_timer_every(b->watch, WATCH_MS);
    return b;
}

void batches_free(struct batches **b)
{
    if (b == NULL || *b == NULL)
        return;
    forget_all(*b);
    loop_timer_free(&(*b)->timer);
    loop_timer_free(&(*b)->watch);
    free(*b);
    *b = NULL;
}
