/* Deleting agents. */
#ifndef STORE_AGENT_DELETE_H
#define STORE_AGENT_DELETE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "postgres/pg.h"

struct agent_deleted {
    bool there;                /* there was an agent of that name */
    int64_t schedule_count;    /* above 0: so many name it, and it is there still */
    struct str schedule_names; /* the first of them, for people; valid during the callback */
};
typedef void agent_delete_fn(void *arg, const struct agent_deleted *what, const struct err *err);
/* From here on nobody finds it by its name, which is free. What was accepted runs to its end. */
int agent_delete(struct pg *pg, int32_t tenant, struct str slug, int64_t deadline_ms, agent_delete_fn *fn,
                 void *arg, struct err *err);

#endif
