/* What is run again. */
#include "store/retry_source.h"

#include <stdlib.h>
#include <string.h>

#include "store/call.h"

/* Limits of the queue are whole seconds. One that was to begin later has the time until then added (see
 * submission.c), which is taken off again. */
static const char sql_source[] =
    "SELECT i.agent, g.slug, i.version, i.priority, i.timeout_ms, CASE WHEN s.id IS NULL THEN "
    "i.queue_timeout_ms ELSE greatest(round((i.queue_timeout_ms - extract(epoch FROM s.not_before) * 1000 + "
    "('x' || left(replace(i.id::text, '-', ''), 12))::bit(48)::int8) / 1000), 1)::int8 * 1000 END, "
    "i.max_attempts, i.retry_on, i.prompt, i.prompt_bytes, i.metadata, i.traceparent, r.status, h.url, "
    "h.lane, "
    "h.key_id, h.secret, e.key_id, e.sealed, i.files FROM invocations i JOIN agents g ON g.id = i.agent "
    "LEFT JOIN results r ON r.id = i.id AND r.id = $1 LEFT JOIN webhook_hooks h ON h.id = i.id AND h.id = $1 "
    "LEFT JOIN invocation_env e ON e.id = i.id AND e.id = $1 AND i.env "
    "LEFT JOIN attempts s ON s.id = i.id AND s.id = $1 AND s.attempt = 1 WHERE i.id = $1 AND i.tenant = $2";

static bool read_hook(const struct pg_result *r, struct webhook_hook *out)
{
    struct str secret = pg_get_str(r, 0, 16);
    if (pg_is_null(r, 0, 13) || secret.n > sizeof out->secret.b)
        return false;
    out->url = pg_get_str(r, 0, 13);
    out->lane = pg_get_int8(r, 0, 14);
    str_copy(pg_get_str(r, 0, 15), out->secret.key_id, sizeof out->secret.key_id);
    memcpy(out->secret.b, secret.p, secret.n);
    out->secret.n = secret.n;
    return true;
}

static void reply_source(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    struct retry_source s;
    bool found = err == NULL && pg_rows(r) == 1;
    if (found) {
        s = (struct retry_source){.agent = pg_get_uuid(r, 0, 0),
                                  .slug = pg_get_str(r, 0, 1),
                                  .version = pg_get_int4(r, 0, 2),
                                  .priority = (enum inv_priority)pg_get_int2(r, 0, 3),
                                  .timeout_ms = pg_get_int4(r, 0, 4),
                                  .queue_timeout_ms = pg_get_int8(r, 0, 5),
                                  .max_attempts = pg_get_int2(r, 0, 6),
                                  .retry_on = pg_get_int2(r, 0, 7),
                                  .prompt = pg_get_str(r, 0, 8),
                                  .prompt_bytes = pg_get_int4(r, 0, 9),
                                  .metadata = pg_get_str(r, 0, 10),
                                  .traceparent = pg_get_str(r, 0, 11),
                                  .state = (enum inv_state)pg_get_int2(r, 0, 12),
                                  .env_key = pg_get_str(r, 0, 17),
                                  .env = pg_get_str(r, 0, 18),
                                  .files = pg_get_uuid(r, 0, 19)};
        s.hooked = read_hook(r, &s.hook);
    }
    ((retry_source_fn *)c->fn)(c->arg, found ? &s : NULL, err);
    free(c);
}

int retry_source_get(struct pg *pg, struct uuid id, int32_t tenant, int64_t deadline_ms, retry_source_fn *fn,
                     void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL) {
        pg_put_uuid(p, id);
        pg_put_int4(p, tenant);
    }
    return store_query(pg, sql_source, p, deadline_ms, reply_source, (void (*)(void))fn, arg, err);
}
