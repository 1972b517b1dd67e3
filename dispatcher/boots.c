/* Dead gateways. One at a time: found -> fenced -> open tenants marked -> row deleted. */
#include "boots.h"

#include <stdlib.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "lead.h"
#include "store/sweep.h"

enum { PASS_MS = 500, DEAD_MS = 4000 };

struct boots {
    struct dispatcher *d;
    struct loop_timer *timer;
    bool running;
    struct uuid boot;
};

static void on_deleted(void *arg, const struct err *err)
{
    struct boots *b = arg;
    b->running = false;
    if (err == NULL)
        log_info("a dead gateway's jobs were handed over");
}

static void on_marked(void *arg, const struct err *err)
{
    struct boots *b = arg;
    FAILPOINT(dispatcher_boot_marked);
    if (err != NULL || boot_end(b->d->pg, b->boot, DB_MS, on_deleted, b) != 0)
        b->running = false;
}

static void on_open(void *arg, const struct sweep_open *tenants, size_t n, const struct err *err)
{
    struct boots *b = arg;
    struct queue_mark *marks = err == NULL ? calloc(n + 1, sizeof *marks) : NULL;
    if (marks == NULL) {
        b->running = false;
        return;
    }
    for (size_t i = 0; i < n; i++)
        marks[i] = (struct queue_mark){.tenant = tenants[i].tenant, .low = tenants[i].oldest};
    if (n == 0)
        on_marked(b, NULL);
    else if (queue_mark(b->d->queue, marks, n, on_marked, b) != 0)
        b->running = false;
    free(marks);
}

static void on_dead(void *arg, bool found, struct uuid boot, struct uuid low, bool fenced,
                    const struct err *err)
{
    struct boots *b = arg;
    b->running = false;
    if (err != NULL || !found)
        return;
    if (!fenced) {
        log_info("a dead gateway's connections are being ended");
        return; /* the next pass looks again */
    }
    FAILPOINT(dispatcher_boot);
    b->boot = boot;
    b->running = sweep_open_tenants(b->d->pg, low, DB_MS, on_open, b) == 0;
}

static void pass(void *arg)
{
    struct boots *b = arg;
    if (!b->running && leading(b->d->lead))
        b->running = boot_find_dead(b->d->pg, DEAD_MS, DB_MS, on_dead, b) == 0;
}

struct boots *boots_new(struct dispatcher *d)
{
    struct boots *b = calloc(1, sizeof *b);
    if (b == NULL)
        return NULL;
    b->d = d;
    b->timer = loop_timer_new(d->loop, pass, b);
    if (b->timer == NULL)
        boots_free(&b);
    else
        loop_timer_every(b->timer, PASS_MS);
    return b;
}

void boots_free(struct boots **b)
{
    if (b == NULL || *b == NULL)
        return;
    loop_timer_free(&(*b)->timer);
    free(*b);
    *b = NULL;
}
