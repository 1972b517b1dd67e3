/* Deleting agents. */
#include "store/agent_delete.h"

#include <stdlib.h>

#include "store/call.h"

static const char sql_delete[] =
    "SELECT there, schedule_count, schedule_names FROM sandpiper_agent_delete($1, $2)";

static void reply_delete(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    struct agent_deleted what = {0};
    if (err == NULL)
        what = (struct agent_deleted){.there = pg_get_bool(r, 0, 0),
                                      .schedule_count = pg_get_int8(r, 0, 1),
                                      .schedule_names = pg_get_str(r, 0, 2)};
    ((agent_delete_fn *)c->fn)(c->arg, &what, err);
    free(c);
}

int agent_delete(struct pg *pg, int32_t tenant, struct str slug, int64_t deadline_ms, agent_delete_fn *fn,
                 void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(512);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_text(p, slug);
    }
    return store_query(pg, sql_delete, p, deadline_ms, reply_delete, (void (*)(void))fn, arg, err);
}
