/* The dispatchers' reads and repairs. */
#include "store/sweep.h"

#include <stdio.h>
#include <stdlib.h>

#include "store/call.h"

#define SWEEP_COLUMNS                                                                                       \
    "i.id, i.tenant, i.agent, i.version, i.priority, i.timeout_ms, i.queue_timeout_ms, i.max_attempts, "    \
    "i.retry_on, "                                                                                          \
    "i.prompt_bytes, CASE WHEN r.id IS NULL AND i.prompt_bytes <= 4096 THEN i.prompt END, r.id IS NOT "     \
    "NULL, "                                                                                                \
    "c.id IS NOT NULL, coalesce(a.attempt, 1::int2), a.not_before, coalesce(a.reruns, 0::int2), "           \
    "coalesce(a.blames, 0::int2), "                                                                         \
    "CASE WHEN a.attempt IS NULL THEN 0::int2 ELSE (SELECT count(*)::int2 FROM attempts o WHERE o.id = "    \
    "i.id "                                                                                                 \
    "AND o.reason IN ('failed', 'out_of_memory', 'run_timeout')) END, i.batch IS NOT NULL, i.traceparent, " \
    "CASE WHEN a.blames > 0 THEN (SELECT count(*)::int2 FROM attempts o WHERE o.id = i.id AND o.reason = "  \
    "'" SWEEP_CRASHED "') ELSE 0::int2 END, coalesce(i.env, false), i.files"
/* Whether it lies beyond its batch's cursor, or waits behind it for its time: then it is open, and nothing
 * may be enqueued of it. */
#define SWEEP_UNFED                                                                                          \
    ", i.batch IS NOT NULL AND (coalesce(i.id > (SELECT b.fed FROM batches b WHERE b.id = i.batch), false) " \
    "OR "                                                                                                    \
    "EXISTS (SELECT FROM batch_delayed z WHERE z.id = i.id))"
#define SWEEP_NOT_ASKED ", false"
/* bound: on ids, or "": it lets the executor leave all partitions alone but those of the ids at hand. */
#define SWEEP_JOINS(bound)                                                                                  \
    " LEFT JOIN LATERAL (SELECT id FROM results r WHERE r.id = i.id" bound " OFFSET 0) r ON true "          \
    "LEFT JOIN LATERAL (SELECT id FROM cancels c WHERE c.id = i.id" bound " OFFSET 0) c ON true "           \
    "LEFT JOIN LATERAL (SELECT attempt, not_before, reruns, blames FROM attempts a WHERE a.id = i.id" bound \
    " ORDER BY attempt DESC LIMIT 1) a ON true"
#define SWEEP_BOUND " AND id BETWEEN $2 AND $3"

/* Rows of three columns are compared, and ordered by, because only the index of all three can do that: plans
 * that are made once for any tenant and priority take the primary key otherwise, and read everybody's rows.
 */
static const char sql_tenant[] =
    "SELECT " SWEEP_COLUMNS SWEEP_NOT_ASKED
    " FROM (SELECT * FROM invocations WHERE (tenant, priority, id) > ($1, $2, $3) "
    "AND (tenant, priority, id) <= ($1, $2, $4) AND id > $3 AND id <= $4 AND batch IS NULL "
    "ORDER BY tenant, priority, id LIMIT $5) i" SWEEP_JOINS("") " ORDER BY i.id";
static const char sql_all[] =
    "SELECT " SWEEP_COLUMNS SWEEP_UNFED
    " FROM (SELECT * FROM invocations WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3) i" SWEEP_JOINS(
        "") " ORDER BY i.id";
static const char sql_due[] =
    "SELECT " SWEEP_COLUMNS SWEEP_NOT_ASKED
    " FROM (SELECT id AS due_id, attempt AS due_attempt, not_before AS due FROM attempts d "
    "WHERE not_before <= now() AND (not_before, id) > ($1, $2) AND NOT (d.attempt = 1 AND EXISTS (SELECT "
    "FROM "
    "batch_delayed z WHERE z.id = d.id)) ORDER BY not_before, id LIMIT $3) d "
    "JOIN LATERAL (SELECT * FROM invocations x WHERE x.id = d.due_id OFFSET 0) i ON true" SWEEP_JOINS(
        "") " WHERE a.attempt = d.due_attempt ORDER BY d.due, i.id";
/* A limit below a day that passed after $1: the row is not older than $1 less a day. */
static const char sql_deadlines[] =
    "SELECT " SWEEP_COLUMNS SWEEP_NOT_ASKED
    " FROM (SELECT * FROM invocations WHERE queue_timeout_ms < 86400000 "
    "AND sandpiper_queue_deadline(id, queue_timeout_ms) <= now() "
    "AND (sandpiper_queue_deadline(id, queue_timeout_ms), id) > ($1, $2) "
    "AND id >= sandpiper_uuid_floor($1 - interval '1 day') "
    "ORDER BY sandpiper_queue_deadline(id, queue_timeout_ms), id LIMIT $3) i" SWEEP_JOINS(
        "") " ORDER BY sandpiper_queue_deadline(i.id, i.queue_timeout_ms), i.id";
static const char sql_ids[] = "SELECT " SWEEP_COLUMNS SWEEP_NOT_ASKED " FROM unnest($1::uuid[]) AS w (id) "
                              "JOIN LATERAL (SELECT * FROM invocations x WHERE x.id = w.id" SWEEP_BOUND
                              " OFFSET 0) i ON true" SWEEP_JOINS(SWEEP_BOUND) " ORDER BY i.id";

static void read_row(const struct pg_result *r, int i, struct sweep_row *out)
{
    *out = (struct sweep_row){.ended = pg_get_bool(r, i, 11),
                              .canceling = pg_get_bool(r, i, 12),
                              .batched = pg_get_bool(r, i, 18),
                              .crashes = pg_get_int2(r, i, 20),
                              .unfed = pg_get_bool(r, i, 23)};
    struct entry *e = &out->job;
    *e = (struct entry){.kind = ENTRY_INVOCATION,
                        .id = pg_get_uuid(r, i, 0),
                        .tenant = pg_get_int4(r, i, 1),
                        .agent = pg_get_uuid(r, i, 2),
                        .version = pg_get_int4(r, i, 3),
                        .priority = (enum inv_priority)pg_get_int2(r, i, 4),
                        .timeout_ms = pg_get_int4(r, i, 5),
                        .max_attempts = pg_get_int2(r, i, 7),
                        .retry_on = pg_get_int2(r, i, 8),
                        .prompt_bytes = (uint32_t)pg_get_int4(r, i, 9),
                        .prompt_inline = !pg_is_null(r, i, 10),
                        .prompt = pg_get_str(r, i, 10),
                        .attempt = pg_get_int2(r, i, 13),
                        .reruns = pg_get_int2(r, i, 15),
                        .blames = pg_get_int2(r, i, 16),
                        .own = pg_get_int2(r, i, 17),
                        .env = pg_get_bool(r, i, 21),
                        .files = pg_get_uuid(r, i, 22)};
    traceparent_parse(pg_get_str(r, i, 19), &e->trace);
    wall_t created = uuid_time(e->id);
    e->queue_deadline.us = created.us + pg_get_int8(r, i, 6) * 1000;
    if (!pg_is_null(r, i, 14))
        out->not_before = pg_get_time(r, i, 14);
    e->ready = out->not_before.us != 0 ? out->not_before : created;
}

static void reply_rows(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    struct sweep_row *rows = calloc(n + 1, sizeof *rows);
    struct err none;
    if (rows == NULL && err == NULL) {
        err_set(&none, ERR_NO_MEMORY, "no memory for a sweep");
        err = &none;
    }
    for (size_t i = 0; err == NULL && i < n; i++)
        read_row(r, (int)i, &rows[i]);
    ((sweep_fn *)c->fn)(c->arg, rows, err == NULL ? n : 0, err);
    free(rows);
    free(c);
}

int sweep_tenant(struct pg *pg, int32_t tenant, enum inv_priority priority, struct uuid after,
                 struct uuid upto, int limit, int64_t deadline_ms, sweep_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(256);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_int2(p, (int16_t)priority);
        pg_put_uuid(p, after);
        pg_put_uuid(p, upto);
        pg_put_int8(p, limit);
    }
    return store_query(pg, sql_tenant, p, deadline_ms, reply_rows, (void (*)(void))fn, arg, NULL);
}

int sweep_all(struct pg *pg, struct uuid after, struct uuid upto, int limit, int64_t deadline_ms,
              sweep_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(256);
    if (p != NULL) {
        pg_put_uuid(p, after);
        pg_put_uuid(p, upto);
        pg_put_int8(p, limit);
    }
    return store_query(pg, sql_all, p, deadline_ms, reply_rows, (void (*)(void))fn, arg, NULL);
}

static int after_time(struct pg *pg, const char *sql, wall_t after, struct uuid after_id, int limit,
                      int64_t deadline_ms, sweep_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(256);
    if (p != NULL) {
        pg_put_time(p, after);
        pg_put_uuid(p, after_id);
        pg_put_int8(p, limit);
    }
    return store_query(pg, sql, p, deadline_ms, reply_rows, (void (*)(void))fn, arg, NULL);
}

int sweep_due(struct pg *pg, wall_t after, struct uuid after_id, int limit, int64_t deadline_ms, sweep_fn *fn,
              void *arg)
{
    return after_time(pg, sql_due, after, after_id, limit, deadline_ms, fn, arg);
}

int sweep_deadlines(struct pg *pg, wall_t after, struct uuid after_id, int limit, int64_t deadline_ms,
                    sweep_fn *fn, void *arg)
{
    return after_time(pg, sql_deadlines, after, after_id, limit, deadline_ms, fn, arg);
}

static void put_bounds(struct pg_params *p, const struct uuid *ids, size_t n)
{
    struct uuid low = {0}, high = {0};
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || uuid_cmp(ids[i], low) < 0)
            low = ids[i];
        if (i == 0 || uuid_cmp(ids[i], high) > 0)
            high = ids[i];
    }
    pg_put_uuid(p, low);
    pg_put_uuid(p, high);
}

int sweep_ids(struct pg *pg, const struct uuid *ids, size_t n, int64_t deadline_ms, sweep_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(n * 32 + 256);
    if (p != NULL) {
        pg_array_begin(p, PG_UUID);
        for (size_t i = 0; i < n; i++)
            pg_put_uuid(p, ids[i]);
        pg_array_end(p);
        put_bounds(p, ids, n);
    }
    return store_query(pg, sql_ids, p, deadline_ms, reply_rows, (void (*)(void))fn, arg, NULL);
}

/* ---- open tenants ---- */

/* Three index probes a tenant (one a priority); DISTINCT over all rows would read the whole backlog. */
static const char sql_open[] =
    "SELECT DISTINCT ON (t.id) t.id, i.id FROM tenants t, generate_series(0, 2) AS p (priority), "
    "LATERAL (SELECT x.id FROM invocations x WHERE x.tenant = t.id AND x.priority = p.priority::int2 AND "
    "x.id >= $1 AND x.batch IS NULL "
    "AND NOT EXISTS (SELECT FROM results r WHERE r.id = x.id) ORDER BY x.id LIMIT 1) i ORDER BY t.id, i.id";

static void reply_open(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    struct sweep_open *list = calloc(n + 1, sizeof *list);
    INVARIANT(list != NULL); /* one a tenant */
    for (size_t i = 0; i < n; i++)
        list[i] =
            (struct sweep_open){.tenant = pg_get_int4(r, (int)i, 0), .oldest = pg_get_uuid(r, (int)i, 1)};
    ((sweep_open_fn *)c->fn)(c->arg, list, n, err);
    free(list);
    free(c);
}

int sweep_open_tenants(struct pg *pg, struct uuid low, int64_t deadline_ms, sweep_open_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL)
        pg_put_uuid(p, low);
    return store_query(pg, sql_open, p, deadline_ms, reply_open, (void (*)(void))fn, arg, NULL);
}

/* ---- builds ---- */

static const char sql_builds[] =
    "SELECT id, tenant, agent, version FROM agent_versions WHERE status = 0 ORDER BY id LIMIT $1";

enum { BUILD_LIMIT_MS = 600 * 1000 }; /* DESIGN section 5: 10 min */

static void reply_builds(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    struct entry *list = calloc(n + 1, sizeof *list);
    INVARIANT(list != NULL); /* bounded by LIMIT */
    for (size_t i = 0; i < n; i++) {
        list[i] = (struct entry){.kind = ENTRY_BUILD,
                                 .id = pg_get_uuid(r, (int)i, 0),
                                 .tenant = pg_get_int4(r, (int)i, 1),
                                 .agent = pg_get_uuid(r, (int)i, 2),
                                 .version = pg_get_int4(r, (int)i, 3),
                                 .attempt = 1,
                                 .max_attempts = 1,
                                 .priority = INV_NORMAL,
                                 .timeout_ms = BUILD_LIMIT_MS};
        list[i].ready = uuid_time(list[i].id);
        list[i].queue_deadline.us = list[i].ready.us + INV_QUEUE_TIMEOUT_DEFAULT_MS * 1000LL;
    }
    ((sweep_builds_fn *)c->fn)(c->arg, list, n, err);
    free(list);
    free(c);
}

int sweep_builds(struct pg *pg, int limit, int64_t deadline_ms, sweep_builds_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL)
        pg_put_int8(p, limit);
    return store_query(pg, sql_builds, p, deadline_ms, reply_builds, (void (*)(void))fn, arg, NULL);
}

/* ---- marks ---- */

static const char sql_mark_get[] = "SELECT id FROM marks WHERE name = $1";
static const char sql_mark_set[] = "INSERT INTO marks (name, id) VALUES ($1, $2) ON CONFLICT (name) DO "
                                   "UPDATE SET id = excluded.id, at = now()";

static void reply_mark(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    bool found = err == NULL && pg_rows(r) == 1;
    ((mark_fn *)c->fn)(c->arg, found ? pg_get_uuid(r, 0, 0) : (struct uuid){0}, err);
    free(c);
}

int mark_get(struct pg *pg, struct str name, int64_t deadline_ms, mark_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(128);
    if (p != NULL)
        pg_put_text(p, name);
    return store_query(pg, sql_mark_get, p, deadline_ms, reply_mark, (void (*)(void))fn, arg, NULL);
}

int mark_set(struct pg *pg, struct str name, struct uuid id, int64_t deadline_ms)
{
    struct pg_params *p = pg_params_new(128);
    if (p != NULL) {
        pg_put_text(p, name);
        pg_put_uuid(p, id);
    }
    return store_query(pg, sql_mark_set, p, deadline_ms, store_reply_done, NULL, NULL, NULL);
}

/* ---- housekeeping ---- */

static const char sql_partitions[] = "SELECT sandpiper_partitions(14)";
static const char sql_expired[] =
    "WITH k AS (DELETE FROM idempotency WHERE (tenant, key) IN (SELECT tenant, key FROM idempotency "
    "WHERE expires_at < now() ORDER BY expires_at LIMIT 10000)) "
    "DELETE FROM agent_files f WHERE f.id < sandpiper_uuid_floor(now() - interval '2 hours') "
    "AND NOT EXISTS (SELECT FROM agent_versions v WHERE v.id = f.id)";

static int no_params(struct pg *pg, const char *sql, int64_t deadline_ms, sweep_done_fn *fn, void *arg)
{
    return store_query(pg, sql, pg_params_new(64), deadline_ms, store_reply_done, (void (*)(void))fn, arg,
                       NULL);
}

int sweep_partitions(struct pg *pg, int64_t deadline_ms, sweep_done_fn *fn, void *arg)
{
    return no_params(pg, sql_partitions, deadline_ms, fn, arg);
}

int sweep_expired(struct pg *pg, int64_t deadline_ms, sweep_done_fn *fn, void *arg)
{
    return no_params(pg, sql_expired, deadline_ms, fn, arg);
}
