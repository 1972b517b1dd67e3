/* Versions that want sandboxes kept ready (agent.json's warm_pool). */
#ifndef STORE_WARM_H
#define STORE_WARM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/id.h"
#include "base/str.h"
#include "postgres/pg.h"

/* min == max: so many, always; else as many as its arrivals call for, within these. Of the whole fleet. */
struct warm_version {
    struct uuid id; /* agent_versions.id */
    int32_t tenant;
    struct str snapshot;
    int32_t timeout_ms; /* the agent's own default limit; 0: the system's */
    int32_t min, max;
    bool no_internet;
};
/* Views are valid during the callback. */
typedef void warm_versions_fn(void *arg, const struct warm_version *list, size_t n, const struct err *err);
/* Those that serve now, of all tenants: each tenant's first, then each one's second …, so that who has many
 * agents takes no other's turn when there is not room for all. */
int warm_versions_get(struct pg *pg, int limit, int64_t deadline_ms, warm_versions_fn *fn, void *arg,
                      struct err *err);

#endif
