/* Versions that want sandboxes kept ready. */
#include "store/warm.h"

#include <stdlib.h>

#include "store/call.h"

static const char sql_warm[] =
    "SELECT v.id, v.tenant, v.snapshot, coalesce(v.timeout_ms, 0), v.warm_min, v.warm_max, "
    "coalesce(nullif(v.manifest, '')::jsonb ->> 'egress' = 'deny', false) "
    "FROM agent_versions v JOIN agents a ON a.id = v.agent AND a.serving = v.version "
    "WHERE v.warm_max > 0 AND v.status = 1 "
    "ORDER BY row_number() OVER (PARTITION BY v.tenant ORDER BY a.slug), v.tenant LIMIT $1";

static void reply_warm(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    struct warm_version *list = calloc(n + 1, sizeof *list);
    struct err none;
    if (list == NULL && err == NULL) {
        err_set(&none, ERR_NO_MEMORY, "no memory for versions");
        err = &none;
    }
    for (size_t i = 0; err == NULL && i < n; i++)
        list[i] = (struct warm_version){.id = pg_get_uuid(r, (int)i, 0),
                                        .tenant = pg_get_int4(r, (int)i, 1),
                                        .snapshot = pg_get_str(r, (int)i, 2),
                                        .timeout_ms = pg_get_int4(r, (int)i, 3),
                                        .min = pg_get_int4(r, (int)i, 4),
                                        .max = pg_get_int4(r, (int)i, 5),
                                        .no_internet = pg_get_bool(r, (int)i, 6)};
    ((warm_versions_fn *)c->fn)(c->arg, list, err == NULL ? n : 0, err);
    free(list);
    free(c);
}

int warm_versions_get(struct pg *pg, int limit, int64_t deadline_ms, warm_versions_fn *fn, void *arg,
                      struct err *err)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL)
        pg_put_int8(p, limit);
    return store_query(pg, sql_warm, p, deadline_ms, reply_warm, (void (*)(void))fn, arg, err);
}
