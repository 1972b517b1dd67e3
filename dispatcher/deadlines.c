/* Queue limits that have passed. */
#include "deadlines.h"

#include <stdlib.h>

#include "feeder.h"
#include "lead.h"
#include "store/sweep.h"

enum { PASS_MS = 500, PAGE = 500 };
#define OVERLAP_US (10 * 1000000LL)  /* what a rebuild or an executor's claim made us leave alone */
#define FIRST_US (86400 * 1000000LL) /* a new leader looks a day back */

struct deadlines {
    struct dispatcher *d;
    struct loop_timer *timer;
    wall_t from; /* where the next pass starts */
    wall_t at;   /* the last row of the page before */
    struct uuid at_id;
    bool running;
};

static void page(struct deadlines *l);

static void on_passed(void *arg, const struct sweep_row *rows, size_t n, const struct err *err)
{
    struct deadlines *l = arg;
    for (size_t i = 0; err == NULL && i < n; i++)
        if (!rows[i].ended && feed_row_expired(&rows[i].job))
            feed_row_ready(l->d, &rows[i].job, rows[i].canceling, rows[i].not_before);
    if (err == NULL && n == PAGE) {
        l->at = rows[n - 1].job.queue_deadline;
        l->at_id = rows[n - 1].job.id;
        page(l);
        return;
    }
    if (err == NULL)
        l->from.us = wall_now().us - OVERLAP_US;
    l->running = false;
}

static void page(struct deadlines *l)
{
    if (sweep_deadlines(l->d->pg, l->at, l->at_id, PAGE, DB_MS, on_passed, l) != 0)
        l->running = false;
}

static void pass(void *arg)
{
    struct deadlines *l = arg;
    if (l->running || !leading(l->d->lead))
        return;
    l->running = true;
    l->at = l->from;
    l->at_id = (struct uuid){0};
    page(l);
}

struct deadlines *deadlines_new(struct dispatcher *d)
{
    struct deadlines *l = calloc(1, sizeof *l);
    if (l == NULL)
        return NULL;
    l->d = d;
    l->from.us = wall_now().us - FIRST_US;
    l->timer = loop_timer_new(d->loop, pass, l);
    if (l->timer == NULL)
        deadlines_free(&l);
    else
        loop_timer_every(l->timer, PASS_MS);
    return l;
}

void deadlines_free(struct deadlines **l)
{
    if (l == NULL || *l == NULL)
        return;
    loop_timer_free(&(*l)->timer);
    free(*l);
    *l = NULL;
}
