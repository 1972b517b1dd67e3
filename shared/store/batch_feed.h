/* What dispatchers do to batches: moving the cursor, folding counts, ending what waits of a canceled one.
 * Crosses tenants on purpose. Every statement names the cursor that it goes on from, so two leaders are
 * harmless: the second one changes nothing and is told. */
#ifndef STORE_BATCH_FEED_H
#define STORE_BATCH_FEED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/id.h"
#include "model/batch.h"
#include "model/invocation.h"
#include "postgres/pg.h"

struct batch_open {
    struct uuid id;
    int32_t tenant;
    enum inv_priority priority;
    int32_t max_concurrency; /* 0: none */
    struct uuid first, last, fed;
    enum batch_state state;
    int32_t delayed; /* items that wait for their time: behind the cursor, yet not fed */
};

/* Batches that have not ended, oldest first, after a given one. */
typedef void batch_open_fn(void *arg, const struct batch_open *list, size_t n, const struct err *err);
int batch_open_list(struct pg *pg, struct uuid after, int limit, int64_t deadline_ms, batch_open_fn *fn,
                    void *arg);

/* Open items up to the cursor, oldest first. */
typedef void batch_ids_fn(void *arg, const struct uuid *ids, size_t n, const struct err *err);
int batch_fed_open(struct pg *pg, const struct batch_open *b, int limit, int64_t deadline_ms,
                   batch_ids_fn *fn, void *arg);

/* One step: of the given fed items (sorted) those that are open still; further items fed, so that no more
 * than `most` are open: those whose time has come (they count as open), then those beyond the cursor; and
 * what ended since folded into the counts, up to the horizon. */
struct batch_step {
    bool found; /* it is open, and its cursor was the given one */
    enum batch_state state;
    struct uuid fed;         /* the cursor now */
    const struct uuid *open; /* sorted */
    size_t open_n;
    const struct uuid *added; /* newly fed and open, sorted */
    size_t added_n;
    int32_t delayed; /* now */
    bool ended;      /* this step found its last item ended */
};
typedef void batch_step_fn(void *arg, const struct batch_step *step, const struct err *err);
int batch_step(struct pg *pg, const struct batch_open *b, const struct uuid *fed_open, size_t n, int most,
               int64_t deadline_ms, batch_step_fn *fn, void *arg);

/* Ends up to `limit` items beyond the cursor of a canceled batch as canceled, and moves the cursor past them.
 * boot: the writer's. Told: those that it ended; moved false: there was nothing to do. */
typedef void batch_drop_fn(void *arg, bool moved, struct uuid fed, const struct uuid *ids, size_t n,
                           const struct err *err);
int batch_drop(struct pg *pg, const struct batch_open *b, struct uuid boot, int limit, int64_t deadline_ms,
               batch_drop_fn *fn, void *arg);

/* The same with items that wait for their time, wherever the cursor is. delayed: how many are left. */
typedef void batch_drop_delayed_fn(void *arg, int32_t delayed, const struct uuid *ids, size_t n,
                                   const struct err *err);
int batch_drop_delayed(struct pg *pg, const struct batch_open *b, struct uuid boot, int limit,
                       int64_t deadline_ms, batch_drop_delayed_fn *fn, void *arg);

/* Puts cancels of these invocations of one tenant on record. */
typedef void batch_done_fn(void *arg, const struct err *err);
int batch_cancel_items(struct pg *pg, int32_t tenant, const struct uuid *ids, size_t n, int64_t deadline_ms,
                       batch_done_fn *fn, void *arg);

#endif
