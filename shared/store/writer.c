/* Group commit. Two lanes (small, large), each with at most one statement in flight; a lane is a small
 * machine:
 *
 *   idle -> (row arrives; next turn) send -> in flight -> committed        -> send more or idle
 *                                                      -> data error       -> halves go to `redo`, each sent
 * alone
 *                                                      -> not known, down  -> rows back to `waiting`, pause,
 * again
 *
 * `redo` holds groups that must be sent as they are; they go before new groups.
 *
 * The large lane, while it has nothing of its own, helps: when enough small rows wait behind a statement in
 * flight, it takes them. So one group is made while another commits, and neither database nor caller idles.
 */
#include "store/writer.h"

#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"

enum { TRY_MS = 5000, PAUSE_MS = 100, PARAM_BYTES = 24 * 1024 * 1024, HELP_ROWS = 16 };

struct group {
    struct group *next;
    size_t n;
    struct writer_row *rows[];
};

struct lane {
    struct writer *w;
    struct pg *pg;
    struct writer_row *waiting, **waiting_end;
    size_t waiting_n;
    struct group *redo;
    struct group *flight;
    struct pg_request *request;
    struct loop_task task;
    struct loop_timer *pause;
    struct pg_params *params;
    bool large; /* made for large rows */
};

struct writer {
    struct loop *loop;
    const struct writer_ops *ops;
    void *arg;
    size_t max_bytes, bytes, rows;
    struct lane small, large;
};

static void lane_turn(void *arg);
static void on_reply(void *arg, const struct pg_result *result, const struct err *err);

static int lane_init(struct lane *l, struct writer *w, struct pg *pg, bool large)
{
    *l = (struct lane){.w = w, .pg = pg, .large = large};
    l->waiting_end = &l->waiting;
    l->pause = loop_timer_new(w->loop, lane_turn, l);
    l->params = pg_params_new(PARAM_BYTES);
    return l->pause != NULL && l->params != NULL ? 0 : -1;
}

static void lane_deinit(struct lane *l)
{
    if (l->w == NULL)
        return;
    pg_cancel(&l->request);
    loop_task_cancel(l->w->loop, &l->task);
    loop_timer_free(&l->pause);
    pg_params_free(&l->params);
    free(l->flight);
    for (struct group *g = l->redo, *next; g != NULL; g = next) {
        next = g->next;
        free(g);
    }
}

struct writer *writer_new(struct loop *loop, struct pg *small, struct pg *large, const struct writer_ops *ops,
                          void *arg, size_t max_bytes)
{
    struct writer *w = calloc(1, sizeof *w);
    if (w == NULL)
        return NULL;
    *w = (struct writer){.loop = loop, .ops = ops, .arg = arg, .max_bytes = max_bytes};
    if (lane_init(&w->small, w, small, false) != 0 || lane_init(&w->large, w, large, true) != 0)
        writer_free(&w);
    return w;
}

void writer_free(struct writer **w)
{
    if (w == NULL || *w == NULL)
        return;
    lane_deinit(&(*w)->small);
    lane_deinit(&(*w)->large);
    free(*w);
    *w = NULL;
}

size_t writer_rows(const struct writer *w)
{
    return w->rows;
}

size_t writer_bytes(const struct writer *w)
{
    return w->bytes;
}

/* ---- rows in and out ---- */

static bool is_large(const struct writer_row *row)
{
    return row->is_large || row->bytes > WRITER_LARGE_BYTES;
}

static struct lane *lane_of(struct writer *w, const struct writer_row *row)
{
    return is_large(row) ? &w->large : &w->small;
}

static void lane_push(struct lane *l, struct writer_row *row)
{
    row->next = NULL;
    *l->waiting_end = row;
    l->waiting_end = &row->next;
    l->waiting_n++;
}

static struct writer_row *lane_pop(struct lane *l)
{
    struct writer_row *row = l->waiting;
    if (row == NULL)
        return NULL;
    l->waiting = row->next;
    if (l->waiting == NULL)
        l->waiting_end = &l->waiting;
    l->waiting_n--;
    return row;
}

/* Small rows behind a statement in flight: enough of them for another statement, and the large lane is free.
 */
static bool help_is_due(const struct writer *w)
{
    const struct lane *s = &w->small, *l = &w->large;
    return s->flight != NULL && s->waiting_n >= HELP_ROWS && s->waiting_n >= s->flight->n / 2 &&
           l->pg != s->pg && pg_connected(l->pg) && l->flight == NULL && l->redo == NULL &&
           l->waiting == NULL && !loop_timer_active(l->pause);
}

int writer_put(struct writer *w, struct writer_row *row, struct err *err)
{
    if (w->bytes + row->bytes > w->max_bytes && w->rows > 0)
        return err_set(err, ERR_OVERLOADED, "too much waits to be written (%zu bytes)", w->bytes);
    struct lane *l = lane_of(w, row);
    row->sent = false;
    w->bytes += row->bytes;
    w->rows++;
    lane_push(l, row);
    if (l->flight == NULL && !loop_timer_active(l->pause))
        loop_task_post(w->loop, &l->task, lane_turn, l);
    else if (help_is_due(w))
        loop_task_post(w->loop, &w->large.task, lane_turn, &w->large);
    return 0;
}

static void row_end(struct writer *w, struct writer_row *row, const struct err *err)
{
    w->bytes -= row->bytes;
    w->rows--;
    w->ops->done(w->arg, row, err);
}

/* ---- groups ---- */

static struct group *group_new(size_t n)
{
    struct group *g = calloc(1, sizeof *g + n * sizeof g->rows[0]);
    if (g != NULL)
        g->n = n;
    return g;
}

static int by_key(const void *a, const void *b)
{
    const struct writer_row *const *ra = a, *const *rb = b;
    return uuid_cmp((*ra)->key, (*rb)->key);
}

/* As many waiting rows as one statement takes, sorted; NULL when none wait (or without memory: later). */
static struct group *group_collect(struct lane *l)
{
    size_t cap = l->waiting_n < WRITER_GROUP_ROWS ? l->waiting_n : WRITER_GROUP_ROWS, bytes = 0;
    struct group *g = cap > 0 ? group_new(cap) : NULL;
    if (g == NULL)
        return NULL;
    g->n = 0;
    while (g->n < cap && (g->n == 0 || bytes + l->waiting->bytes <= WRITER_GROUP_BYTES)) {
        bytes += l->waiting->bytes;
        g->rows[g->n++] = lane_pop(l);
    }
    qsort(g->rows, g->n, sizeof g->rows[0], by_key);
    return g;
}

static struct group *group_part(const struct group *g, size_t from, size_t n)
{
    struct group *part = group_new(n);
    if (part != NULL)
        memcpy(part->rows, g->rows + from, n * sizeof part->rows[0]);
    return part;
}

/* ---- sending ---- */

static void lane_pause(struct lane *l)
{
    loop_timer_start(l->pause, PAUSE_MS);
}

/* Rows whose time is up end here; the others wait again. */
static void group_give_back(struct lane *l, struct group *g)
{
    mono_t now = loop_now(l->w->loop);
    struct err late;
    for (size_t i = 0; i < g->n; i++) {
        struct writer_row *row = g->rows[i];
        if (mono_before(now, row->deadline)) {
            lane_push(lane_of(l->w, row), row);
            continue;
        }
        if (row->sent)
            err_set(&late, ERR_OUTCOME_UNKNOWN, "the database did not confirm the commit in time");
        else
            err_set(&late, ERR_UNAVAILABLE, "the database is not available");
        row_end(l->w, row, &late);
    }
    free(g);
    struct lane *small = &l->w->small; /* it may idle while a helper gives rows back */
    if (l != small && small->waiting != NULL && !loop_timer_active(small->pause))
        loop_task_post(l->w->loop, &small->task, lane_turn, small);
}

static int64_t try_ms(const struct lane *l, const struct group *g)
{
    int64_t least = TRY_MS;
    for (size_t i = 0; i < g->n; i++) {
        int64_t left = mono_ms_between(loop_now(l->w->loop), g->rows[i]->deadline);
        least = left < least ? left : least;
    }
    return least > 50 ? least : 50;
}

static bool has_large(const struct group *g)
{
    for (size_t i = 0; i < g->n; i++)
        if (is_large(g->rows[i]))
            return true;
    return false;
}

static void group_send(struct lane *l, struct group *g)
{
    const struct writer_ops *ops = l->w->ops;
    bool large = has_large(g);
    pg_params_clear(l->params);
    ops->encode(l->params, g->rows, g->n, large);
    FAILPOINT(commit_begin);
    l->flight = g;
    l->request =
        pg_query(l->pg, large ? ops->sql_large : ops->sql, l->params, try_ms(l, g), on_reply, l, NULL);
    FAILPOINT(commit_sent);
    if (l->request != NULL)
        return;
    l->flight = NULL;
    group_give_back(l, g);
    lane_pause(l);
}

static void lane_turn(void *arg)
{
    struct lane *l = arg;
    if (l->flight != NULL)
        return;
    struct group *g = l->redo;
    if (g != NULL)
        l->redo = g->next;
    else if (l->waiting == NULL && l->large && help_is_due(l->w))
        g = group_collect(&l->w->small);
    else
        g = group_collect(l);
    if (g != NULL)
        group_send(l, g);
    else if (l->waiting_n > 0)
        lane_pause(l); /* no memory for a group */
}

/* ---- answers ---- */

static void group_committed(struct lane *l, struct group *g, const struct pg_result *result)
{
    FAILPOINT(commit_done);
    if (l->w->ops->apply != NULL)
        l->w->ops->apply(g->rows, g->n, result);
    for (size_t i = 0; i < g->n; i++)
        row_end(l->w, g->rows[i], NULL);
    free(g);
}

/* One bad row alone gets its answer; otherwise each half is tried alone. */
static void group_bisect(struct lane *l, struct group *g, const struct err *err)
{
    if (g->n == 1) {
        row_end(l->w, g->rows[0], err);
        free(g);
        return;
    }
    size_t half = g->n / 2;
    struct group *a = group_part(g, 0, half), *b = group_part(g, half, g->n - half);
    if (a == NULL || b == NULL) {
        free(a);
        free(b);
        group_give_back(l, g);
        lane_pause(l);
        return;
    }
    free(g);
    b->next = l->redo;
    a->next = b;
    l->redo = a;
}

static void on_reply(void *arg, const struct pg_result *result, const struct err *err)
{
    struct lane *l = arg;
    struct group *g = l->flight;
    l->flight = NULL;
    l->request = NULL;
    if (err == NULL || err->code != ERR_TIMEOUT)
        for (size_t i = 0; i < g->n; i++)
            g->rows[i]->sent = true;
    if (err == NULL) {
        group_committed(l, g, result);
    } else if (err->code == ERR_PG_DATA) {
        group_bisect(l, g, err);
    } else {
        group_give_back(l, g);
        lane_pause(l);
    }
    if (!loop_timer_active(l->pause))
        loop_task_post(l->w->loop, &l->task, lane_turn, l);
}
