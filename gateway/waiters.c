/* Waiting callers. Two ways lead to the list of ids whose records are fetched next: sp:done tells, and each 2
 * s the table is gone through in pages that ask PostgreSQL which have ended. The pages have a connection of
 * their own and bring ids only: thousands that wait must not hold up the few that are told now. */
#include "waiters.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>

#include "base/log.h"

enum { REREAD_MS = 2000, FETCH_KEYS = 500, FETCH_MS = 5000, DRAIN_MS = 1000 };

struct waiter {
    struct waiter *prev, *next; /* others on the same id */
    struct waiters *w;
    int32_t tenant; /* whoever else asks for an id, its owner is told */
    struct waited *on;
    struct loop_timer *timer;
    waiter_fn *fn;
    void *arg;
};

/* An id somebody waits for. In the hash's order of insertion, which re-reads follow. */
struct waited {
    struct uuid id;
    struct waiter *waiters;
    bool told; /* in the list of ids to fetch */
    bool seen; /* found by a re-read, not told by sp:done */
    UT_hash_handle hh;
};

struct waiters {
    struct gateway *g;
    struct waited *ids;
    struct uuid told[FETCH_KEYS]; /* ids to fetch next */
    size_t told_n;
    bool fetching, looking; /* a query of the kind is under way */
    bool draining;
    bool reread;           /* all ids are to be looked at */
    bool again;            /* and once more: something was told that it may have passed already */
    struct uuid reread_at; /* where the next page begins; zero: at the first */
    struct loop_task turn;
    struct loop_timer *tick;
};

static void turn(void *arg);

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

/* The re-read goes on at this id; NULL: it has seen all. */
static void page_from(struct waiters *w, const struct waited *on)
{
    w->reread = on != NULL || w->again;
    w->reread_at = on != NULL ? on->id : (struct uuid){0};
    if (on == NULL)
        w->again = false;
}

static void look_anew(struct waiters *w)
{
    w->again = w->reread;
    w->reread = true;
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
    if (w->reread && uuid_eq(w->reread_at, on->id))
        page_from(w, on->hh.next);
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

static struct waited *find_or_add(struct waiters *w, struct uuid id)
{
    struct waited *on = find(w, id);
    if (on != NULL)
        return on;
    on = calloc(1, sizeof *on);
    if (on == NULL)
        return NULL;
    on->id = id;
    HASH_ADD(hh, w->ids, id, sizeof on->id, on);
    return on;
}

struct waiter *waiter_add(struct waiters *w, struct uuid id, int32_t tenant, int64_t ms, waiter_fn *fn,
                          void *arg)
{
    struct waiter *waiter = calloc(1, sizeof *waiter);
    struct loop_timer *timer = waiter != NULL ? loop_timer_new(w->g->loop, on_time, waiter) : NULL;
    struct waited *on = timer != NULL ? find_or_add(w, id) : NULL;
    if (on == NULL) {
        loop_timer_free(&timer);
        free(waiter);
        return NULL;
    }
    *waiter = (struct waiter){.w = w, .tenant = tenant, .on = on, .timer = timer, .fn = fn, .arg = arg};
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

static struct waiter *waiter_of(struct waiters *w, struct uuid id, int32_t tenant)
{
    struct waited *on = find(w, id);
    struct waiter *waiter = NULL;
    if (on != NULL)
        DL_SEARCH_SCALAR(on->waiters, waiter, tenant, tenant);
    return waiter;
}

static void tell(struct waiters *w, const struct record *record)
{
    struct waiter *waiter;
    while ((waiter = waiter_of(w, record->id, record->tenant)) != NULL) {
        waiter_fn *fn = waiter->fn;
        void *arg = waiter->arg;
        metric_add(&w->g->metrics.row[waiter->on->seen ? M_WAIT_REREAD : M_WAIT_TOLD], 1);
        waiter_drop(waiter); /* the last one takes the id along */
        fn(arg, record);
    }
}

static void go_on(struct waiters *w)
{
    if (w->told_n > 0 || w->reread)
        loop_task_post(w->g->loop, &w->turn, turn, w);
}

/* Into the list of ids to fetch. When that is full, the re-read (from its beginning) will have it. */
static bool to_fetch(struct waiters *w, struct uuid id, bool seen)
{
    struct waited *on = find(w, id);
    if (on == NULL || on->told)
        return true;
    if (w->told_n == FETCH_KEYS) {
        look_anew(w);
        return false;
    }
    on->told = true;
    on->seen = seen;
    w->told[w->told_n++] = id;
    return true;
}

/* Adds a key for each tenant that waits for the id: one, but for the moment in which somebody else's request
 * for it is being refused. False, and nothing added, when they do not fit; on an empty page they always do,
 * cut if need be. */
static bool put_keys(const struct waited *on, struct record_key *keys, size_t *n, size_t room)
{
    const struct waiter *waiter, *before = NULL;
    size_t end = *n;
    DL_FOREACH(on->waiters, waiter)
    {
        if (before != NULL && before->tenant == waiter->tenant)
            continue;
        if (end == room && *n > 0)
            return false;
        if (end < room)
            keys[end++] = (struct record_key){.id = on->id, .tenant = waiter->tenant};
        before = waiter;
    }
    *n = end;
    return true;
}

/* ---- fetching those that have ended ---- */

static void on_records(void *arg, const struct record *records, size_t n, const struct err *err)
{
    struct waiters *w = arg;
    w->fetching = false;
    if (err != NULL)
        log_debug("fetching outcomes failed; the next re-read will see them", LF_ERR(err));
    for (size_t i = 0; i < n; i++)
        tell(w, &records[i]);
    go_on(w);
}

static void fetch(struct waiters *w)
{
    struct record_key keys[FETCH_KEYS];
    size_t n = 0, i = 0;
    if (w->fetching)
        return;
    for (; i < w->told_n; i++) {
        struct waited *on = find(w, w->told[i]);
        if (on != NULL && !put_keys(on, keys, &n, FETCH_KEYS))
            break;
        if (on != NULL)
            on->told = false;
    }
    w->told_n -= i;
    memmove(w->told, &w->told[i], w->told_n * sizeof w->told[0]);
    if (n > 0)
        w->fetching = records_get_ended(w->g->read, keys, n, FETCH_MS, on_records, w, NULL) == 0;
}

/* ---- re-reading ---- */

static void on_which(void *arg, const struct uuid *ids, size_t n, const struct err *err)
{
    struct waiters *w = arg;
    w->looking = false;
    if (err != NULL)
        log_debug("asking which have ended failed; the next re-read asks again", LF_ERR(err));
    for (size_t i = 0; i < n && to_fetch(w, ids[i], true); i++)
        ;
    go_on(w);
}

/* The next page, no larger than what the list has room for; at the end of the table the re-read is over. */
static void look(struct waiters *w)
{
    struct record_key keys[FETCH_KEYS];
    size_t n = 0, room = FETCH_KEYS - w->told_n;
    if (w->looking || !w->reread || room == 0)
        return;
    struct waited *on = uuid_is_zero(w->reread_at) ? w->ids : find(w, w->reread_at);
    while (on != NULL && put_keys(on, keys, &n, room))
        on = on->hh.next;
    page_from(w, on);
    if (n > 0)
        w->looking = records_which_ended(w->g->lists, keys, n, FETCH_MS, on_which, w, NULL) == 0;
}

/* One query of each kind at a time. */
static void turn(void *arg)
{
    fetch(arg);
    look(arg);
}

void waiters_done(struct waiters *w, struct str message)
{
    struct uuid id;
    enum inv_state state;
    for (size_t i = 0; queue_done_get(message, i, &id, &state) && to_fetch(w, id, false); i++)
        ;
    go_on(w);
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
    look_anew(w);
    go_on(w);
}
