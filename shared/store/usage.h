/* Sums of usage: read by gateways, folded by dispatchers. They are written by whoever inserts results or
 * usage (store/usage_sql.h). */
#ifndef STORE_USAGE_H
#define STORE_USAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/id.h"
#include "base/str.h"
#include "postgres/pg.h"

/* ---- reading ---- */

enum { USAGE_STATES = 6 }; /* from INV_SUCCEEDED to INV_ERROR */

struct usage_sums {
    int64_t ended[USAGE_STATES]; /* invocations, by how they ended: [INV_FAILED - INV_SUCCEEDED] … */
    int64_t attempts;            /* that held a sandbox, whatever became of them */
    int64_t sandbox_ms, run_ms, cpu_ms;
    struct str input_tokens, output_tokens, cost_usd; /* decimal numbers of any size */
};

/* Where a group stands in their order. Members that are not grouped by are 0. */
struct usage_place {
    int32_t day; /* since 1970-01-01, UTC; -1: before all groups */
    struct uuid agent, key;
};

struct usage_group {
    struct usage_place place;
    struct str agent, key; /* names; empty: there is none any more */
    struct usage_sums sums;
};

struct usage_query {
    int32_t tenant;
    int32_t from, to; /* days, both inclusive */
    bool by_day, by_agent, by_key;
    struct str agent; /* its name; empty: of all */
    bool has_key;
    struct uuid key;
    struct usage_place after;
    int limit;
};

/* agent_found, key_found: false when the filter names one that the tenant does not have. totals are of all
 * groups, whichever page it is. Views are valid during the callback. */
struct usage_answer {
    bool agent_found, key_found;
    struct usage_sums totals;
    const struct usage_group *groups;
    size_t n;
};
typedef void usage_fn(void *arg, const struct usage_answer *answer, const struct err *err);
/* Groups in the order of their places, up to limit behind `after`. Exact at its moment: what is folded and
 * what is not are read in one snapshot. The tenant's rows of those days are read, for every page. */
int usage_get(struct pg *pg, const struct usage_query *q, int64_t deadline_ms, usage_fn *fn, void *arg,
              struct err *err);

/* ---- folding ---- */

typedef void usage_fold_fn(void *arg, int64_t folded, const struct err *err);
/* Adds up to limit deltas to their days' rows, and deletes them, in one statement. One process folds at a
 * time: others find nothing to do. */
int usage_fold(struct pg *pg, int limit, int64_t deadline_ms, usage_fold_fn *fn, void *arg);

#endif
