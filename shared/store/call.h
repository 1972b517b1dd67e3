/* Inside the store only: a query with a typed callback. */
#ifndef STORE_CALL_H
#define STORE_CALL_H

#include "postgres/pg.h"

/* The typed callback (cast back by its reader) and its argument; free it when it has been called. */
struct store_call {
    void (*fn)(void);
    void *arg;
};

/* Takes params (NULL is out of memory). 0, or -1 and *err. */
int store_query(struct pg *pg, const char *sql, struct pg_params *params, int64_t deadline_ms,
                pg_done_fn *reply, void (*fn)(void), void *arg, struct err *err);

/* A reader for `void fn(void *arg, const struct err *err)`. */
typedef void store_done_fn(void *arg, const struct err *err);
void store_reply_done(void *arg, const struct pg_result *result, const struct err *err);

#endif
