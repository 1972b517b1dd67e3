/* The outbox, for dispatchers. Rows are found by (due_at) or (lane, due_at) and updated by ctid in the
 * statement that locked them, whatever the planner believes of the table's size: it swings between nothing
 * and a flood. */
#include "store/webhook_queue.h"

#include <stdlib.h>

#include "store/call.h"

enum { SESSION_MS = 5000 };

static const char sql_session[] =
    "SELECT set_config('synchronous_commit', 'off', false), set_config('enable_seqscan', 'off', false)";

void webhook_session(struct pg *pg)
{
    store_query(pg, sql_session, pg_params_new(64), SESSION_MS, store_reply_done, NULL, NULL, NULL);
}

/* ---- taking ---- */

#define TAKEN                                                                                               \
    "SELECT t.id, t.endpoint, t.tenant, t.event, t.lane, t.tries, t.queued_at, t.data, "                    \
    "e.id IS NOT NULL OR h.id IS NOT NULL, coalesce(e.enabled, true), coalesce(e.url, h.url), "             \
    "coalesce(e.key_id, h.key_id), coalesce(e.secret, h.secret), "                                          \
    "CASE WHEN e.previous_until > now() THEN e.previous_key_id END, "                                       \
    "CASE WHEN e.previous_until > now() THEN e.previous_secret END, e.failing_since, n.n "                  \
    "FROM (SELECT count(*) AS n FROM c) n LEFT JOIN t ON true "                                             \
    "LEFT JOIN LATERAL (SELECT * FROM webhook_endpoints e WHERE e.id = t.endpoint OFFSET 0) e ON true "     \
    "LEFT JOIN LATERAL (SELECT * FROM webhook_hooks h WHERE h.id = t.id AND t.id = t.endpoint OFFSET 0) h " \
    "ON true"
#define LEASE(lease) \
    "UPDATE outbox o SET owner = $1, parked = false, due_at = now() + " lease " * interval '1 ms'"

static const char sql_take[] =
    "WITH c AS MATERIALIZED (SELECT ctid AS at, lane = ANY($3::int8[]) AS is_full FROM outbox WHERE NOT "
    "parked AND "
    "due_at <= now() ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED), "
    "p AS (UPDATE outbox o SET parked = true, owner = NULL FROM c WHERE o.ctid = c.at AND c.is_full), "
    "t AS (" LEASE("$4::int8") " FROM c WHERE o.ctid = c.at AND NOT c.is_full RETURNING o.*) " TAKEN;
static const char sql_take_lane[] =
    "WITH c AS MATERIALIZED (SELECT ctid AS at FROM outbox WHERE parked AND lane = $2 AND due_at <= now() "
    "ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED), "
    "t AS (" LEASE("$4::int8") " FROM c WHERE o.ctid = c.at RETURNING o.*) " TAKEN;

static void read_due(const struct pg_result *r, int row, struct webhook_due *out)
{
    *out = (struct webhook_due){.event = pg_get_uuid(r, row, 0),
                                .endpoint = pg_get_uuid(r, row, 1),
                                .tenant = pg_get_int4(r, row, 2),
                                .what = pg_get_int2(r, row, 3),
                                .lane = pg_get_int8(r, row, 4),
                                .tries = pg_get_int2(r, row, 5),
                                .queued_at = pg_get_time(r, row, 6),
                                .data = pg_get_str(r, row, 7),
                                .there = pg_get_bool(r, row, 8),
                                .enabled = pg_get_bool(r, row, 9),
                                .url = pg_get_str(r, row, 10),
                                .key_id = pg_get_str(r, row, 11),
                                .secret = pg_get_str(r, row, 12),
                                .previous_key_id = pg_get_str(r, row, 13),
                                .previous_secret = pg_get_str(r, row, 14),
                                .failing = !pg_is_null(r, row, 15)};
    if (out->failing)
        out->failing_since = pg_get_time(r, row, 15);
}

static void reply_take(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t rows = err == NULL ? (size_t)pg_rows(r) : 0, n = 0;
    struct webhook_due *list = calloc(rows + 1, sizeof *list);
    INVARIANT(list != NULL); /* bounded by LIMIT */
    for (int row = 0; row < (int)rows; row++)
        if (!pg_is_null(r, row, 0))
            read_due(r, row, &list[n++]);
    ((webhook_take_fn *)c->fn)(c->arg, list, n, rows > 0 ? pg_get_int8(r, 0, 16) : 0, err);
    free(list);
    free(c);
}

int webhook_take(struct pg *pg, struct uuid owner, int limit, const int64_t *full, size_t full_n,
                 int64_t lease_ms, int64_t deadline_ms, webhook_take_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(full_n * 16 + 256);
    if (p != NULL) {
        pg_put_uuid(p, owner);
        pg_put_int8(p, limit);
        pg_array_begin(p, PG_INT8);
        for (size_t i = 0; i < full_n; i++)
            pg_put_int8(p, full[i]);
        pg_array_end(p);
        pg_put_int8(p, lease_ms);
    }
    return store_query(pg, sql_take, p, deadline_ms, reply_take, (void (*)(void))fn, arg, NULL);
}

int webhook_take_lane(struct pg *pg, struct uuid owner, int64_t lane, int limit, int64_t lease_ms,
                      int64_t deadline_ms, webhook_take_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(256);
    if (p != NULL) {
        pg_put_uuid(p, owner);
        pg_put_int8(p, lane);
        pg_put_int8(p, limit);
        pg_put_int8(p, lease_ms);
    }
    return store_query(pg, sql_take_lane, p, deadline_ms, reply_take, (void (*)(void))fn, arg, NULL);
}

/* One index probe a lane, however many rows it has. */
static const char sql_lanes[] =
    "WITH RECURSIVE l (lane, n) AS ((SELECT lane, 1 FROM outbox WHERE parked AND lane > $1 ORDER BY lane "
    "LIMIT 1) "
    "UNION ALL SELECT (SELECT o.lane FROM outbox o WHERE o.parked AND o.lane > l.lane ORDER BY o.lane LIMIT "
    "1), n + 1 "
    "FROM l WHERE l.lane IS NOT NULL AND n < $2) SELECT lane FROM l WHERE lane IS NOT NULL";

static void reply_lanes(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    int64_t *lanes = calloc(n + 1, sizeof *lanes);
    INVARIANT(lanes != NULL); /* bounded by the query */
    for (size_t i = 0; i < n; i++)
        lanes[i] = pg_get_int8(r, (int)i, 0);
    ((webhook_lanes_fn *)c->fn)(c->arg, lanes, n, err);
    free(lanes);
    free(c);
}

int webhook_parked_lanes(struct pg *pg, int64_t after, int limit, int64_t deadline_ms, webhook_lanes_fn *fn,
                         void *arg)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL) {
        pg_put_int8(p, after);
        pg_put_int4(p, limit);
    }
    return store_query(pg, sql_lanes, p, deadline_ms, reply_lanes, (void (*)(void))fn, arg, NULL);
}

/* ---- ending ---- */

static const char sql_park[] = "UPDATE outbox o SET parked = true, owner = NULL, due_at = now() FROM "
                               "unnest($2::uuid[], $3::uuid[]) AS d (id, "
                               "endpoint) WHERE o.id = d.id AND o.endpoint = d.endpoint AND o.owner = $1";

int webhook_park(struct pg *pg, struct uuid owner, const struct webhook_ref *rows, size_t n,
                 int64_t deadline_ms, webhook_ended_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(n * 64 + 256);
    if (p != NULL) {
        pg_put_uuid(p, owner);
        pg_array_begin(p, PG_UUID);
        for (size_t i = 0; i < n; i++)
            pg_put_uuid(p, rows[i].event);
        pg_array_end(p);
        pg_array_begin(p, PG_UUID);
        for (size_t i = 0; i < n; i++)
            pg_put_uuid(p, rows[i].endpoint);
        pg_array_end(p);
    }
    return store_query(pg, sql_park, p, deadline_ms, store_reply_done, (void (*)(void))fn, arg, NULL);
}

static const char sql_settle[] =
    "WITH d AS (SELECT * FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::int4[], $6::int2[], $7::int2[], "
    "$8::text[], $9::int4[], $10::int4[], $11::int2[], $12::text[], $13::bytea[], $14::int2[], "
    "$15::timestamptz[], "
    "$16::text[]) AS d (endpoint, id, event_id, tenant, event, try, url, body_bytes, duration_ms, status, "
    "error, "
    "response, verdict, next_at, data)), "
    "l AS (INSERT INTO webhook_attempts SELECT * FROM d ON CONFLICT DO NOTHING), "
    "x AS (DELETE FROM outbox o USING d WHERE o.id = d.event_id AND o.endpoint = d.endpoint AND o.owner = $1 "
    "AND d.verdict <> 2), "
    "u AS (UPDATE outbox o SET tries = d.try, due_at = d.next_at, owner = NULL FROM d WHERE o.id = "
    "d.event_id "
    "AND o.endpoint = d.endpoint AND o.owner = $1 AND d.verdict = 2), "
    "b AS (UPDATE webhook_endpoints SET failing_since = now() WHERE id = ANY($17::uuid[]) AND failing_since "
    "IS NULL) "
    "UPDATE webhook_endpoints SET failing_since = NULL WHERE id = ANY($18::uuid[]) AND failing_since IS NOT "
    "NULL "
    "AND NOT id = ANY($17::uuid[])";

static void put_text_or_null(struct pg_params *p, struct str s)
{
    if (s.n > 0)
        pg_put_text(p, s);
    else
        pg_put_null(p, PG_TEXT);
}

static void put_status(struct pg_params *p, int status)
{
    if (status > 0)
        pg_put_int2(p, (int16_t)status);
    else
        pg_put_null(p, PG_INT2);
}

static void put_next(struct pg_params *p, const struct webhook_end *e)
{
    if (e->verdict == WEBHOOK_RETRY)
        pg_put_time(p, e->next_at);
    else
        pg_put_null(p, PG_TIMESTAMPTZ);
}

#define COLUMN_IF(type, when, put)                  \
    do {                                            \
        pg_array_begin(p, type);                    \
        for (size_t i = 0; i < n; i++) {            \
            const struct webhook_end *e = &ends[i]; \
            if (when)                               \
                put;                                \
        }                                           \
        pg_array_end(p);                            \
    } while (0)
#define COLUMN(type, put) COLUMN_IF(type, e != NULL, put)

static void encode_ends(struct pg_params *p, const struct webhook_end *ends, size_t n)
{
    COLUMN(PG_UUID, pg_put_uuid(p, e->ref.endpoint));
    COLUMN(PG_UUID, pg_put_uuid(p, e->id));
    COLUMN(PG_UUID, pg_put_uuid(p, e->ref.event));
    COLUMN(PG_INT4, pg_put_int4(p, e->tenant));
    COLUMN(PG_INT2, pg_put_int2(p, (int16_t)e->what));
    COLUMN(PG_INT2, pg_put_int2(p, (int16_t)e->try));
    COLUMN(PG_TEXT, pg_put_text(p, e->url));
    COLUMN(PG_INT4, pg_put_int4(p, (int32_t)e->body_bytes));
    COLUMN(PG_INT4, pg_put_int4(p, (int32_t)e->duration_ms));
    COLUMN(PG_INT2, put_status(p, e->status));
    COLUMN(PG_TEXT, put_text_or_null(p, e->error));
    COLUMN(PG_BYTEA, pg_put_bytea(p, e->response));
    COLUMN(PG_INT2, pg_put_int2(p, (int16_t)e->verdict));
    COLUMN(PG_TIMESTAMPTZ, put_next(p, e));
    COLUMN(PG_TEXT, put_text_or_null(p, e->data));
    COLUMN_IF(PG_UUID, e->mood < 0, pg_put_uuid(p, e->ref.endpoint));
    COLUMN_IF(PG_UUID, e->mood > 0, pg_put_uuid(p, e->ref.endpoint));
}

int webhook_settle(struct pg *pg, struct uuid owner, const struct webhook_end *ends, size_t n,
                   int64_t deadline_ms, webhook_ended_fn *fn, void *arg)
{
    size_t bytes = 1024;
    for (size_t i = 0; i < n; i++)
        bytes += 512 + ends[i].url.n + ends[i].error.n + ends[i].response.n + ends[i].data.n;
    struct pg_params *p = pg_params_new(bytes);
    if (p != NULL) {
        pg_put_uuid(p, owner);
        encode_ends(p, ends, n);
    }
    return store_query(pg, sql_settle, p, deadline_ms, store_reply_done, (void (*)(void))fn, arg, NULL);
}

static const char sql_disable[] = "UPDATE webhook_endpoints SET enabled = false, disabled_reason = $2, "
                                  "disabled_at = now() WHERE id = $1 AND enabled";

int webhook_disable(struct pg *pg, struct uuid endpoint, struct str reason, int64_t deadline_ms,
                    webhook_ended_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(1024);
    if (p != NULL) {
        pg_put_uuid(p, endpoint);
        pg_put_text(p, reason);
    }
    return store_query(pg, sql_disable, p, deadline_ms, store_reply_done, (void (*)(void))fn, arg, NULL);
}

/* ---- streams ---- */

static const char sql_stream[] =
    "INSERT INTO webhook_streamed (endpoint, id, webhook_id, sent_at, signature, body) "
    "SELECT $1::uuid, $2, $3, $4, $5, $6 WHERE EXISTS (SELECT FROM webhook_endpoints WHERE id = $1 FOR KEY "
    "SHARE) "
    "ON CONFLICT DO NOTHING";

int webhook_stream_put(struct pg *pg, struct uuid endpoint, struct uuid id, struct str webhook_id,
                       int64_t sent_at, struct str signature, struct str body, int64_t deadline_ms,
                       webhook_ended_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(body.n + 2048);
    if (p != NULL) {
        pg_put_uuid(p, endpoint);
        pg_put_uuid(p, id);
        pg_put_text(p, webhook_id);
        pg_put_int8(p, sent_at);
        pg_put_text(p, signature);
        pg_put_text(p, body);
    }
    return store_query(pg, sql_stream, p, deadline_ms, store_reply_done, (void (*)(void))fn, arg, NULL);
}

/* ---- tidying ---- */

static const char sql_trim[] = "SELECT sandpiper_webhook_log_trim($1)";

int webhook_log_trim(struct pg *pg, int keep_days, int64_t deadline_ms, webhook_ended_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL)
        pg_put_int4(p, keep_days);
    return store_query(pg, sql_trim, p, deadline_ms, store_reply_done, (void (*)(void))fn, arg, NULL);
}

/* An attempt's id of now: the time leads, the rest tells rows apart. */
static const char sql_tidy[] =
    "WITH s AS (DELETE FROM webhook_endpoints WHERE url IS NULL AND seen_at < now() - interval '10 "
    "minutes'), "
    "g AS (DELETE FROM outbox WHERE ctid = ANY (ARRAY(SELECT ctid FROM outbox WHERE queued_at < now() - "
    "$1::int4 * "
    "interval '1 day' LIMIT 10000 FOR UPDATE SKIP LOCKED)) RETURNING *) "
    "INSERT INTO webhook_attempts (endpoint, id, event_id, tenant, event, try, url, body_bytes, duration_ms, "
    "error, response, verdict, data) SELECT endpoint, (left(replace(sandpiper_uuid_floor(now())::text, '-', "
    "''), 12) || "
    "left(md5(id::text || endpoint::text), 20))::uuid, id, tenant, event, tries, '', 0, 0, "
    "'given up: it could not be delivered for ' || $1 || ' days', '', 3, data FROM g ON CONFLICT DO NOTHING";

int webhook_tidy(struct pg *pg, int keep_days, int64_t deadline_ms, webhook_ended_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL)
        pg_put_int4(p, keep_days);
    return store_query(pg, sql_tidy, p, deadline_ms, store_reply_done, (void (*)(void))fn, arg, NULL);
}
