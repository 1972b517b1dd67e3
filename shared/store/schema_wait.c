/* Waiting for the schema. */
#include "store/schema_wait.h"

#include <stdio.h>
#include <stdlib.h>

#include "store/migrate.h"

enum { AGAIN_MS = 1000, CHECK_MS = 5000 };

struct schema_wait {
    struct loop_timer *timer;
    struct pg *pg;
    void (*ready)(void *arg, struct uuid deployment);
    void (*waiting)(void *arg, const char *why);
    void *arg;
    enum { SAID_NOTHING, SAID_DATABASE, SAID_SCHEMA } said; /* each reason once in a row */
};

static void on_schema(void *arg, int found, int wanted, struct uuid deployment, const struct err *err)
{
    struct schema_wait *w = arg;
    char why[sizeof err->msg + 32];
    if (err == NULL && found == wanted) {
        w->ready(w->arg, deployment);
        return;
    }
    if (err != NULL)
        snprintf(why, sizeof why, "waiting for PostgreSQL: %s", err->msg);
    else
        snprintf(why, sizeof why, "waiting for schema %d (found %d): run `sandpiper migrate`", wanted, found);
    bool same = w->said == (err != NULL ? SAID_DATABASE : SAID_SCHEMA);
    w->said = err != NULL ? SAID_DATABASE : SAID_SCHEMA;
    if (!same)
        w->waiting(w->arg, why);
    loop_timer_start(w->timer, AGAIN_MS);
}

static void look(void *arg)
{
    struct schema_wait *w = arg;
    if (schema_check(w->pg, CHECK_MS, on_schema, w, NULL) != 0)
        loop_timer_start(w->timer, AGAIN_MS);
}

struct schema_wait *schema_wait_new(struct loop *loop, struct pg *pg,
                                    void (*ready)(void *arg, struct uuid deployment),
                                    void (*waiting)(void *arg, const char *why), void *arg)
{
    struct schema_wait *w = calloc(1, sizeof *w);
    if (w == NULL)
        return NULL;
    *w = (struct schema_wait){.pg = pg, .ready = ready, .waiting = waiting, .arg = arg};
    w->timer = loop_timer_new(loop, look, w);
    if (w->timer == NULL)
        schema_wait_free(&w);
    else
        loop_timer_start(w->timer, 0);
    return w;
}

void schema_wait_free(struct schema_wait **w)
{
    if (w == NULL || *w == NULL)
        return;
    loop_timer_free(&(*w)->timer);
    free(*w);
    *w = NULL;
}
