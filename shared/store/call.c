/* Queries with typed callbacks. */
#include "store/call.h"

#include <stdlib.h>

int store_query(struct pg *pg, const char *sql, struct pg_params *params, int64_t deadline_ms,
                pg_done_fn *reply, void (*fn)(void), void *arg, struct err *err)
{
    struct store_call *c = params != NULL ? malloc(sizeof *c) : NULL;
    int rc = -1;
    if (c == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory for a query");
    } else {
        *c = (struct store_call){.fn = fn, .arg = arg};
        if (pg_query(pg, sql, params, deadline_ms, reply, c, err) != NULL)
            rc = 0;
        else
            free(c);
    }
    pg_params_free(&params);
    return rc;
}

void store_reply_done(void *arg, const struct pg_result *result, const struct err *err)
{
    (void)result;
    struct store_call *c = arg;
    if (c->fn != NULL)
        ((store_done_fn *)c->fn)(c->arg, err);
    free(c);
}
