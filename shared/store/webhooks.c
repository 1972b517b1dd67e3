/* Endpoints, hooks and the log of webhooks. */
#include "store/webhooks.h"

#include <stdlib.h>

#include "crypto/crypto.h"
#include "store/call.h"

int64_t webhook_lane_of_endpoint(struct uuid id)
{
    int64_t lane;
    memcpy(&lane, id.b + 8, sizeof lane);
    return lane;
}

int64_t webhook_lane_of_origin(int32_t tenant, struct str origin)
{
    struct crypto_sha256_state h;
    uint8_t hash[SHA256_BYTES];
    int64_t lane;
    crypto_sha256_init(&h);
    crypto_sha256_update(&h, str_make((const char *)&tenant, sizeof tenant));
    crypto_sha256_update(&h, origin);
    crypto_sha256_final(&h, hash);
    memcpy(&lane, hash, sizeof lane);
    return lane;
}

static int call(struct pg *pg, const char *sql, struct pg_params *p, int64_t deadline_ms, pg_done_fn *reply,
                void (*fn)(void), void *arg, struct err *err)
{
    return store_query(pg, sql, p, deadline_ms, reply, fn, arg, err);
}

/* NULL for a view that is not there, as against an empty one. */
static void put_text_if(struct pg_params *p, bool there, struct str s)
{
    if (there)
        pg_put_text(p, s);
    else
        pg_put_null(p, PG_TEXT);
}

static void put_sealed(struct pg_params *p, const struct webhook_sealed *s)
{
    pg_put_text(p, str_of(s->key_id));
    pg_put_bytea(p, webhook_sealed_view(s));
}

/* ---- endpoints ---- */

#define ENDPOINT_COLUMNS                                                                   \
    "id, url, events, description, enabled, disabled_reason, disabled_at, failing_since, " \
    "CASE WHEN previous_until > now() THEN previous_until END, created_at"

static const char sql_create[] =
    "INSERT INTO webhook_endpoints (id, tenant, url, lane, events, description, key_id, secret) "
    "SELECT $1, $2::int4, $3, $4, $5, $6, $7, $8 WHERE (SELECT count(*) FROM webhook_endpoints WHERE tenant "
    "= $2) < $9 "
    "ON CONFLICT (id) DO NOTHING RETURNING " ENDPOINT_COLUMNS;
static const char sql_get[] =
    "SELECT " ENDPOINT_COLUMNS " FROM webhook_endpoints WHERE tenant = $1 AND ($2::uuid IS NULL OR id = $2) "
    "AND ($3::uuid IS NULL OR id > $3) ORDER BY id LIMIT $4";
static const char sql_change[] =
    "UPDATE webhook_endpoints SET url = coalesce($3, url), description = coalesce($4, description), "
    "events = coalesce($5, events), enabled = coalesce($6, enabled), "
    "disabled_reason = CASE WHEN $6 THEN NULL WHEN NOT $6 AND enabled THEN 'by its owner' ELSE "
    "disabled_reason END, "
    "disabled_at = CASE WHEN $6 THEN NULL WHEN NOT $6 AND enabled THEN now() ELSE disabled_at END, "
    "failing_since = CASE WHEN $6 OR $3 IS NOT NULL THEN NULL ELSE failing_since END "
    "WHERE id = $2 AND tenant = $1 RETURNING " ENDPOINT_COLUMNS;
static const char sql_rotate[] =
    "UPDATE webhook_endpoints SET previous_key_id = key_id, previous_secret = secret, "
    "previous_until = now() + $5 * interval '1 millisecond', key_id = $3, secret = $4 "
    "WHERE id = $2 AND tenant = $1 RETURNING " ENDPOINT_COLUMNS;
static const char sql_delete[] =
    "WITH d AS (DELETE FROM webhook_endpoints WHERE id = $2 AND tenant = $1 RETURNING *), "
    "o AS (DELETE FROM outbox USING d WHERE outbox.endpoint = d.id) SELECT " ENDPOINT_COLUMNS " FROM d";

static void reply_endpoints(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    struct webhook_endpoint *list = calloc(n + 1, sizeof *list);
    INVARIANT(list != NULL); /* bounded by LIMIT */
    for (size_t i = 0; i < n; i++) {
        int row = (int)i;
        list[i] = (struct webhook_endpoint){.id = pg_get_uuid(r, row, 0),
                                            .url = pg_get_str(r, row, 1),
                                            .events = pg_get_int4(r, row, 2),
                                            .description = pg_get_str(r, row, 3),
                                            .enabled = pg_get_bool(r, row, 4),
                                            .disabled_reason = pg_get_str(r, row, 5),
                                            .disabled_at = pg_get_time(r, row, 6),
                                            .failing_since = pg_get_time(r, row, 7),
                                            .previous_until = pg_get_time(r, row, 8),
                                            .created_at = pg_get_time(r, row, 9)};
    }
    ((webhook_endpoints_fn *)c->fn)(c->arg, list, n, err);
    free(list);
    free(c);
}

int webhook_create(struct pg *pg, int32_t tenant, const struct webhook_new *w, int64_t deadline_ms,
                   webhook_endpoints_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(16 * 1024);
    if (p != NULL) {
        pg_put_uuid(p, w->id);
        pg_put_int4(p, tenant);
        put_text_if(p, w->url.n > 0, w->url);
        pg_put_int8(p, webhook_lane_of_endpoint(w->id));
        pg_put_int4(p, w->events);
        pg_put_text(p, w->description);
        put_sealed(p, &w->secret);
        pg_put_int8(p, WEBHOOK_ENDPOINTS_MAX);
    }
    return call(pg, sql_create, p, deadline_ms, reply_endpoints, (void (*)(void))fn, arg, err);
}

int webhooks_get(struct pg *pg, int32_t tenant, struct uuid id, struct uuid after, int limit,
                 int64_t deadline_ms, webhook_endpoints_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(256);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_uuid_or_null(p, id);
        pg_put_uuid_or_null(p, after);
        pg_put_int8(p, limit);
    }
    return call(pg, sql_get, p, deadline_ms, reply_endpoints, (void (*)(void))fn, arg, err);
}

int webhook_change(struct pg *pg, int32_t tenant, struct uuid id, const struct webhook_change *change,
                   int64_t deadline_ms, webhook_endpoints_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(16 * 1024);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_uuid(p, id);
        put_text_if(p, change->url.p != NULL, change->url);
        put_text_if(p, change->description.p != NULL, change->description);
        if (change->events != 0)
            pg_put_int4(p, change->events);
        else
            pg_put_null(p, PG_INT4);
        if (change->enabled != NULL)
            pg_put_bool(p, *change->enabled);
        else
            pg_put_null(p, PG_BOOL);
    }
    return call(pg, sql_change, p, deadline_ms, reply_endpoints, (void (*)(void))fn, arg, err);
}

int webhook_rotate(struct pg *pg, int32_t tenant, struct uuid id, const struct webhook_sealed *secret,
                   int64_t overlap_ms, int64_t deadline_ms, webhook_endpoints_fn *fn, void *arg,
                   struct err *err)
{
    struct pg_params *p = pg_params_new(1024);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_uuid(p, id);
        put_sealed(p, secret);
        pg_put_int8(p, overlap_ms);
    }
    return call(pg, sql_rotate, p, deadline_ms, reply_endpoints, (void (*)(void))fn, arg, err);
}

int webhook_delete(struct pg *pg, int32_t tenant, struct uuid id, int64_t deadline_ms,
                   webhook_endpoints_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(128);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_uuid(p, id);
    }
    return call(pg, sql_delete, p, deadline_ms, reply_endpoints, (void (*)(void))fn, arg, err);
}

/* ---- putting events into the outbox ---- */

/* Somebody may have the row in hand: then it is on its way already. */
#define AGAIN                                                                                           \
    " ON CONFLICT (id, endpoint) DO UPDATE SET due_at = now(), tries = 0, parked = false, queued_at = " \
    "now() "                                                                                            \
    "WHERE outbox.owner IS NULL RETURNING id"
#define COUNTED(found) \
    "SELECT " found ", (SELECT count(*) FROM o), (SELECT id FROM o ORDER BY id DESC LIMIT 1)"

static const char sql_test[] =
    "WITH e AS (SELECT id, lane FROM webhook_endpoints WHERE id = $2 AND tenant = $1 AND enabled), "
    "o AS (INSERT INTO outbox (id, endpoint, tenant, event, lane, data) SELECT $3, e.id, $1, 8, e.lane, $4 "
    "FROM e "
    "ON CONFLICT DO NOTHING RETURNING id) " COUNTED("EXISTS (SELECT FROM e)");

/* What the event was: an invocation's result, or what the log kept of another kind. */
static const char sql_redeliver[] =
    "WITH e AS (SELECT id, lane FROM webhook_endpoints WHERE id = $2 AND tenant = $1 AND enabled UNION ALL "
    "SELECT id, lane FROM webhook_hooks WHERE id = $2 AND id = $3 AND tenant = $1), "
    "x AS (SELECT status AS event, NULL::text AS data FROM results WHERE id = $3 AND tenant = $1 UNION ALL "
    "SELECT * FROM (SELECT event, data FROM webhook_attempts WHERE endpoint = $2 AND event_id = $3 AND "
    "tenant = $1 "
    "AND data IS NOT NULL AND id >= $3 ORDER BY id LIMIT 1) l), "
    "o AS (INSERT INTO outbox (id, endpoint, tenant, event, lane, data) "
    "SELECT $3, e.id, $1, x.event, e.lane, x.data FROM e, x LIMIT 1" AGAIN
    ") " COUNTED("EXISTS (SELECT FROM e)");

static const char sql_replay[] =
    "WITH e AS (SELECT id, lane, events FROM webhook_endpoints WHERE id = $2 AND tenant = $1 AND enabled), "
    "x AS (SELECT i.id, r.status FROM e, invocations i, LATERAL (SELECT status FROM results r WHERE r.id = "
    "i.id "
    "OFFSET 0) r WHERE i.tenant = $1 AND i.id > $3 AND i.id < $4 AND e.events & (1 << r.status) <> 0 "
    "AND ($5 OR i.id NOT IN (SELECT a.event_id FROM webhook_attempts a WHERE a.endpoint = $2 AND a.id >= $3 "
    "AND a.verdict = 1)) ORDER BY i.id LIMIT $6), "
    "o AS (INSERT INTO outbox (id, endpoint, tenant, event, lane) SELECT x.id, e.id, $1, x.status, e.lane "
    "FROM e, x "
    "ORDER BY 1" AGAIN ") SELECT EXISTS (SELECT FROM e), (SELECT count(*) FROM x), "
    "(SELECT id FROM x ORDER BY id DESC LIMIT 1)";

static void reply_queued(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    bool fine = err == NULL;
    ((webhook_queued_fn *)c->fn)(c->arg, fine && pg_get_bool(r, 0, 0), fine ? pg_get_int8(r, 0, 1) : 0,
                                 fine && !pg_is_null(r, 0, 2) ? pg_get_uuid(r, 0, 2) : (struct uuid){0}, err);
    free(c);
}

int webhook_test(struct pg *pg, int32_t tenant, struct uuid endpoint, struct uuid event, struct str data,
                 int64_t deadline_ms, webhook_queued_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(4096);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_uuid(p, endpoint);
        pg_put_uuid(p, event);
        pg_put_text(p, data);
    }
    return call(pg, sql_test, p, deadline_ms, reply_queued, (void (*)(void))fn, arg, err);
}

int webhook_redeliver(struct pg *pg, int32_t tenant, struct uuid endpoint, struct uuid event,
                      int64_t deadline_ms, webhook_queued_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(256);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_uuid(p, endpoint);
        pg_put_uuid(p, event);
    }
    return call(pg, sql_redeliver, p, deadline_ms, reply_queued, (void (*)(void))fn, arg, err);
}

int webhook_replay(struct pg *pg, int32_t tenant, struct uuid endpoint, struct uuid after, struct uuid before,
                   bool all, int64_t deadline_ms, webhook_queued_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(256);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_uuid(p, endpoint);
        pg_put_uuid(p, after);
        pg_put_uuid(p, before);
        pg_put_bool(p, all);
        pg_put_int8(p, WEBHOOK_REPLAY_MAX);
    }
    return call(pg, sql_replay, p, deadline_ms, reply_queued, (void (*)(void))fn, arg, err);
}

/* ---- hooks ---- */

static const char sql_hook[] = "INSERT INTO webhook_hooks (" WEBHOOK_HOOK_COLUMNS
                               ") VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";

int webhook_hook_put(struct pg *pg, int32_t tenant, struct uuid id, const struct webhook_hook *hook,
                     int64_t deadline_ms, webhook_done_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(8 * 1024);
    if (p != NULL) {
        pg_put_uuid(p, id);
        pg_put_int4(p, tenant);
        pg_put_text(p, hook->url);
        pg_put_int8(p, hook->lane);
        put_sealed(p, &hook->secret);
    }
    return call(pg, sql_hook, p, deadline_ms, store_reply_done, (void (*)(void))fn, arg, err);
}

/* ---- the log ---- */

static const char sql_attempts[] =
    "SELECT id, event_id, event, try, url, body_bytes, duration_ms, status, error, response, verdict, "
    "next_at "
    "FROM webhook_attempts WHERE endpoint = $2 AND tenant = $1 AND id < $3 ORDER BY id DESC LIMIT $4";

static void reply_attempts(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    struct webhook_attempt *list = calloc(n + 1, sizeof *list);
    INVARIANT(list != NULL); /* bounded by LIMIT */
    for (size_t i = 0; i < n; i++) {
        int row = (int)i;
        list[i] = (struct webhook_attempt){.id = pg_get_uuid(r, row, 0),
                                           .event_id = pg_get_uuid(r, row, 1),
                                           .event = pg_get_int2(r, row, 2),
                                           .try = pg_get_int2(r, row, 3),
                                           .url = pg_get_str(r, row, 4),
                                           .body_bytes = pg_get_int4(r, row, 5),
                                           .duration_ms = pg_get_int4(r, row, 6),
                                           .status = pg_get_int2(r, row, 7),
                                           .error = pg_get_str(r, row, 8),
                                           .response = pg_get_str(r, row, 9),
                                           .verdict = (enum webhook_verdict)pg_get_int2(r, row, 10),
                                           .next_at = pg_get_time(r, row, 11)};
    }
    ((webhook_attempts_fn *)c->fn)(c->arg, list, n, err);
    free(list);
    free(c);
}

int webhook_attempts_get(struct pg *pg, int32_t tenant, struct uuid endpoint, struct uuid before, int limit,
                         int64_t deadline_ms, webhook_attempts_fn *fn, void *arg, struct err *err)
{
    static const struct uuid most = {
        {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
    struct pg_params *p = pg_params_new(256);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_uuid(p, endpoint);
        pg_put_uuid(p, uuid_is_zero(before) ? most : before);
        pg_put_int8(p, limit);
    }
    return call(pg, sql_attempts, p, deadline_ms, reply_attempts, (void (*)(void))fn, arg, err);
}

/* ---- streams ---- */

/* The first row says whether the stream is there; its other columns are NULL when nothing is. */
static const char sql_stream[] =
    "WITH e AS (UPDATE webhook_endpoints SET seen_at = now() WHERE id = $2 AND tenant = $1 AND url IS NULL "
    "RETURNING id), d AS (DELETE FROM webhook_streamed s USING e WHERE s.endpoint = e.id AND s.id <= $3) "
    "SELECT s.id, s.webhook_id, s.sent_at, s.signature, s.body FROM e LEFT JOIN LATERAL (SELECT * FROM "
    "webhook_streamed s WHERE s.endpoint = e.id AND s.id > $3 ORDER BY s.id LIMIT $4) s ON true ORDER BY "
    "s.id";

static void reply_stream(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t rows = err == NULL ? (size_t)pg_rows(r) : 0, n = 0;
    struct webhook_streamed *list = calloc(rows + 1, sizeof *list);
    INVARIANT(list != NULL); /* bounded by LIMIT */
    for (int row = 0; row < (int)rows; row++) {
        if (pg_is_null(r, row, 0))
            continue;
        list[n++] = (struct webhook_streamed){.id = pg_get_uuid(r, row, 0),
                                              .webhook_id = pg_get_str(r, row, 1),
                                              .sent_at = pg_get_int8(r, row, 2),
                                              .signature = pg_get_str(r, row, 3),
                                              .body = pg_get_str(r, row, 4)};
    }
    ((webhook_streamed_fn *)c->fn)(c->arg, rows > 0, list, n, err);
    free(list);
    free(c);
}

int webhook_stream_get(struct pg *pg, int32_t tenant, struct uuid endpoint, struct uuid after, int limit,
                       int64_t deadline_ms, webhook_streamed_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(256);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_uuid(p, endpoint);
        pg_put_uuid(p, after);
        pg_put_int8(p, limit);
    }
    return call(pg, sql_stream, p, deadline_ms, reply_stream, (void (*)(void))fn, arg, err);
}
