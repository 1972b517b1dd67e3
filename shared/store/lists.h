/* Lists of invocations, newest first: one step of a walk over a tenant's ids, bounded whatever the filters.
 *
 * A step examines the next `rows` invocations below `high` and tells which of them match, which one it
 * examined last, and whether there are none below. Who lists takes steps until a page is full or its budget
 * is spent. */
#ifndef STORE_LISTS_H
#define STORE_LISTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/id.h"
#include "base/str.h"
#include "model/invocation.h"
#include "postgres/pg.h"

/* Connections that lists are read on: call it in on_state, when connected. It takes away the plans that read
 * more than a step examines. */
void list_session(struct pg *pg);

enum { LIST_MATCHES_MAX = 256 };

struct list_step {
    int32_t tenant;
    struct uuid low, high; /* low <= id < high */
    int rows;              /* examined at most */
    int matches;           /* told at most: 1 to LIST_MATCHES_MAX */
    bool by_status;
    enum inv_state status; /* INV_NONE: without a result */
    struct uuid agent;     /* zero: any */
    int32_t version;       /* 0: any */
    struct uuid batch;     /* zero: any, or none */
    struct uuid retry_of;  /* only those that repeat this one; zero: all */
    struct str metadata;   /* a JSON object that theirs must contain; empty: any */
};

struct list_found {
    struct uuid ids[LIST_MATCHES_MAX]; /* newest first */
    size_t n;
    int examined;     /* less than step.rows: there are no more in the bounds */
    struct uuid last; /* the oldest that was examined */
};

typedef void list_step_fn(void *arg, const struct list_found *found, const struct err *err);
int list_step(struct pg *pg, const struct list_step *step, int64_t deadline_ms, list_step_fn *fn, void *arg,
              struct err *err);

/* Below it no invocation of any tenant is open (the dispatchers' mark, which lags behind); zero: not known.
 */
typedef void list_low_fn(void *arg, struct uuid low, const struct err *err);
int list_open_low(struct pg *pg, int64_t deadline_ms, list_low_fn *fn, void *arg, struct err *err);

/* The secret that all gateways of a deployment sign cursors with: 32 bytes. */
typedef void list_key_fn(void *arg, struct str key, const struct err *err);
int list_key_get(struct pg *pg, int64_t deadline_ms, list_key_fn *fn, void *arg, struct err *err);

#endif
