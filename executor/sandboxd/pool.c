/* The pool (pool.h). Invariant after every event: as many cells are under construction as are missing (spare
 * ones and one for each waiter), but not more than build_at_once and not while the last failure is younger
 * than RETRY_MS. */
#include "pool.h"

#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

#include "base/log.h"

enum { RETRY_MS = 500, GIVE_UP_AFTER = 5 /* builds failed in a row: waiters are told */ };

struct slot {
    struct slot *prev, *next;
    struct pool *pool;
    struct cell *cell;
    bool ready;
};

struct pool_wait {
    struct pool_wait *prev, *next;
    struct pool *pool;
    pool_fn *fn;
    void *arg;
    struct loop_timer *timer;
};

struct pool {
    struct cell_works *works;
    struct slot *slots;
    struct pool_wait *waits; /* oldest first */
    int building, ready, waiting, failed_in_a_row;
    struct loop_task serve;
    struct loop_timer *retry;
};

static void pool_serve(void *arg);
static void pool_fill(struct pool *p);

static void slot_free(struct slot *s)
{
    DL_DELETE(s->pool->slots, s);
    free(s);
}

static void wait_free(struct pool_wait *w)
{
    DL_DELETE(w->pool->waits, w);
    w->pool->waiting--;
    loop_timer_free(&w->timer);
    free(w);
}

/* ---- construction ---- */

static void on_built(void *arg)
{
    struct slot *s = arg;
    s->ready = true;
    s->pool->building--;
    s->pool->ready++;
    s->pool->failed_in_a_row = 0;
    loop_task_post(s->pool->works->loop, &s->pool->serve, pool_serve, s->pool);
    pool_fill(s->pool);
}

static void tell_all(struct pool *p, const char *why)
{
    while (p->waits != NULL) {
        pool_fn *fn = p->waits->fn;
        void *arg = p->waits->arg;
        wait_free(p->waits);
        fn(arg, NULL, why);
    }
}

static void on_gone(void *arg, const char *why)
{
    struct slot *s = arg;
    struct pool *p = s->pool;
    log_error("a cell failed before its use", LF_STR("error", why), LF_BOOL("built", s->ready));
    if (s->ready)
        p->ready--;
    else
        p->building--;
    slot_free(s);
    p->failed_in_a_row++;
    if (p->failed_in_a_row >= GIVE_UP_AFTER)
        tell_all(p, why);
    if (!loop_timer_active(p->retry))
        loop_timer_start(p->retry, RETRY_MS);
}

static void on_unexpected(void *arg, enum wire_type type, uint32_t ticket, struct wire_reader *r,
                          const int *fds, int fd_count)
{
    (void)arg;
    (void)type;
    (void)ticket;
    (void)r;
    (void)fds;
    (void)fd_count;
    BUG("a pooled cell is not live");
}

static void on_unexpected_live(void *arg)
{
    (void)arg;
    BUG("a pooled cell is not live");
}

static const struct cell_events slot_events = {on_built, on_unexpected_live, on_unexpected, on_gone};

static bool build_one(struct pool *p)
{
    struct err err = ERR_INIT;
    struct slot *s = calloc(1, sizeof *s);
    if (s == NULL)
        return false;
    s->pool = p;
    s->cell = cell_new(p->works, &slot_events, s, &err);
    if (s->cell == NULL) {
        log_error("a cell cannot be started", LF_ERR(&err));
        free(s);
        return false;
    }
    DL_APPEND(p->slots, s);
    p->building++;
    return true;
}

static void pool_fill(struct pool *p)
{
    const struct options *o = p->works->options;
    if (loop_timer_active(p->retry))
        return;
    while (p->building < o->build_at_once && p->ready + p->building < o->spare_cells + p->waiting) {
        if (build_one(p))
            continue;
        loop_timer_start(p->retry, RETRY_MS);
        return;
    }
}

static void on_retry(void *arg)
{
    pool_fill(arg);
}

/* ---- hand-out ---- */

static struct slot *ready_slot(struct pool *p)
{
    struct slot *s;
    DL_FOREACH(p->slots, s)
    if (s->ready)
        return s;
    return NULL;
}

static void pool_serve(void *arg)
{
    struct pool *p = arg;
    while (p->waits != NULL && p->ready > 0) {
        struct slot *s = ready_slot(p);
        struct cell *cell = s->cell;
        pool_fn *fn = p->waits->fn;
        void *fn_arg = p->waits->arg;
        p->ready--;
        slot_free(s);
        wait_free(p->waits);
        fn(fn_arg, cell, NULL);
    }
    pool_fill(p);
}

static void on_late(void *arg)
{
    struct pool_wait *w = arg;
    pool_fn *fn = w->fn;
    void *fn_arg = w->arg;
    wait_free(w);
    fn(fn_arg, NULL, "no cell was free in time");
}

struct pool_wait *pool_take(struct pool *p, int64_t deadline_ms, pool_fn *fn, void *arg, struct err *err)
{
    struct pool_wait *w;
    if (p->waiting >= p->works->options->max_queued + p->ready) {
        err_set(err, ERR_OVERLOADED, "too many creates wait");
        return NULL;
    }
    w = calloc(1, sizeof *w);
    if (w != NULL)
        w->timer = loop_timer_new(p->works->loop, on_late, w);
    if (w == NULL || w->timer == NULL) {
        free(w);
        err_set(err, ERR_NO_MEMORY, "create");
        return NULL;
    }
    w->pool = p;
    w->fn = fn;
    w->arg = arg;
    loop_timer_start(w->timer, deadline_ms);
    DL_APPEND(p->waits, w);
    p->waiting++;
    loop_task_post(p->works->loop, &p->serve, pool_serve, p);
    return w;
}

void pool_cancel(struct pool_wait **w)
{
    if (*w == NULL)
        return;
    wait_free(*w);
    *w = NULL;
}

/* ---- life ---- */

struct pool *pool_new(struct cell_works *works)
{
    struct pool *p = calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    p->works = works;
    p->retry = loop_timer_new(works->loop, on_retry, p);
    if (p->retry == NULL) {
        free(p);
        return NULL;
    }
    pool_fill(p);
    return p;
}

void pool_free(struct pool **pool)
{
    struct pool *p = *pool;
    if (p == NULL)
        return;
    while (p->waits != NULL)
        wait_free(p->waits);
    while (p->slots != NULL) {
        cell_kill(&p->slots->cell);
        slot_free(p->slots);
    }
    loop_task_cancel(p->works->loop, &p->serve);
    loop_timer_free(&p->retry);
    free(p);
    *pool = NULL;
}

bool pool_works(const struct pool *p)
{
    return p->ready > 0 || p->failed_in_a_row < GIVE_UP_AFTER;
}
