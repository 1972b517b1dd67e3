/* Secrets, sealed: those of agents, and the environments that came with submissions. Nothing here can open
 * them.
 *
 * What was sealed is bound to its place (crypto/place.h): tenant, agent's name, and an agent's secret's own.
 */
#ifndef STORE_SECRETS_H
#define STORE_SECRETS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "model/environment.h"
#include "postgres/pg.h"

/* ---- for the API ---- */

struct secret_listed {
    struct str name;
    wall_t set_at;
};
/* found false: no such agent. All of them, by name; views are valid during the callback. */
typedef void secrets_list_fn(void *arg, bool found, const struct secret_listed *list, size_t n,
                             const struct err *err);
int secrets_list(struct pg *pg, int32_t tenant, struct str slug, int64_t deadline_ms, secrets_list_fn *fn,
                 void *arg, struct err *err);

enum secret_put { SECRET_SET, SECRET_NO_AGENT, SECRET_TOO_MANY, SECRET_TOO_MUCH };
typedef void secret_put_fn(void *arg, enum secret_put what, wall_t set_at, const struct err *err);
/* bytes: of the value. May be repeated. */
int secret_put(struct pg *pg, int32_t tenant, struct str slug, struct str name, struct str key_id,
               struct str sealed, int32_t bytes, int64_t deadline_ms, secret_put_fn *fn, void *arg,
               struct err *err);

enum secret_deleted { SECRET_DELETED, SECRET_NONE, SECRET_NONE_NO_AGENT };
typedef void secret_delete_fn(void *arg, enum secret_deleted what, const struct err *err);
int secret_delete(struct pg *pg, int32_t tenant, struct str slug, struct str name, int64_t deadline_ms,
                  secret_delete_fn *fn, void *arg, struct err *err);

/* ---- for executors ---- */

struct secret_sealed {
    struct str name, key_id, sealed;
};
/* All of an agent's, by name; views are valid during the callback. */
typedef void secrets_get_fn(void *arg, const struct secret_sealed *list, size_t n, const struct err *err);
int secrets_get(struct pg *pg, int32_t tenant, struct uuid agent, int64_t deadline_ms, secrets_get_fn *fn,
                void *arg, struct err *err);

/* An invocation's own: one, without a name, or none. */
int secrets_of_invocation(struct pg *pg, int32_t tenant, struct uuid id, int64_t deadline_ms,
                          secrets_get_fn *fn, void *arg, struct err *err);

/* ---- for rotating keys: everything sealed, table by table, crossing tenants ---- */

enum secrets_table { SECRETS_OF_AGENTS, SECRETS_OF_INVOCATIONS, SECRETS_TABLES };

struct secrets_row {
    struct uuid id;  /* the agent, or the invocation */
    struct str name; /* empty but for agents' */
    struct str key_id, sealed;
};
typedef void secrets_stale_fn(void *arg, const struct secrets_row *rows, size_t n, const struct err *err);
/* Up to limit rows of a table that another key than this one sealed, in order, after (id, name). */
int secrets_stale(struct pg *pg, enum secrets_table table, struct str key_id, struct uuid after,
                  struct str after_name, int limit, int64_t deadline_ms, secrets_stale_fn *fn, void *arg,
                  struct err *err);

struct secrets_change {
    struct uuid id;
    struct str name, old_sealed, new_sealed;
};
/* Puts new seals in place of the old ones, where those still stand: a value that was set meanwhile stays. */
typedef void secrets_reseal_fn(void *arg, int64_t changed, const struct err *err);
int secrets_reseal(struct pg *pg, enum secrets_table table, struct str key_id,
                   const struct secrets_change *changes, size_t n, int64_t deadline_ms, secrets_reseal_fn *fn,
                   void *arg, struct err *err);

#endif
