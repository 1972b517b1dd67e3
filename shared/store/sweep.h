/* What dispatchers read and repair in PostgreSQL. Everything here crosses tenants on purpose and is used by
 * no gateway; everything is idempotent, so two leaders are harmless. */
#ifndef STORE_SWEEP_H
#define STORE_SWEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "postgres/pg.h"
#include "store/entry.h"

/* Why an attempt ended: its executor crashed over this very job. These are counted; attempts.blames counts
 * all that were lost with their executor, whosever fault it was. */
#define SWEEP_CRASHED "executor_crashed"

/* An invocation as the sweeps see it; job.prompt is a view, valid during the callback. */
struct sweep_row {
    struct entry job; /* attempt and counters are those of the newest attempt */
    bool ended;       /* has a result */
    bool canceling;
    bool batched;    /* of a batch */
    int16_t crashes; /* of executors, that it is blamed for */
    bool unfed;      /* not its batch's turn yet: it may be settled, never enqueued; sweep_all alone tells */
    wall_t not_before; /* of the newest attempt; 0 for the first */
};
typedef void sweep_fn(void *arg, const struct sweep_row *rows, size_t n, const struct err *err);

/* A tenant's invocations of one priority with after < id <= upto, oldest first, ended ones included (without
 * prompt), so that a cursor moves on. Those of no batch. */
int sweep_tenant(struct pg *pg, int32_t tenant, enum inv_priority priority, struct uuid after,
                 struct uuid upto, int limit, int64_t deadline_ms, sweep_fn *fn, void *arg);

/* All tenants' invocations with after < id <= upto, oldest first, ended ones included. */
int sweep_all(struct pg *pg, struct uuid after, struct uuid upto, int limit, int64_t deadline_ms,
              sweep_fn *fn, void *arg);

/* Newest attempts of open invocations that are due (first ones that begin later, and all after the first),
 * with (not_before, id) after the given pair.
 */
int sweep_due(struct pg *pg, wall_t after, struct uuid after_id, int limit, int64_t deadline_ms, sweep_fn *fn,
              void *arg);

/* Invocations with a queue limit below 24 h that has passed, with (deadline, id) after the given pair, ended
 * ones included. */
int sweep_deadlines(struct pg *pg, wall_t after, struct uuid after_id, int limit, int64_t deadline_ms,
                    sweep_fn *fn, void *arg);

/* The given invocations, open or not, oldest first; absent ones are left out. */
int sweep_ids(struct pg *pg, const struct uuid *ids, size_t n, int64_t deadline_ms, sweep_fn *fn, void *arg);

/* For each tenant with open invocations of no batch at or above low: the oldest. */
struct sweep_open {
    int32_t tenant;
    struct uuid oldest;
};
typedef void sweep_open_fn(void *arg, const struct sweep_open *tenants, size_t n, const struct err *err);
int sweep_open_tenants(struct pg *pg, struct uuid low, int64_t deadline_ms, sweep_open_fn *fn, void *arg);

/* Builds that wait or run: entries of kind ENTRY_BUILD, attempt 1. */
typedef void sweep_builds_fn(void *arg, const struct entry *builds, size_t n, const struct err *err);
int sweep_builds(struct pg *pg, int limit, int64_t deadline_ms, sweep_builds_fn *fn, void *arg);

/* Where repeated passes start. A mark that was never set reads as zero. */
typedef void mark_fn(void *arg, struct uuid id, const struct err *err);
int mark_get(struct pg *pg, struct str name, int64_t deadline_ms, mark_fn *fn, void *arg);
int mark_set(struct pg *pg, struct str name, struct uuid id, int64_t deadline_ms);

typedef void sweep_done_fn(void *arg, const struct err *err);
/* The coming days' partitions; expired idempotency keys; chunks of uploads that came to nothing. */
int sweep_partitions(struct pg *pg, int64_t deadline_ms, sweep_done_fn *fn, void *arg);
int sweep_expired(struct pg *pg, int64_t deadline_ms, sweep_done_fn *fn, void *arg);

/* ---- gateways' boots ---- */

/* Keeps a gateway's row: everything it committed below low was handed to Redis. */
int boot_keep(struct pg *pg, struct uuid boot, struct uuid low, int64_t deadline_ms, sweep_done_fn *fn,
              void *arg);
int boot_end(struct pg *pg, struct uuid boot, int64_t deadline_ms, sweep_done_fn *fn, void *arg);
/* The name under which a gateway's connections are found: "sandpiper-gateway <boot>". */
enum { BOOT_NAME_BYTES = 64 };
void boot_application(struct uuid boot, char out[BOOT_NAME_BYTES]);
/* Taken in shared mode, per session, by each of a gateway's writing connections. */
int boot_lock(struct pg *pg, struct uuid boot, int64_t deadline_ms, sweep_done_fn *fn, void *arg);

/* One boot that was not seen for dead_ms: its backends are terminated; fenced says that none is left (its
 * lock was had), so that no commit of its is pending any more. found false: no such boot. */
typedef void boot_dead_fn(void *arg, bool found, struct uuid boot, struct uuid low, bool fenced,
                          const struct err *err);
int boot_find_dead(struct pg *pg, int64_t dead_ms, int64_t deadline_ms, boot_dead_fn *fn, void *arg);

/* The clock of PostgreSQL. */
typedef void clock_fn(void *arg, wall_t theirs, const struct err *err);
int clock_get(struct pg *pg, int64_t deadline_ms, clock_fn *fn, void *arg);

#endif
