/* Looking for leftovers. */
#include "leftovers.h"

#include <stdlib.h>

#include "reclaim.h"
#include "store/nonce.h"
#include "store/sweep.h"

enum {
    LOOK_ITEMS = 100, /* in one query: rows bring their prompts */
    OLD_MS = 10000,   /* an executor destroys what it knows of sooner than that, as a rule */
};

struct look {
    leftover_fn *fn;
    void *arg;
    size_t n;
    struct sandbox_listed items[LOOK_ITEMS];
};

/* Later attempts than the nonce can tell are over with their invocation. */
static bool is_over(const struct sweep_row *row, int attempt)
{
    return row->ended || (attempt > 0 && row->job.attempt > attempt);
}

static void on_rows(void *arg, const struct sweep_row *rows, size_t n, const struct err *err)
{
    struct look *l = arg;
    for (size_t i = 0; err == NULL && i < l->n; i++) {
        int attempt;
        struct uuid id = nonce_read(l->items[i].nonce, &attempt);
        for (size_t k = 0; k < n; k++)
            if (uuid_eq(rows[k].job.id, id) && is_over(&rows[k], attempt))
                l->fn(l->arg, &l->items[i]);
    }
    free(l);
}

static void ask(struct dispatcher *d, struct look *l)
{
    struct uuid ids[LOOK_ITEMS];
    int attempt;
    for (size_t i = 0; i < l->n; i++)
        ids[i] = nonce_read(l->items[i].nonce, &attempt);
    if (l->n == 0 || sweep_ids(d->pg, ids, l->n, DB_MS, on_rows, l) != 0)
        free(l);
}

/* One that is from the future tells of clocks that differ; asking about it does no harm. */
static bool is_old(const struct sandbox_listed *s)
{
    int64_t age_ms = (wall_now().us - s->started_at.us) / 1000;
    return age_ms > OLD_MS || age_ms < -OLD_MS;
}

static struct look *look_new(leftover_fn *fn, void *arg)
{
    struct look *l = malloc(sizeof *l);
    if (l != NULL) {
        l->fn = fn;
        l->arg = arg;
        l->n = 0;
    }
    return l;
}

void leftovers_look(struct dispatcher *d, const struct sandbox_listed *items, size_t n, leftover_fn *fn,
                    void *arg)
{
    struct look *l = look_new(fn, arg);
    for (size_t i = 0; l != NULL && i < n; i++) {
        if (!is_old(&items[i]) || !reclaim_alive(d->reclaim, items[i].executor_boot))
            continue;
        l->items[l->n++] = items[i];
        if (l->n < LOOK_ITEMS)
            continue;
        ask(d, l);
        l = look_new(fn, arg);
    }
    if (l != NULL)
        ask(d, l);
}
