/* Batches as their callers see them: state and counts, lists, results, cancel. All functions take the tenant.
 *
 * Counts: what ended is folded into the batch's row up to a horizon (dispatchers do that), and counted from
 * there on in the same snapshot; so counts always add up, at every look. */
#ifndef STORE_BATCHES_H
#define STORE_BATCHES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "base/str.h"
#include "model/batch.h"
#include "model/invocation.h"
#include "postgres/pg.h"

/* Connections that batches are read or fed on: call it in on_state, when connected. Plans are made once a
 * connection, perhaps while a day's partition is empty: they must not read all of it for that ever after. */
void batch_session(struct pg *pg);

/* Views are valid during the callback. */
struct batch {
    struct uuid id;
    enum inv_priority priority;
    int32_t max_concurrency; /* 0: none */
    int32_t total;
    struct uuid first, last;
    enum batch_state state;
    int32_t ended[INV_ERROR + 1]; /* by enum inv_state */
    int32_t ended_count;          /* of all of them */
    int32_t scheduled;            /* open, and their time has not come */
    wall_t ended_at;              /* 0: not yet */
    struct str metadata;          /* JSON; empty: none */
    struct str open_fed;          /* ids of 16 bytes: open items that the queue may have; batch_get alone */
};

typedef void batches_fn(void *arg, const struct batch *batches, size_t n, const struct err *err);
/* One, or none. */
int batch_get(struct pg *pg, struct uuid id, int32_t tenant, int64_t deadline_ms, batches_fn *fn, void *arg,
              struct err *err);
/* Newest first, those with id < before. */
int batch_list(struct pg *pg, int32_t tenant, struct uuid before, int limit, int64_t deadline_ms,
               batches_fn *fn, void *arg, struct err *err);

/* Puts the cancel on record; of one that is canceled or has ended already, nothing changes. */
typedef void batch_cancel_fn(void *arg, bool found, const struct err *err);
int batch_cancel(struct pg *pg, struct uuid id, int32_t tenant, int64_t deadline_ms, batch_cancel_fn *fn,
                 void *arg, struct err *err);

/* A place in the order of results: after everything that ended at or before it. Zero: the beginning. */
struct batch_place {
    uint64_t xid;
    struct uuid id;
};

struct batch_results {
    const struct batch_place *places; /* one a result, in order */
    size_t n;
    bool found;    /* the batch exists */
    bool complete; /* it has ended, and nothing comes after these */
};
enum { BATCH_RESULTS_PAGE_MAX = 500 };
typedef void batch_results_fn(void *arg, const struct batch_results *page, const struct err *err);
/* first and last: of the batch's items. limit: at most BATCH_RESULTS_PAGE_MAX. */
int batch_results_get(struct pg *pg, struct uuid id, int32_t tenant, struct uuid first, struct uuid last,
                      struct batch_place after, int limit, int64_t deadline_ms, batch_results_fn *fn,
                      void *arg, struct err *err);

#endif
