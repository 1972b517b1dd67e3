/* Sums of usage.
 *
 * usage_deltas is small (dispatchers fold it each second) and has no index: an index would cost every commit
 * of results. So it is read as a whole; that it stays small is the fold's business. */
#include "store/usage.h"

#include <stdlib.h>

#include "store/call.h"

#define COLUMNS                                                                                      \
    "succeeded, failed, timed_out, canceled, expired, error, attempts, sandbox_ms, run_ms, cpu_ms, " \
    "input_tokens, output_tokens, cost_usd"
/* Counts and milliseconds fit into 64 bits: they grow by what really passes. */
#define SUMS                                                                                              \
    "sum(succeeded)::int8 AS succeeded, sum(failed)::int8 AS failed, sum(timed_out)::int8 AS timed_out, " \
    "sum(canceled)::int8 AS canceled, sum(expired)::int8 AS expired, sum(error)::int8 AS error, "         \
    "sum(attempts)::int8 AS attempts, sum(sandbox_ms)::int8 AS sandbox_ms, sum(run_ms)::int8 AS run_ms, " \
    "sum(cpu_ms)::int8 AS cpu_ms, sum(input_tokens) AS input_tokens, "                                    \
    "sum(output_tokens) AS output_tokens, sum(cost_usd) AS cost_usd"
#define NOBODY "'00000000-0000-0000-0000-000000000000'::uuid"
#define EPOCH "date '1970-01-01'"
#define IN_DAYS "WHERE tenant = $1 AND day BETWEEN " EPOCH " + $2 AND " EPOCH " + $3"

/* s: the tenant's rows of those days, folded or not; g: the groups; x: their totals, which come first, and
 * those that are asked for. */
static const char sql_get[] =
    "WITH s AS (SELECT * FROM usage_daily " IN_DAYS " UNION ALL SELECT * FROM usage_deltas " IN_DAYS "), "
    "a AS (SELECT id FROM agents WHERE tenant = $1 AND name = $7), "
    "g AS MATERIALIZED (SELECT CASE WHEN $4 THEN day - " EPOCH " ELSE 0 END AS day, "
    "CASE WHEN $5 THEN agent ELSE " NOBODY " END AS agent, "
    "CASE WHEN $6 THEN api_key ELSE " NOBODY " END AS api_key, " SUMS " FROM s "
    "WHERE ($7 = '' OR agent IN (SELECT id FROM a)) AND ($8::uuid IS NULL OR api_key = $8) GROUP BY 1, 2, "
    "3), "
    "x AS (SELECT 0::int2 AS kind, 0 AS day, " NOBODY " AS agent, " NOBODY " AS api_key, " SUMS " FROM g "
    "UNION ALL (SELECT 1::int2, g.* FROM g WHERE (g.day, g.agent, g.api_key) > ($9, $10, $11) "
    "ORDER BY g.day, g.agent, g.api_key LIMIT $12)) "
    "SELECT x.kind, x.day, x.agent, x.api_key, n.name, k.name, $7 = '' OR EXISTS (SELECT FROM a), "
    "$8::uuid IS NULL OR EXISTS (SELECT FROM api_keys WHERE tenant = $1 AND id = $8), "
    "coalesce(x.succeeded, 0), coalesce(x.failed, 0), coalesce(x.timed_out, 0), coalesce(x.canceled, 0), "
    "coalesce(x.expired, 0), coalesce(x.error, 0), coalesce(x.attempts, 0), coalesce(x.sandbox_ms, 0), "
    "coalesce(x.run_ms, 0), coalesce(x.cpu_ms, 0), coalesce(x.input_tokens, 0)::text, "
    "coalesce(x.output_tokens, 0)::text, trim_scale(coalesce(x.cost_usd, 0))::text "
    "FROM x LEFT JOIN agents n ON n.id = x.agent AND n.tenant = $1 "
    "LEFT JOIN api_keys k ON k.id = x.api_key AND k.tenant = $1 ORDER BY x.kind, x.day, x.agent, x.api_key";

/* A lock, not SKIP LOCKED: so rows are written once, by the DELETE. A snapshot from before another's fold
 * does no harm: what that one deleted is not deleted again. Days' rows are locked in the order of their key.
 */
static const char sql_fold[] =
    "WITH d AS (DELETE FROM usage_deltas WHERE ctid = ANY (ARRAY(SELECT ctid FROM usage_deltas "
    "WHERE (SELECT pg_try_advisory_xact_lock(7305141026570191)) LIMIT $1)) RETURNING *), "
    "f AS (INSERT INTO usage_daily AS t (tenant, day, agent, api_key, " COLUMNS ") "
    "SELECT tenant, day, agent, api_key, " SUMS " FROM d GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 "
    "ON CONFLICT (tenant, day, agent, api_key) DO UPDATE SET succeeded = t.succeeded + excluded.succeeded, "
    "failed = t.failed + excluded.failed, timed_out = t.timed_out + excluded.timed_out, "
    "canceled = t.canceled + excluded.canceled, expired = t.expired + excluded.expired, "
    "error = t.error + excluded.error, attempts = t.attempts + excluded.attempts, "
    "sandbox_ms = t.sandbox_ms + excluded.sandbox_ms, run_ms = t.run_ms + excluded.run_ms, "
    "cpu_ms = t.cpu_ms + excluded.cpu_ms, input_tokens = t.input_tokens + excluded.input_tokens, "
    "output_tokens = t.output_tokens + excluded.output_tokens, cost_usd = t.cost_usd + excluded.cost_usd) "
    "SELECT count(*) FROM d";

enum { C_KIND, C_DAY, C_AGENT, C_KEY, C_AGENT_NAME, C_KEY_NAME, C_AGENT_FOUND, C_KEY_FOUND, C_SUMS };

static void read_sums(const struct pg_result *r, int row, struct usage_sums *out)
{
    int c = C_SUMS;
    for (int i = 0; i < USAGE_STATES; i++)
        out->ended[i] = pg_get_int8(r, row, c++);
    out->attempts = pg_get_int8(r, row, c++);
    out->sandbox_ms = pg_get_int8(r, row, c++);
    out->run_ms = pg_get_int8(r, row, c++);
    out->cpu_ms = pg_get_int8(r, row, c++);
    out->input_tokens = pg_get_str(r, row, c++);
    out->output_tokens = pg_get_str(r, row, c++);
    out->cost_usd = pg_get_str(r, row, c);
}

static void read_group(const struct pg_result *r, int row, struct usage_group *out)
{
    out->place.day = pg_get_int4(r, row, C_DAY);
    out->place.agent = pg_get_uuid(r, row, C_AGENT);
    out->place.key = pg_get_uuid(r, row, C_KEY);
    out->agent = pg_get_str(r, row, C_AGENT_NAME);
    out->key = pg_get_str(r, row, C_KEY_NAME);
    read_sums(r, row, &out->sums);
}

static void reply_get(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) - 1 : 0;
    struct usage_group *groups = calloc(n + 1, sizeof *groups);
    struct usage_answer answer = {.groups = groups, .n = n};
    struct err none;
    if (groups == NULL && err == NULL) {
        err_set(&none, ERR_NO_MEMORY, "no memory for sums");
        err = &none;
    }
    if (err == NULL) {
        answer.agent_found = pg_get_bool(r, 0, C_AGENT_FOUND);
        answer.key_found = pg_get_bool(r, 0, C_KEY_FOUND);
        read_sums(r, 0, &answer.totals);
        for (size_t i = 0; i < n; i++)
            read_group(r, (int)i + 1, &groups[i]);
    }
    ((usage_fn *)c->fn)(c->arg, err == NULL ? &answer : NULL, err);
    free(groups);
    free(c);
}

int usage_get(struct pg *pg, const struct usage_query *q, int64_t deadline_ms, usage_fn *fn, void *arg,
              struct err *err)
{
    struct pg_params *p = pg_params_new(512);
    if (p != NULL) {
        pg_put_int4(p, q->tenant);
        pg_put_int4(p, q->from);
        pg_put_int4(p, q->to);
        pg_put_bool(p, q->by_day);
        pg_put_bool(p, q->by_agent);
        pg_put_bool(p, q->by_key);
        pg_put_text(p, q->agent);
        if (q->has_key)
            pg_put_uuid(p, q->key);
        else
            pg_put_null(p, PG_UUID);
        pg_put_int4(p, q->after.day);
        pg_put_uuid(p, q->after.agent);
        pg_put_uuid(p, q->after.key);
        pg_put_int8(p, q->limit);
    }
    return store_query(pg, sql_get, p, deadline_ms, reply_get, (void (*)(void))fn, arg, err);
}

static void reply_fold(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    ((usage_fold_fn *)c->fn)(c->arg, err == NULL ? pg_get_int8(r, 0, 0) : 0, err);
    free(c);
}

int usage_fold(struct pg *pg, int limit, int64_t deadline_ms, usage_fold_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL)
        pg_put_int8(p, limit);
    return store_query(pg, sql_fold, p, deadline_ms, reply_fold, (void (*)(void))fn, arg, NULL);
}
