/* Templates that agents name. */
#include "store/templates.h"

#include <stdlib.h>

#include "store/call.h"

static const char sql_ours[] =
    "SELECT EXISTS (SELECT FROM deployment d WHERE strpos(lower($1), d.id::text) > 0) OR EXISTS (SELECT FROM "
    "agent_versions v WHERE v.snapshot IS NOT NULL AND sandpiper_template_key(v.snapshot) = "
    "sandpiper_template_key($1))";

static void reply_ours(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    bool ours = err != NULL || pg_rows(r) != 1 || pg_get_bool(r, 0, 0);
    ((template_ours_fn *)c->fn)(c->arg, ours, err);
    free(c);
}

int template_ours(struct pg *pg, struct str name, int64_t deadline_ms, template_ours_fn *fn, void *arg,
                  struct err *err)
{
    struct pg_params *p = pg_params_new(512);
    if (p != NULL)
        pg_put_text(p, name);
    return store_query(pg, sql_ours, p, deadline_ms, reply_ours, (void (*)(void))fn, arg, err);
}
