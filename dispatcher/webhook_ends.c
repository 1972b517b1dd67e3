/* Ends, written together: what ends while one statement is in flight goes with the next. A statement that
 * fails is tried again with the same rows, until the lease of each is over; then the row is anybody's, and is
 * sent once more with the same webhook-id. */
#include <stdlib.h>

#include <utlist.h>

#include "base/log.h"
#include "base/failpoint.h"
#include "webhook_delivery.h"

enum { GROUP = 256, SETTLE_MS = 10000, AGAIN_MS = 200 };

struct webhook_ends {
    struct webhooks *w;
    struct webhook_delivery *waiting, *flight;
    struct loop_timer *again;
    struct loop_task turn;
};

static void flush(void *arg);

static void drop_all(struct webhook_delivery **list)
{
    struct webhook_delivery *d, *next;
    DL_FOREACH_SAFE(*list, d, next)
    {
        DL_DELETE(*list, d);
        delivery_free(d);
    }
}

/* Back to the front, but for those whose row is no longer ours. */
static void give_back(struct webhook_ends *e)
{
    struct webhook_delivery *d, *next;
    mono_t now = loop_now(e->w->d->loop);
    DL_FOREACH_SAFE(e->flight, d, next)
    {
        if (mono_ms_between(d->taken, now) < e->w->lease_ms)
            continue;
        DL_DELETE(e->flight, d);
        delivery_free(d);
    }
    DL_CONCAT(e->flight, e->waiting);
    e->waiting = e->flight;
    e->flight = NULL;
}

static void on_settled(void *arg, const struct err *err)
{
    struct webhook_ends *e = arg;
    if (err != NULL) {
        log_warn("the ends of webhooks could not be recorded; trying again", LF_ERR(err));
        give_back(e);
        loop_timer_start(e->again, AGAIN_MS);
        return;
    }
    FAILPOINT(dispatcher_webhook_done);
    drop_all(&e->flight);
    flush(e);
}

static void flush(void *arg)
{
    struct webhook_ends *e = arg;
    struct webhook_end ends[GROUP];
    size_t n = 0;
    if (e->flight != NULL || e->waiting == NULL || loop_timer_active(e->again))
        return;
    while (e->waiting != NULL && n < GROUP) {
        struct webhook_delivery *d = e->waiting;
        DL_DELETE(e->waiting, d);
        DL_APPEND(e->flight, d);
        ends[n++] = d->end;
    }
    if (webhook_settle(e->w->pg, e->w->d->boot, ends, n, SETTLE_MS, on_settled, e) == 0)
        return;
    give_back(e);
    loop_timer_start(e->again, AGAIN_MS);
}

void webhook_ends_put(struct webhook_ends *e, struct webhook_delivery *d)
{
    d->state = DELIVERY_ENDED;
    DL_APPEND(e->waiting, d);
    loop_task_post(e->w->d->loop, &e->turn, flush, e);
}

struct webhook_ends *webhook_ends_new(struct webhooks *w)
{
    struct webhook_ends *e = calloc(1, sizeof *e);
    if (e == NULL)
        return NULL;
    e->w = w;
    e->again = loop_timer_new(w->d->loop, flush, e);
    if (e->again == NULL)
        webhook_ends_free(&e);
    return e;
}

void webhook_ends_free(struct webhook_ends **e)
{
    if (e == NULL || *e == NULL)
        return;
    drop_all(&(*e)->waiting);
    drop_all(&(*e)->flight);
    loop_task_cancel((*e)->w->d->loop, &(*e)->turn);
    loop_timer_free(&(*e)->again);
    free(*e);
    *e = NULL;
}
