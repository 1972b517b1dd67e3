/* Waiting callers. */
#include "waiters.h"

#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

#include "base/log.h"

enum { REREAD_MS = 2000, FETCH_KEYS = 500, FETCH_MS = 5000, DRAIN_MS = 1000 };

struct waiter {
    struct waiter *prev, *next; /* others on the same id */
    struct waiters *w;
    struct waited *on;
    struct loop_timer *timer;
    waiter_fn *fn;
    void *arg;
};

/* An id somebody waits for. In the hash's order of insertion, which re-reads follow. */
struct waited {
    struct uuid id;
    int32_t tenant;
    struct waiter *waiters;
    bool told; /* in the list of ids to fetch */
    UT_hash_handle hh;
};

struct waiters {
    struct gateway *g;
    struct waited *ids;
    struct uuid told[FETCH_KEYS]; /* ids to fetch next */
    size_t told_n;
    bool fetching;
    bool draining;
    bool reread;           /* all ids are to be looked at */
    struct uuid reread_at; /* the id after which the next page begins; zero: the first */
    struct loop_task turn;
    struct loop_timer *tick;
};

static void fetch(void *arg);

static void on_tick(void *arg)
{
    waiters_reread(arg);
}

struct waiters *waiters_new(struct gateway *g)
{
    struct waiters *w = calloc(1, sizeof *w);
    if (w == NULL)
        return NULL;
    w->g = g;
    w->tick = loop_timer_new(g->loop, on_tick, w);
    if (w->tick == NULL)
        waiters_free(&w);
    else
        loop_timer_every(w->tick, REREAD_MS);
    return w;
}

/* Takes a waiter off its id, and the id off the table when nobody is left. */
static void waiter_drop(struct waiter *waiter)
{
    struct waiters *w = waiter->w;
    struct waited *on = waiter->on;
    DL_DELETE(on->waiters, waiter);
    loop_timer_free(&waiter->timer);
    free(waiter);
    metric_add(&w->g->metrics.row[M_WAITERS], -1);
    if (on->waiters != NULL)
        return;
    if (w->reread && uuid_eq(w->reread_at, on->id)) { /* the re-read goes on behind it */
        struct waited *next = on->hh.next;
        w->reread = next != NULL;
        w->reread_at = next != NULL ? next->id : (struct uuid){0};
    }
    HASH_DEL(w->ids, on);
    free(on);
}

void waiters_free(struct waiters **pw)
{
    if (pw == NULL || *pw == NULL)
        return;
    struct waiters *w = *pw;
    while (w->ids != NULL)
        waiter_drop(w->ids->waiters);
    loop_task_cancel(w->g->loop, &w->turn);
    loop_timer_free(&w->tick);
    free(w);
    *pw = NULL;
}

static void on_time(void *arg)
{
    struct waiter *waiter = arg;
    waiter_fn *fn = waiter->fn;
    void *fn_arg = waiter->arg;
    waiter_drop(waiter);
    fn(fn_arg, NULL);
}

static struct waited *find(struct waiters *w, struct uuid id)
{
    struct waited *on;
    HASH_FIND(hh, w->ids, &id, sizeof id, on);
    return on;
}

static struct waited *find_or_add(struct waiters *w, struct uuid id, int32_t tenant)
{
    struct waited *on = find(w, id);
    if (on != NULL)
        return on;
    on = calloc(1, sizeof *on);
    if (on == NULL)
        return NULL;
    on->id = id;
    on->tenant = tenant;
    HASH_ADD(hh, w->ids, id, sizeof on->id, on);
    return on;
}

struct waiter *waiter_add(struct waiters *w, struct uuid id, int32_t tenant, int64_t ms, waiter_fn *fn,
                          void *arg)
{
    struct waiter *waiter = calloc(1, sizeof *waiter);
    struct loop_timer *timer = waiter != NULL ? loop_timer_new(w->g->loop, on_time, waiter) : NULL;
    struct waited *on = timer != NULL ? find_or_add(w, id, tenant) : NULL;
    if (on == NULL) {
        loop_timer_free(&timer);
        free(waiter);
        return NULL;
    }
    *waiter = (struct waiter){.w = w, .on = on, .timer = timer, .fn = fn, .arg = arg};
    DL_APPEND(on->waiters, waiter);
    loop_timer_start(timer, w->draining ? 0 : ms);
    metric_add(&w->g->metrics.row[M_WAITERS], 1);
    return waiter;
}

void waiter_remove(struct waiter **waiter)
{
    if (waiter == NULL || *waiter == NULL)
        return;
    waiter_drop(*waiter);
    *waiter = NULL;
}

/* ---- telling ---- */

static void tell(struct waiters *w, const struct record *record, int metric)
{
    struct waited *on = find(w, record->id);
    if (on == NULL || on->tenant != record->tenant)
        return;
    while (on != NULL) {
        struct waiter *waiter = on->waiters;
        waiter_fn *fn = waiter->fn;
        void *arg = waiter->arg;
        waiter_drop(waiter); /* the last one takes `on` along */
        metric_add(&w->g->metrics.row[metric], 1);
        fn(arg, record);
        on = find(w, record->id);
    }
}

static void ended(struct waiters *w, const struct record *records, size_t n, const struct err *err,
                  int metric)
{
    w->fetching = false;
    if (err != NULL)
        log_debug("fetching outcomes failed; the next re-read will see them", LF_ERR(err));
    for (size_t i = 0; i < n; i++)
        tell(w, &records[i], metric);
    if (w->told_n > 0 || w->reread)
        loop_task_post(w->g->loop, &w->turn, fetch, w);
}

static void on_told(void *arg, const struct record *records, size_t n, const struct err *err)
{
    ended(arg, records, n, err, M_WAIT_TOLD);
}

static void on_reread(void *arg, const struct record *records, size_t n, const struct err *err)
{
    ended(arg, records, n, err, M_WAIT_REREAD);
}

static size_t keys_told(struct waiters *w, struct record_key *keys)
{
    size_t n = 0;
    for (size_t i = 0; i < w->told_n; i++) {
        struct waited *on = find(w, w->told[i]);
        if (on == NULL)
            continue;
        on->told = false;
        keys[n++] = (struct record_key){.id = on->id, .tenant = on->tenant};
    }
    w->told_n = 0;
    return n;
}

/* The next page of a re-read; at the end of the table the re-read is over. */
static size_t keys_page(struct waiters *w, struct record_key *keys)
{
    struct waited *on = uuid_is_zero(w->reread_at) ? w->ids : find(w, w->reread_at);
    size_t n = 0;
    for (; on != NULL && n < FETCH_KEYS; on = on->hh.next)
        keys[n++] = (struct record_key){.id = on->id, .tenant = on->tenant};
    w->reread = on != NULL;
    w->reread_at = on != NULL ? on->id : (struct uuid){0};
    return n;
}

/* One query at a time; ids told of go before the re-read's pages. */
static void fetch(void *arg)
{
    struct waiters *w = arg;
    struct record_key keys[FETCH_KEYS];
    if (w->fetching)
        return;
    bool told = w->told_n > 0;
    size_t n = told ? keys_told(w, keys) : w->reread ? keys_page(w, keys) : 0;
    if (n == 0)
        return;
    w->fetching = records_get_ended(w->g->read, keys, n, FETCH_MS, told ? on_told : on_reread, w, NULL) == 0;
}

void waiters_done(struct waiters *w, struct str message)
{
    struct uuid id;
    enum inv_state state;
    for (size_t i = 0; queue_done_get(message, i, &id, &state); i++) {
        struct waited *on = find(w, id);
        if (on == NULL || on->told)
            continue;
        if (w->told_n == FETCH_KEYS) {
            w->reread = true; /* more than one query takes: the pages will have it */
            break;
        }
        on->told = true;
        w->told[w->told_n++] = id;
    }
    if (w->told_n > 0 || w->reread)
        loop_task_post(w->g->loop, &w->turn, fetch, w);
}

/* Spread out: each one's end is a query. */
void waiters_drain(struct waiters *w)
{
    unsigned n = HASH_COUNT(w->ids), i = 0;
    w->draining = true;
    for (struct waited *on = w->ids; on != NULL; on = on->hh.next, i++) {
        struct waiter *waiter;
        DL_FOREACH(on->waiters, waiter)
        {
            loop_timer_start(waiter->timer, (int64_t)i * DRAIN_MS / n);
        }
    }
}

bool waiters_draining(const struct waiters *w)
{
    return w->draining;
}

void waiters_reread(struct waiters *w)
{
    if (w->ids == NULL)
        return;
    w->reread = true;
    loop_task_post(w->g->loop, &w->turn, fetch, w);
}
