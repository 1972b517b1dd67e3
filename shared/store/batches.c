/* Batches as their callers see them. */
#include "store/batches.h"

#include <stdio.h>
#include <stdlib.h>

#include "store/call.h"

/* Items whose time has not come. Rows of what ended stay until that is folded. */
#define SCHEDULED                                                                                          \
    "CASE WHEN b.delayed > 0 THEN ((SELECT count(*) FROM batch_delayed z WHERE z.batch = b.id AND "        \
    "z.not_before > now()) - (SELECT count(*) FROM batch_ended e JOIN batch_delayed z ON z.id = e.id AND " \
    "z.not_before > now() WHERE e.batch = b.id AND e.xid >= b.folded AND e.id BETWEEN b.first AND "        \
    "b.last))::int4 ELSE 0 END"
#define UNFOLDED(status) "count(*) FILTER (WHERE e.status = " #status ")::int4 AS s" #status
#define COLUMNS                                                                                        \
    "b.id, b.priority, b.max_concurrency, b.total, b.first, b.last, b.state, b.ended_at, b.metadata, " \
    "b.succeeded + e.s1, b.failed + e.s2, b.timed_out + e.s3, b.canceled + e.s4, b.expired + e.s5, "   \
    "b.error + e.s6, " SCHEDULED
/* One snapshot for both: a row is counted by the one or the other. */
#define JOIN_UNFOLDED                                                                                 \
    " CROSS JOIN LATERAL (SELECT " UNFOLDED(1) ", " UNFOLDED(2) ", " UNFOLDED(3) ", " UNFOLDED(       \
        4) ", " UNFOLDED(5) ", " UNFOLDED(6) " FROM batch_ended e WHERE e.batch = b.id AND e.xid >= " \
                                             "b.folded AND "                                          \
                                             "e.id BETWEEN b.first AND b.last) e "

/* Open items that the queue may have: two ranges, one of each table. */
static const char sql_get[] =
    "SELECT " COLUMNS
    ", CASE WHEN b.ended_at IS NULL THEN (SELECT string_agg(uuid_send(o.id), ''::bytea) FROM "
    "(SELECT v.id FROM invocations v WHERE v.id BETWEEN b.first AND b.last AND v.id >= b.low AND v.id <= "
    "b.fed "
    "AND v.batch = b.id EXCEPT SELECT r.id FROM results r WHERE r.id BETWEEN b.first AND b.last "
    "AND r.id >= b.low AND r.id <= b.fed EXCEPT SELECT z.id FROM batch_delayed z WHERE z.batch = b.id AND "
    "b.delayed > 0 LIMIT 10000) o) END FROM batches b" JOIN_UNFOLDED "WHERE b.id = $1 AND b.tenant = $2";
static const char sql_list[] =
    "SELECT " COLUMNS ", NULL::bytea FROM (SELECT * FROM batches WHERE tenant = $1 AND id < $2 ORDER BY id "
    "DESC LIMIT $3) b" JOIN_UNFOLDED "ORDER BY b.id DESC";
static const char sql_cancel[] =
    "WITH u AS (UPDATE batches SET state = 1 WHERE id = $1 AND tenant = $2 AND state = 0) "
    "SELECT EXISTS (SELECT FROM batches WHERE id = $1 AND tenant = $2)";
/* Rows of transactions before the oldest running one: nothing can come before them any more. A batch that has
 * ended has all its rows there. */
static const char sql_results[] =
    "SELECT b.ended_at IS NOT NULL, e.xid::text::int8, e.id FROM batches b LEFT JOIN LATERAL "
    "(SELECT x.xid, x.id FROM batch_ended x WHERE x.batch = $1 AND x.id BETWEEN $3 AND $4 "
    "AND (x.xid, x.id) > ($5::xid8, $6) AND x.xid < pg_snapshot_xmin(pg_current_snapshot()) "
    "ORDER BY x.xid, x.id LIMIT $7) e ON true WHERE b.id = $1 AND b.tenant = $2 ORDER BY e.xid, e.id";

static const char sql_session[] = "SELECT set_config('enable_seqscan', 'off', false)";

enum { SESSION_MS = 5000 };

void batch_session(struct pg *pg)
{
    store_query(pg, sql_session, pg_params_new(64), SESSION_MS, store_reply_done, NULL, NULL, NULL);
}

static void read_batch(const struct pg_result *r, int i, struct batch *out)
{
    *out = (struct batch){.id = pg_get_uuid(r, i, 0),
                          .priority = (enum inv_priority)pg_get_int2(r, i, 1),
                          .max_concurrency = pg_get_int4(r, i, 2),
                          .total = pg_get_int4(r, i, 3),
                          .first = pg_get_uuid(r, i, 4),
                          .last = pg_get_uuid(r, i, 5),
                          .state = (enum batch_state)pg_get_int2(r, i, 6),
                          .metadata = pg_get_str(r, i, 8),
                          .scheduled = pg_get_int4(r, i, 15),
                          .open_fed = pg_get_str(r, i, 16)};
    if (!pg_is_null(r, i, 7))
        out->ended_at = pg_get_time(r, i, 7);
    for (int s = INV_SUCCEEDED; s <= INV_ERROR; s++) {
        out->ended[s] = pg_get_int4(r, i, 8 + s);
        out->ended_count += out->ended[s];
    }
}

static void reply_batches(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    struct batch *list = calloc(n + 1, sizeof *list);
    INVARIANT(list != NULL); /* bounded by LIMIT */
    for (size_t i = 0; i < n; i++)
        read_batch(r, (int)i, &list[i]);
    ((batches_fn *)c->fn)(c->arg, list, n, err);
    free(list);
    free(c);
}

int batch_get(struct pg *pg, struct uuid id, int32_t tenant, int64_t deadline_ms, batches_fn *fn, void *arg,
              struct err *err)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL) {
        pg_put_uuid(p, id);
        pg_put_int4(p, tenant);
    }
    return store_query(pg, sql_get, p, deadline_ms, reply_batches, (void (*)(void))fn, arg, err);
}

int batch_list(struct pg *pg, int32_t tenant, struct uuid before, int limit, int64_t deadline_ms,
               batches_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_uuid(p, before);
        pg_put_int8(p, limit);
    }
    return store_query(pg, sql_list, p, deadline_ms, reply_batches, (void (*)(void))fn, arg, err);
}

static void reply_cancel(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    ((batch_cancel_fn *)c->fn)(c->arg, err == NULL && pg_get_bool(r, 0, 0), err);
    free(c);
}

int batch_cancel(struct pg *pg, struct uuid id, int32_t tenant, int64_t deadline_ms, batch_cancel_fn *fn,
                 void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL) {
        pg_put_uuid(p, id);
        pg_put_int4(p, tenant);
    }
    return store_query(pg, sql_cancel, p, deadline_ms, reply_cancel, (void (*)(void))fn, arg, err);
}

static void reply_results(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    struct batch_place places[BATCH_RESULTS_PAGE_MAX];
    struct batch_results page = {.places = places};
    int rows = err == NULL ? pg_rows(r) : 0;
    page.found = rows > 0;
    for (int i = 0; i < rows && i < BATCH_RESULTS_PAGE_MAX && !pg_is_null(r, i, 2); i++)
        places[page.n++] =
            (struct batch_place){.xid = (uint64_t)pg_get_int8(r, i, 1), .id = pg_get_uuid(r, i, 2)};
    page.complete = page.found && page.n == 0 && pg_get_bool(r, 0, 0);
    ((batch_results_fn *)c->fn)(c->arg, &page, err);
    free(c);
}

int batch_results_get(struct pg *pg, struct uuid id, int32_t tenant, struct uuid first, struct uuid last,
                      struct batch_place after, int limit, int64_t deadline_ms, batch_results_fn *fn,
                      void *arg, struct err *err)
{
    char xid[24];
    struct pg_params *p = pg_params_new(256);
    INVARIANT(limit > 0 && limit <= BATCH_RESULTS_PAGE_MAX);
    snprintf(xid, sizeof xid, "%llu", (unsigned long long)after.xid);
    if (p != NULL) {
        pg_put_uuid(p, id);
        pg_put_int4(p, tenant);
        pg_put_uuid(p, first);
        pg_put_uuid(p, last);
        pg_put_text(p, str_of(xid));
        pg_put_uuid(p, after.id);
        pg_put_int8(p, limit);
    }
    return store_query(pg, sql_results, p, deadline_ms, reply_results, (void (*)(void))fn, arg, err);
}
