/* Lists of invocations.
 *
 * The indexes at hand are (tenant, priority, id) of those of no batch and (tenant, id) of batches' items;
 * another one would cost every submission. So a step merges four scans: one a priority, and the batches'.
 * They are written as comparisons of rows, ordered by the whole key: an equality on tenant and priority would
 * let the planner take the primary key instead, in the right order but with everybody's rows to pass over.
 * The plain bounds on id are for dropping partitions. Each scan ends after `rows`, so what is sorted is four
 * times that at most.
 *
 * Only then is it looked at what matches, row by row, a result's status by one index probe. */
#include "store/lists.h"

#include <stdlib.h>

#include "store/call.h"

#define ONE_PRIORITY(p)                                                                                    \
    "(SELECT id, agent, version, metadata, batch FROM invocations WHERE (tenant, priority, id) >= ($1, " p \
    "::int2, $2) AND (tenant, priority, id) < ($1, " p                                                     \
    "::int2, $3) AND id >= $2 AND id < $3 AND batch IS NULL "                                              \
    "ORDER BY tenant DESC, priority DESC, id DESC LIMIT $4)"

#define OF_BATCHES                                                                                     \
    "(SELECT id, agent, version, metadata, batch FROM invocations WHERE (tenant, id) >= ($1, $2) AND " \
    "(tenant, id) < ($1, $3) AND id >= $2 AND id < $3 AND batch IS NOT NULL "                          \
    "ORDER BY tenant DESC, id DESC LIMIT $4)"

/* What matches of the candidates c. */
#define STEP_MATCHES                                                                                \
    "SELECT s.examined, s.last, m.id FROM (SELECT (SELECT count(*) FROM c) AS examined, "           \
    "(SELECT id FROM c ORDER BY id LIMIT 1) AS last) s "                                            \
    "LEFT JOIN LATERAL (SELECT c.id FROM c WHERE ($5::uuid IS NULL OR c.agent = $5) "               \
    "AND ($6 = 0 OR c.version = $6) AND ($10::uuid IS NULL OR c.batch = $10) AND ($7 = '' OR "      \
    "c.metadata::jsonb @> $7::jsonb) "                                                              \
    "AND ($8 < 0 OR coalesce((SELECT r.status FROM results r WHERE r.id = c.id AND r.id >= $2 AND " \
    "r.id < $3), 0::int2) = $8) ORDER BY c.id DESC LIMIT $9) m ON true ORDER BY m.id DESC"

static const char sql_step[] = "WITH c AS MATERIALIZED (" ONE_PRIORITY("0") " UNION ALL " ONE_PRIORITY(
    "1") " UNION ALL " ONE_PRIORITY("2") " UNION ALL " OF_BATCHES " ORDER BY id DESC LIMIT $4) " STEP_MATCHES;

/* Those that repeat one have an index of their own. */
static const char sql_retries[] =
    "WITH c AS MATERIALIZED (SELECT id, agent, version, metadata, batch FROM invocations WHERE (retry_of, "
    "id) "
    ">= ($11, $2) AND (retry_of, id) < ($11, $3) AND id >= $2 AND id < $3 AND retry_of IS NOT NULL AND "
    "tenant = $1 ORDER BY retry_of DESC, id DESC LIMIT $4) " STEP_MATCHES;

static const char sql_session[] =
    "SELECT set_config('enable_seqscan', 'off', false), set_config('enable_bitmapscan', 'off', false), "
    "set_config('enable_sort', 'off', false), set_config('enable_incremental_sort', 'off', false)";

static const char sql_open_low[] = "SELECT id FROM marks WHERE name = 'open'";

static const char sql_key[] = "SELECT cursor_key FROM deployment";

enum { SESSION_MS = 5000 };

void list_session(struct pg *pg)
{
    store_query(pg, sql_session, pg_params_new(64), SESSION_MS, store_reply_done, NULL, NULL, NULL);
}

static void reply_step(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    struct list_found found = {0};
    int rows = err == NULL ? pg_rows(r) : 0;
    if (rows > 0) {
        found.examined = (int)pg_get_int8(r, 0, 0);
        found.last = found.examined > 0 ? pg_get_uuid(r, 0, 1) : (struct uuid){0};
    }
    for (int i = 0; i < rows && !pg_is_null(r, i, 2) && found.n < LIST_MATCHES_MAX; i++)
        found.ids[found.n++] = pg_get_uuid(r, i, 2);
    ((list_step_fn *)c->fn)(c->arg, &found, err);
    free(c);
}

int list_step(struct pg *pg, const struct list_step *s, int64_t deadline_ms, list_step_fn *fn, void *arg,
              struct err *err)
{
    struct pg_params *p = pg_params_new(s->metadata.n + 512);
    INVARIANT(s->matches > 0 && s->matches <= LIST_MATCHES_MAX);
    if (p != NULL) {
        pg_put_int4(p, s->tenant);
        pg_put_uuid(p, s->low);
        pg_put_uuid(p, s->high);
        pg_put_int8(p, s->rows);
        pg_put_uuid_or_null(p, s->agent);
        pg_put_int4(p, s->version);
        pg_put_text(p, s->metadata);
        pg_put_int2(p, (int16_t)(s->by_status ? s->status : -1));
        pg_put_int8(p, s->matches);
        pg_put_uuid_or_null(p, s->batch);
        if (!uuid_is_zero(s->retry_of))
            pg_put_uuid(p, s->retry_of);
    }
    return store_query(pg, uuid_is_zero(s->retry_of) ? sql_step : sql_retries, p, deadline_ms, reply_step,
                       (void (*)(void))fn, arg, err);
}

static void reply_open_low(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    bool found = err == NULL && pg_rows(r) == 1;
    ((list_low_fn *)c->fn)(c->arg, found ? pg_get_uuid(r, 0, 0) : (struct uuid){0}, err);
    free(c);
}

int list_open_low(struct pg *pg, int64_t deadline_ms, list_low_fn *fn, void *arg, struct err *err)
{
    return store_query(pg, sql_open_low, pg_params_new(64), deadline_ms, reply_open_low, (void (*)(void))fn,
                       arg, err);
}

static void reply_key(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    bool found = err == NULL && pg_rows(r) == 1;
    ((list_key_fn *)c->fn)(c->arg, found ? pg_get_str(r, 0, 0) : str_of(NULL), err);
    free(c);
}

int list_key_get(struct pg *pg, int64_t deadline_ms, list_key_fn *fn, void *arg, struct err *err)
{
    return store_query(pg, sql_key, pg_params_new(64), deadline_ms, reply_key, (void (*)(void))fn, arg, err);
}
