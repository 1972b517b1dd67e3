/* Schedules. */
#include "store/schedules.h"

#include <stdio.h>
#include <stdlib.h>

#include "store/call.h"

enum { MINUTE_TEXT_BYTES = 40 };

/* ---- minutes on the wall ---- */

#define MINUTE_COLUMNS(t)                                                                              \
    "extract(year FROM " t ")::int4, extract(month FROM " t ")::int4, extract(day FROM " t ")::int4, " \
    "extract(hour FROM " t ")::int4, extract(minute FROM " t ")::int4"

static struct cron_minute read_minute(const struct pg_result *r, int row, int col)
{
    return (struct cron_minute){pg_get_int4(r, row, col), pg_get_int4(r, row, col + 1),
                                pg_get_int4(r, row, col + 2), pg_get_int4(r, row, col + 3),
                                pg_get_int4(r, row, col + 4)};
}

static void put_minute(struct pg_params *p, struct cron_minute m)
{
    char text[MINUTE_TEXT_BYTES];
    snprintf(text, sizeof text, "%04d-%02d-%02d %02d:%02d", m.year, m.month, m.day, m.hour, m.minute);
    pg_put_text(p, str_of(text));
}

static const char sql_clock[] = "SELECT " MINUTE_COLUMNS("t") " FROM (SELECT now() AT TIME ZONE $1 AS t) x";

static void reply_clock(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    struct cron_minute now = {0};
    if (err == NULL)
        now = read_minute(r, 0, 0);
    ((schedule_clock_fn *)c->fn)(c->arg, now, err);
    free(c);
}

int schedule_clock(struct pg *pg, struct str time_zone, int64_t deadline_ms, schedule_clock_fn *fn, void *arg,
                   struct err *err)
{
    struct pg_params *p = pg_params_new(512);
    if (p != NULL)
        pg_put_text(p, time_zone);
    return store_query(pg, sql_clock, p, deadline_ms, reply_clock, (void (*)(void))fn, arg, err);
}

/* ---- making ---- */

/* The row's own id coming back means that it is there, also when the statement is sent again. */
static const char sql_put[] =
    "WITH i AS (INSERT INTO schedules (id, tenant, api_key, name, cron, time_zone, agent, version, priority, "
    "timeout_ms, queue_timeout_ms, max_attempts, retry_on, prompt, metadata, created_at, next_at) "
    "SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, "
    "sandpiper_instant($17::text::timestamp, $6, $18) "
    "WHERE (SELECT count(*) FROM schedules WHERE tenant = $2) < $19 "
    "ON CONFLICT (tenant, name) DO NOTHING RETURNING id, next_at) "
    "SELECT id, next_at FROM i UNION ALL SELECT id, next_at FROM schedules WHERE tenant = $2 AND name = $4";

struct put {
    struct uuid id;
    schedule_put_fn *fn;
    void *arg;
};

static void reply_put(void *arg, const struct pg_result *r, const struct err *err)
{
    struct put *p = arg;
    enum schedule_put what = SCHEDULE_TOO_MANY;
    wall_t next_at = {0};
    if (err == NULL && pg_rows(r) > 0) {
        what = uuid_eq(pg_get_uuid(r, 0, 0), p->id) ? SCHEDULE_MADE : SCHEDULE_NAME_TAKEN;
        next_at = pg_get_time(r, 0, 1);
    }
    p->fn(p->arg, what, next_at, err);
    free(p);
}

static void put_row(struct pg_params *p, const struct schedule *s)
{
    pg_put_uuid(p, s->id);
    pg_put_int4(p, s->tenant);
    pg_put_uuid(p, s->api_key);
    pg_put_text(p, s->name);
    pg_put_text(p, s->cron);
    pg_put_text(p, s->time_zone);
    pg_put_text(p, s->agent);
    pg_put_int4(p, s->version);
    pg_put_int2(p, (int16_t)s->priority);
    pg_put_int4(p, s->timeout_ms);
    pg_put_int8(p, s->queue_timeout_ms);
    pg_put_int2(p, s->max_attempts);
    pg_put_int2(p, s->retry_on);
    pg_put_bytea(p, s->prompt);
    if (s->metadata.n > 0)
        pg_put_text(p, s->metadata);
    else
        pg_put_null(p, PG_TEXT);
    pg_put_time(p, s->created_at);
}

int schedule_put(struct pg *pg, const struct schedule *s, struct cron_minute next, bool every_hour,
                 int64_t deadline_ms, schedule_put_fn *fn, void *arg, struct err *err)
{
    struct put *put = malloc(sizeof *put);
    struct pg_params *p = put != NULL ? pg_params_new(s->prompt.n + s->metadata.n + 4096) : NULL;
    if (p == NULL) {
        free(put);
        return err_set(err, ERR_NO_MEMORY, "no memory for a schedule");
    }
    *put = (struct put){.id = s->id, .fn = fn, .arg = arg};
    put_row(p, s);
    put_minute(p, next);
    pg_put_bool(p, every_hour);
    pg_put_int8(p, SCHEDULES_MAX);
    struct pg_request *sent = pg_query(pg, sql_put, p, deadline_ms, reply_put, put, err);
    pg_params_free(&p);
    if (sent != NULL)
        return 0;
    free(put);
    return -1;
}

/* ---- reading ---- */

static const char sql_get[] =
    "SELECT id, name, cron, time_zone, enabled, agent, version, priority, timeout_ms, queue_timeout_ms, "
    "max_attempts, retry_on, prompt, metadata, next_at, last_at, last_invocation, last_error, created_at, "
    "api_key "
    "FROM schedules WHERE tenant = $1 AND ($2 = '' OR name = $2) AND name > $3 ORDER BY name LIMIT $4";

static void read_schedule(const struct pg_result *r, int i, struct schedule *out)
{
    *out = (struct schedule){.id = pg_get_uuid(r, i, 0),
                             .name = pg_get_str(r, i, 1),
                             .cron = pg_get_str(r, i, 2),
                             .time_zone = pg_get_str(r, i, 3),
                             .enabled = pg_get_bool(r, i, 4),
                             .agent = pg_get_str(r, i, 5),
                             .version = pg_get_int4(r, i, 6),
                             .priority = (enum inv_priority)pg_get_int2(r, i, 7),
                             .timeout_ms = pg_get_int4(r, i, 8),
                             .queue_timeout_ms = pg_get_int8(r, i, 9),
                             .max_attempts = pg_get_int2(r, i, 10),
                             .retry_on = pg_get_int2(r, i, 11),
                             .prompt = pg_get_str(r, i, 12),
                             .metadata = pg_get_str(r, i, 13),
                             .next_at = pg_get_time(r, i, 14),
                             .last_at = pg_get_time(r, i, 15),
                             .last_error = pg_get_str(r, i, 17),
                             .created_at = pg_get_time(r, i, 18),
                             .api_key = pg_get_uuid(r, i, 19)};
    if (!pg_is_null(r, i, 16))
        out->last_invocation = pg_get_uuid(r, i, 16);
}

static void reply_get(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    struct schedule *list = calloc(n + 1, sizeof *list);
    struct err none;
    if (list == NULL && err == NULL) {
        err_set(&none, ERR_NO_MEMORY, "no memory for schedules");
        err = &none;
    }
    for (size_t i = 0; err == NULL && i < n; i++)
        read_schedule(r, (int)i, &list[i]);
    ((schedules_fn *)c->fn)(c->arg, list, err == NULL ? n : 0, err);
    free(list);
    free(c);
}

int schedules_get(struct pg *pg, int32_t tenant, struct str name, struct str after, int limit,
                  int64_t deadline_ms, schedules_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(512);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_text(p, name);
        pg_put_text(p, after);
        pg_put_int8(p, limit);
    }
    return store_query(pg, sql_get, p, deadline_ms, reply_get, (void (*)(void))fn, arg, err);
}

/* ---- changing ---- */

static const char sql_delete[] = "DELETE FROM schedules WHERE tenant = $1 AND name = $2 RETURNING id";
/* One that was paused is planned anew by a dispatcher: what it missed meanwhile does not fire. */
static const char sql_enable[] =
    "UPDATE schedules SET enabled = $3, next_at = CASE WHEN $3 AND enabled THEN next_at END "
    "WHERE tenant = $1 AND name = $2 RETURNING id";

static void reply_change(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    ((schedule_change_fn *)c->fn)(c->arg, err == NULL && pg_rows(r) > 0, err);
    free(c);
}

int schedule_delete(struct pg *pg, int32_t tenant, struct str name, int64_t deadline_ms,
                    schedule_change_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(512);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_text(p, name);
    }
    return store_query(pg, sql_delete, p, deadline_ms, reply_change, (void (*)(void))fn, arg, err);
}

int schedule_enable(struct pg *pg, int32_t tenant, struct str name, bool enabled, int64_t deadline_ms,
                    schedule_change_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(512);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_text(p, name);
        pg_put_bool(p, enabled);
    }
    return store_query(pg, sql_enable, p, deadline_ms, reply_change, (void (*)(void))fn, arg, err);
}

/* ---- firing ---- */

static const char sql_due[] = "SELECT id, tenant, cron, next_at, " MINUTE_COLUMNS(
    "(now() AT TIME ZONE time_zone)") " FROM schedules WHERE enabled AND (next_at IS NULL OR next_at <= "
                                      "now()) "
                                      "ORDER BY next_at NULLS FIRST, id LIMIT $1";

static void reply_due(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    struct schedule_due *list = calloc(n + 1, sizeof *list);
    n = list != NULL ? n : 0;
    for (size_t i = 0; i < n; i++)
        list[i] = (struct schedule_due){.id = pg_get_uuid(r, (int)i, 0),
                                        .tenant = pg_get_int4(r, (int)i, 1),
                                        .cron = pg_get_str(r, (int)i, 2),
                                        .planned = !pg_is_null(r, (int)i, 3),
                                        .next_at = pg_get_time(r, (int)i, 3),
                                        .now = read_minute(r, (int)i, 4)};
    ((schedules_due_fn *)c->fn)(c->arg, list, n, err);
    free(list);
    free(c);
}

int schedules_due(struct pg *pg, int limit, int64_t deadline_ms, schedules_due_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL)
        pg_put_int8(p, limit);
    return store_query(pg, sql_due, p, deadline_ms, reply_due, (void (*)(void))fn, arg, NULL);
}

static const char sql_plan[] =
    "UPDATE schedules SET next_at = sandpiper_instant($2::text::timestamp, time_zone, $3) "
    "WHERE id = $1 AND enabled AND next_at IS NULL";

/* Whoever comes second finds another next_at, once it has the row. */
static const char sql_fire[] =
    "WITH r AS (SELECT s.id, a.id AS agent_id, v.version AS v, v.timeout_ms AS agent_timeout_ms, "
    "v.max_attempts "
    "AS agent_max_attempts, v.retry_on AS agent_retry_on FROM "
    "schedules s "
    "LEFT JOIN agents a ON a.tenant = s.tenant AND a.slug = s.agent "
    "LEFT JOIN agent_versions v ON v.agent = a.id AND v.status = 1 "
    "AND v.version = CASE WHEN s.version > 0 THEN s.version ELSE a.serving END WHERE s.id = $1), "
    "u AS (UPDATE schedules s SET last_at = s.next_at, "
    "next_at = sandpiper_instant($2::text::timestamp, s.time_zone, $3), "
    "last_invocation = CASE WHEN r.v IS NOT NULL THEN $5::uuid END, "
    "last_error = CASE WHEN r.v IS NULL THEN 'agent_not_ready' END "
    "FROM r WHERE s.id = r.id AND s.enabled AND s.next_at = $4 RETURNING s.*, r.agent_id, r.v, "
    "r.agent_timeout_ms, r.agent_max_attempts, r.agent_retry_on) "
    "INSERT INTO invocations (id, tenant, agent, version, api_key, priority, timeout_ms, queue_timeout_ms, "
    "max_attempts, retry_on, prompt, prompt_bytes, metadata) "
    "SELECT $5, tenant, agent_id, v, api_key, priority, coalesce(nullif(timeout_ms, 0), agent_timeout_ms, "
    "$6), "
    "queue_timeout_ms, coalesce(nullif(max_attempts, 0), nullif(agent_max_attempts, 0), 1), "
    "CASE WHEN max_attempts = 0 THEN agent_retry_on ELSE retry_on END, "
    "prompt, octet_length(prompt), metadata FROM u WHERE v IS NOT "
    "NULL "
    "RETURNING id";

static void reply_fire(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    ((schedule_fire_fn *)c->fn)(c->arg, err == NULL && pg_rows(r) > 0, err);
    free(c);
}

int schedule_fire(struct pg *pg, const struct schedule_due *due, struct uuid invocation,
                  struct cron_minute next, bool every_hour, int64_t deadline_ms, schedule_fire_fn *fn,
                  void *arg)
{
    struct pg_params *p = pg_params_new(512);
    if (p != NULL) {
        pg_put_uuid(p, due->id);
        put_minute(p, next);
        pg_put_bool(p, every_hour);
    }
    if (p != NULL && due->planned) {
        pg_put_time(p, due->next_at);
        pg_put_uuid(p, invocation);
        pg_put_int4(p, INV_TIMEOUT_DEFAULT_MS);
    }
    return store_query(pg, due->planned ? sql_fire : sql_plan, p, deadline_ms, reply_fire, (void (*)(void))fn,
                       arg, NULL);
}
