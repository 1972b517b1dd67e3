/* What dispatchers do to batches.
 *
 * A batch's items are adjacent in the primary key of invocations, so every look at a part of one is a range
 * of it. */
#include "store/batch_feed.h"

#include <stdlib.h>

#include "store/call.h"
#include "store/usage_sql.h"
#include "store/webhook_sql.h"

static const char sql_open_list[] =
    "SELECT id, tenant, priority, max_concurrency, first, last, fed, state, delayed FROM batches "
    "WHERE ended_at IS NULL AND id > $1 ORDER BY id LIMIT $2";

/* Items without a result are found by two ranges, one of each table: a probe an item costs ten times as much.
 */
static const char sql_fed_open[] =
    "SELECT o.id FROM batches b, LATERAL (SELECT v.id FROM invocations v WHERE v.id BETWEEN $3 AND $4 AND "
    "v.id >= "
    "b.low AND v.id <= b.fed AND v.batch = b.id EXCEPT SELECT r.id FROM results r WHERE r.id BETWEEN $3 AND "
    "$4 "
    "AND r.id >= b.low AND r.id <= b.fed EXCEPT SELECT z.id FROM batch_delayed z WHERE z.batch = b.id AND "
    "b.delayed > 0) o WHERE b.id = $1 ORDER BY o.id LIMIT $2";

#define COUNT(status) "count(*) FILTER (WHERE e.status = " #status ")::int4 AS s" #status
/* Scalars, not joins: so both are bounds of the index. */
#define STEP_ENDED                                                                                      \
    "d AS (SELECT count(*)::int4 AS n, " COUNT(1) ", " COUNT(2) ", " COUNT(3) ", " COUNT(4) ", " COUNT( \
        5) ", " COUNT(6) " FROM batch_ended e WHERE e.batch = $1 AND e.id BETWEEN $3 AND $4 "           \
                         "AND e.xid >= (SELECT folded FROM b) AND e.xid < (SELECT x FROM h)), "
/* The given ids as keys of one scan; then the page's range in both tables. */
#define STEP_OPEN                                                                                         \
    "o AS MATERIALIZED (SELECT w.id FROM unnest($5::uuid[]) AS w (id) EXCEPT SELECT r.id FROM results r " \
    "WHERE r.id = ANY ($5) AND r.id BETWEEN $3 AND $4), "
#define STEP_PAGE(room, ended)                                                                            \
    "q AS MATERIALIZED (SELECT x.id FROM b, LATERAL (SELECT x.id FROM invocations x WHERE x.id > $2 AND " \
    "x.id BETWEEN $3 AND $4 AND x.batch = $1 AND b.state = 0 ORDER BY x.id "                              \
    "LIMIT greatest($6 - " room ", 0)) x), "                                                              \
    "n AS MATERIALIZED (SELECT coalesce((SELECT id FROM q ORDER BY id DESC LIMIT 1), $2) AS fed), "       \
    "p AS MATERIALIZED (SELECT q.id FROM q EXCEPT (SELECT r.id FROM n, LATERAL (SELECT r.id FROM "        \
    "results r WHERE r.id > $2 AND r.id <= n.fed AND r.id BETWEEN $3 AND $4) r" ended ")), "
/* The event of a batch that ends with this step, in its transaction (7: WEBHOOK_BATCH_COMPLETED). */
#define STEP_EVENT                                                                                           \
    "w AS MATERIALIZED (SELECT sandpiper_event(u.id, u.tenant, 7::int2, json_build_object('id', 'bat_' || "  \
    "u.id, 'status', CASE u.state WHEN 2 THEN 'completed' ELSE 'canceled' END, 'total', u.total, 'counts', " \
    "json_build_object('succeeded', u.succeeded, 'failed', u.failed, 'timed_out', u.timed_out, "             \
    "'canceled', u.canceled, 'expired', u.expired, 'error', u.error), 'ended_at', to_char(u.ended_at AT "    \
    "TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), 'results_url', '/v1/batches/bat_' || u.id || "   \
    "'/results')::text) FROM u WHERE u.ended) "
#define STEP_ALL "(t.succeeded + t.failed + t.timed_out + t.canceled + t.expired + t.error + d.n) = t.total"
#define STEP_UPDATE(low, set, moved)                                                                      \
    "u AS (UPDATE batches t SET fed = n.fed, low = coalesce((SELECT id FROM (SELECT id FROM o UNION ALL " \
    "SELECT id FROM p" low ") z ORDER BY id LIMIT 1), n.fed), succeeded = t.succeeded + d.s1, "           \
    "failed = t.failed + d.s2, timed_out = t.timed_out + d.s3, canceled = t.canceled + d.s4, "            \
    "expired = t.expired + d.s5, error = t.error + d.s6, folded = h.x, "                                  \
    "ended_at = CASE WHEN " STEP_ALL " THEN now() END, "                                                  \
    "state = CASE WHEN " STEP_ALL " THEN t.state + 2 ELSE t.state END " set                               \
    "FROM b, h, d, n WHERE t.id = $1 AND t.fed = $2 AND t.folded = b.folded AND t.state = b.state "       \
    "AND (d.n > 0 OR EXISTS (SELECT FROM q)" moved                                                        \
    ") RETURNING t.*, t.ended_at IS NOT NULL AS ended), " STEP_EVENT
#define STEP_TOLD                                                                             \
    "SELECT 0::int2, coalesce((SELECT fed FROM u), b.fed), EXISTS (SELECT FROM u), b.state, " \
    "coalesce((SELECT ended FROM u), false) AND (SELECT count(*) >= 0 FROM w), "              \
    "coalesce((SELECT delayed FROM u), b.delayed) FROM b "                                    \
    "UNION ALL SELECT 1::int2, id, true, 0::int2, false, 0 FROM o "                           \
    "UNION ALL SELECT 2::int2, id, true, 0::int2, false, 0 FROM p"
/* o: still open; q: the next page, p: what is open of it; d: what ended before the horizon h and is not
 * folded. u has a row when something is to change and nobody else has changed it meanwhile. */
static const char sql_step[] =
    "WITH b AS (SELECT * FROM batches WHERE id = $1 AND fed = $2 AND ended_at IS NULL), "
    "h AS (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS x), " STEP_ENDED STEP_OPEN STEP_PAGE(
        "(SELECT count(*) FROM o)", "") STEP_UPDATE("", "", "") STEP_TOLD " ORDER BY 1, 2";

/* The same where items wait for their time ($7: how many). g: those whose time has come, behind the cursor:
 * they are fed with their rows gone. c: rows of what ended meanwhile. They have no row in common, and b is
 * locked: of two leaders one takes rows away. */
#define STEP_DELAYED                                                                                        \
    "c AS (DELETE FROM batch_delayed z USING b, batch_ended e WHERE e.batch = $1 AND e.id BETWEEN $3 AND "  \
    "$4 "                                                                                                   \
    "AND e.xid >= b.folded AND e.xid < (SELECT x FROM h) AND z.id = e.id RETURNING z.id), "                 \
    "g AS (DELETE FROM batch_delayed z USING (SELECT y.id FROM b, LATERAL (SELECT y.id FROM batch_delayed " \
    "y WHERE y.batch = $1 AND y.not_before <= now() AND y.id <= $2 AND b.state = 0 AND NOT EXISTS (SELECT " \
    "FROM results r WHERE r.id = y.id AND r.id BETWEEN $3 AND $4) ORDER BY y.not_before, y.id "             \
    "LIMIT greatest($6 - (SELECT count(*) FROM o), 0)) y) y WHERE z.id = y.id RETURNING z.id), "
static const char sql_step_delayed[] =
    "WITH b AS MATERIALIZED (SELECT * FROM batches WHERE id = $1 AND fed = $2 AND ended_at IS NULL AND "
    "delayed "
    "= $7 FOR UPDATE), h AS (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS x), " STEP_ENDED STEP_OPEN
        STEP_DELAYED STEP_PAGE(
            "(SELECT count(*) FROM o) - (SELECT count(*) FROM g)",
            " UNION ALL SELECT z.id FROM n, LATERAL (SELECT z.id FROM batch_delayed z WHERE "
            "z.id > $2 AND z.id <= n.fed AND z.batch = $1) z")
            STEP_UPDATE(
                " UNION ALL SELECT id FROM g",
                ", delayed = t.delayed - (SELECT count(*) FROM c)::int4 - (SELECT count(*) FROM g)::int4 ",
                " OR EXISTS (SELECT FROM c) OR EXISTS (SELECT FROM g)") STEP_TOLD
    " UNION ALL SELECT 1::int2, id, true, 0::int2, false, 0 FROM g ORDER BY 1, 2";

static const char sql_drop[] =
    "WITH b AS (SELECT * FROM batches WHERE id = $1 AND fed = $2 AND state = 1 FOR UPDATE), "
    "p AS MATERIALIZED (SELECT x.id, b.tenant FROM b, LATERAL (SELECT v.id FROM invocations v WHERE v.id > "
    "$2 AND v.id BETWEEN $3 AND $4 AND v.batch = $1 ORDER BY v.id LIMIT $6) x), "
    "r AS (INSERT INTO results (id, tenant, attempt, boot, status, output, output_bytes, output_truncated, "
    "logs, logs_bytes, logs_truncated, finished_at, counted) SELECT id, tenant, 1::int2, $5, 4::int2, "
    "''::bytea, "
    "0::int8, false, ''::bytea, 0::int8, false, now(), true FROM p ORDER BY id ON CONFLICT (id) DO NOTHING "
    "RETURNING id, tenant, status, finished_at), " USAGE_DELTAS_SQL(USAGE_OF_RESULTS, "$3", "$4")
        WEBHOOK_OUTBOX_SQL(
            "$3", "$4") "e AS (INSERT INTO batch_ended (batch, id, status) SELECT $1, id, 4::int2 FROM r), "
                        "u AS (UPDATE batches t SET fed = (SELECT id FROM p ORDER BY id DESC LIMIT 1) FROM b "
                        "WHERE t.id = b.id AND EXISTS (SELECT FROM p) RETURNING t.fed) "
                        "SELECT 0::int2, fed FROM u UNION ALL SELECT 1::int2, id FROM r ORDER BY 1, 2";

static const char sql_drop_delayed[] =
    "WITH b AS MATERIALIZED (SELECT * FROM batches WHERE id = $1 AND state = 1 FOR UPDATE), "
    "p AS (DELETE FROM batch_delayed z USING (SELECT y.id, b.tenant FROM b, LATERAL (SELECT y.id FROM "
    "batch_delayed y WHERE y.batch = $1 ORDER BY y.not_before, y.id LIMIT $5) y) y WHERE z.id = y.id "
    "RETURNING "
    "z.id, y.tenant), "
    "r AS (INSERT INTO results (id, tenant, attempt, boot, status, output, output_bytes, output_truncated, "
    "logs, logs_bytes, logs_truncated, finished_at, counted) SELECT id, tenant, 1::int2, $4, 4::int2, "
    "''::bytea, "
    "0::int8, false, ''::bytea, 0::int8, false, now(), true FROM p ORDER BY id ON CONFLICT (id) DO NOTHING "
    "RETURNING id, tenant, status, finished_at), " USAGE_DELTAS_SQL(USAGE_OF_RESULTS, "$2", "$3")
        WEBHOOK_OUTBOX_SQL(
            "$2",
            "$3") "e AS (INSERT INTO batch_ended (batch, id, status) SELECT $1, id, 4::int2 FROM r), "
                  "u AS (UPDATE batches t SET delayed = t.delayed - (SELECT count(*) FROM p)::int4 FROM b "
                  "WHERE t.id = b.id RETURNING t.delayed) "
                  "SELECT 0::int2, $1, (SELECT delayed FROM u) UNION ALL SELECT 1::int2, id, 0 FROM r "
                  "ORDER BY 1, 2";

static const char sql_cancel_items[] =
    "INSERT INTO cancels (id, tenant) SELECT w.id, $1 FROM unnest($2::uuid[]) AS w (id) ORDER BY w.id "
    "ON CONFLICT DO NOTHING";

/* ---- reading ---- */

static void reply_open_list(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    struct batch_open *list = calloc(n + 1, sizeof *list);
    INVARIANT(list != NULL); /* bounded by LIMIT */
    for (size_t i = 0; i < n; i++)
        list[i] = (struct batch_open){.id = pg_get_uuid(r, (int)i, 0),
                                      .tenant = pg_get_int4(r, (int)i, 1),
                                      .priority = (enum inv_priority)pg_get_int2(r, (int)i, 2),
                                      .max_concurrency = pg_get_int4(r, (int)i, 3),
                                      .first = pg_get_uuid(r, (int)i, 4),
                                      .last = pg_get_uuid(r, (int)i, 5),
                                      .fed = pg_get_uuid(r, (int)i, 6),
                                      .state = (enum batch_state)pg_get_int2(r, (int)i, 7),
                                      .delayed = pg_get_int4(r, (int)i, 8)};
    ((batch_open_fn *)c->fn)(c->arg, list, n, err);
    free(list);
    free(c);
}

int batch_open_list(struct pg *pg, struct uuid after, int limit, int64_t deadline_ms, batch_open_fn *fn,
                    void *arg)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL) {
        pg_put_uuid(p, after);
        pg_put_int8(p, limit);
    }
    return store_query(pg, sql_open_list, p, deadline_ms, reply_open_list, (void (*)(void))fn, arg, NULL);
}

/* The ids of column `col`, from row `from` on. Free it. */
static struct uuid *read_ids(const struct pg_result *r, int from, int rows, int col)
{
    struct uuid *ids = calloc((size_t)rows + 1, sizeof *ids);
    INVARIANT(ids != NULL); /* bounded by what was asked for */
    for (int i = 0; i < rows; i++)
        ids[i] = pg_get_uuid(r, from + i, col);
    return ids;
}

static void reply_ids(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    int n = err == NULL ? pg_rows(r) : 0;
    struct uuid *ids = read_ids(r, 0, n, 0);
    ((batch_ids_fn *)c->fn)(c->arg, ids, (size_t)n, err);
    free(ids);
    free(c);
}

int batch_fed_open(struct pg *pg, const struct batch_open *b, int limit, int64_t deadline_ms,
                   batch_ids_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(256);
    if (p != NULL) {
        pg_put_uuid(p, b->id);
        pg_put_int8(p, limit);
        pg_put_uuid(p, b->first);
        pg_put_uuid(p, b->last);
    }
    return store_query(pg, sql_fed_open, p, deadline_ms, reply_ids, (void (*)(void))fn, arg, NULL);
}

/* ---- steps ---- */

static void put_ids(struct pg_params *p, const struct uuid *ids, size_t n)
{
    pg_array_begin(p, PG_UUID);
    for (size_t i = 0; i < n; i++)
        pg_put_uuid(p, ids[i]);
    pg_array_end(p);
}

/* How many rows of a kind there are from row `from` on: they come in order of kinds. */
static int rows_of(const struct pg_result *r, int from, int kind)
{
    int n = 0;
    while (from + n < pg_rows(r) && pg_get_int2(r, from + n, 0) == kind)
        n++;
    return n;
}

static void reply_step(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    struct batch_step step = {0};
    struct uuid *open = NULL, *added = NULL;
    int head = err == NULL ? rows_of(r, 0, 0) : 0;
    if (head == 1) {
        int open_n = rows_of(r, 1, 1), added_n = rows_of(r, 1 + open_n, 2);
        bool moved = pg_get_bool(r, 0, 2);
        open = read_ids(r, 1, open_n, 1);
        added = read_ids(r, 1 + open_n, added_n, 1);
        step = (struct batch_step){.found = moved || added_n == 0, /* else somebody else fed them */
                                   .state = (enum batch_state)pg_get_int2(r, 0, 3),
                                   .fed = pg_get_uuid(r, 0, 1),
                                   .open = open,
                                   .open_n = (size_t)open_n,
                                   .added = added,
                                   .added_n = (size_t)added_n,
                                   .delayed = pg_get_int4(r, 0, 5),
                                   .ended = pg_get_bool(r, 0, 4)};
    }
    ((batch_step_fn *)c->fn)(c->arg, &step, err);
    free(open);
    free(added);
    free(c);
}

int batch_step(struct pg *pg, const struct batch_open *b, const struct uuid *fed_open, size_t n, int most,
               int64_t deadline_ms, batch_step_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(n * 32 + 512);
    if (p != NULL) {
        pg_put_uuid(p, b->id);
        pg_put_uuid(p, b->fed);
        pg_put_uuid(p, b->first);
        pg_put_uuid(p, b->last);
        put_ids(p, fed_open, n);
        pg_put_int8(p, most);
        if (b->delayed > 0)
            pg_put_int4(p, b->delayed);
    }
    return store_query(pg, b->delayed > 0 ? sql_step_delayed : sql_step, p, deadline_ms, reply_step,
                       (void (*)(void))fn, arg, NULL);
}

static void reply_drop(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    int head = err == NULL ? rows_of(r, 0, 0) : 0, n = head == 1 ? rows_of(r, 1, 1) : 0;
    struct uuid *ids = read_ids(r, 1, n, 1);
    ((batch_drop_fn *)c->fn)(c->arg, head == 1, head == 1 ? pg_get_uuid(r, 0, 1) : (struct uuid){0}, ids,
                             (size_t)n, err);
    free(ids);
    free(c);
}

int batch_drop(struct pg *pg, const struct batch_open *b, struct uuid boot, int limit, int64_t deadline_ms,
               batch_drop_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(256);
    if (p != NULL) {
        pg_put_uuid(p, b->id);
        pg_put_uuid(p, b->fed);
        pg_put_uuid(p, b->first);
        pg_put_uuid(p, b->last);
        pg_put_uuid(p, boot);
        pg_put_int8(p, limit);
    }
    return store_query(pg, sql_drop, p, deadline_ms, reply_drop, (void (*)(void))fn, arg, NULL);
}

static void reply_drop_delayed(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    int n = err == NULL ? rows_of(r, 1, 1) : 0;
    struct uuid *ids = read_ids(r, 1, n, 1);
    ((batch_drop_delayed_fn *)c->fn)(c->arg, err == NULL ? pg_get_int4(r, 0, 2) : 0, ids, (size_t)n, err);
    free(ids);
    free(c);
}

int batch_drop_delayed(struct pg *pg, const struct batch_open *b, struct uuid boot, int limit,
                       int64_t deadline_ms, batch_drop_delayed_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(256);
    if (p != NULL) {
        pg_put_uuid(p, b->id);
        pg_put_uuid(p, b->first);
        pg_put_uuid(p, b->last);
        pg_put_uuid(p, boot);
        pg_put_int8(p, limit);
    }
    return store_query(pg, sql_drop_delayed, p, deadline_ms, reply_drop_delayed, (void (*)(void))fn, arg,
                       NULL);
}

int batch_cancel_items(struct pg *pg, int32_t tenant, const struct uuid *ids, size_t n, int64_t deadline_ms,
                       batch_done_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(n * 32 + 256);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        put_ids(p, ids, n);
    }
    return store_query(pg, sql_cancel_items, p, deadline_ms, store_reply_done, (void (*)(void))fn, arg, NULL);
}
