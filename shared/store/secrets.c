/* Secrets, sealed. */
#include "store/secrets.h"

#include <stdlib.h>

#include "store/call.h"

/* ---- the API's ---- */

/* An agent without any yields one row of nulls: it is there. */
static const char sql_list[] =
    "SELECT s.name, s.set_at FROM agents a LEFT JOIN agent_secrets s ON s.agent = a.id "
    "WHERE a.tenant = $1 AND a.slug = $2 ORDER BY s.name COLLATE \"C\"";

static void reply_list(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    struct secret_listed list[SECRETS_MAX];
    size_t n = 0;
    bool found = err == NULL && pg_rows(r) > 0;
    for (int i = 0; found && i < pg_rows(r) && n < SECRETS_MAX; i++)
        if (!pg_is_null(r, i, 0))
            list[n++] = (struct secret_listed){.name = pg_get_str(r, i, 0), .set_at = pg_get_time(r, i, 1)};
    ((secrets_list_fn *)c->fn)(c->arg, found, list, n, err);
    free(c);
}

int secrets_list(struct pg *pg, int32_t tenant, struct str slug, int64_t deadline_ms, secrets_list_fn *fn,
                 void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(512);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_text(p, slug);
    }
    return store_query(pg, sql_list, p, deadline_ms, reply_list, (void (*)(void))fn, arg, err);
}

static const char sql_put[] = "SELECT verdict, at FROM sandpiper_secret_put($1, $2, $3, $4, $5, $6, $7, $8)";

static void reply_put(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    int32_t verdict = err == NULL ? pg_get_int4(r, 0, 0) : 0;
    bool set = verdict == 1;
    enum secret_put what = set             ? SECRET_SET
                           : verdict == -1 ? SECRET_TOO_MANY
                           : verdict == -2 ? SECRET_TOO_MUCH
                                           : SECRET_NO_AGENT;
    ((secret_put_fn *)c->fn)(c->arg, what, set ? pg_get_time(r, 0, 1) : (wall_t){0}, err);
    free(c);
}

int secret_put(struct pg *pg, int32_t tenant, struct str slug, struct str name, struct str key_id,
               struct str sealed, int32_t bytes, int64_t deadline_ms, secret_put_fn *fn, void *arg,
               struct err *err)
{
    struct pg_params *p = pg_params_new(sealed.n + 1024);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_text(p, slug);
        pg_put_text(p, name);
        pg_put_text(p, key_id);
        pg_put_bytea(p, sealed);
        pg_put_int4(p, bytes);
        pg_put_int4(p, SECRETS_MAX);
        pg_put_int8(p, SECRETS_MAX_BYTES);
    }
    return store_query(pg, sql_put, p, deadline_ms, reply_put, (void (*)(void))fn, arg, err);
}

static const char sql_delete[] =
    "WITH a AS (SELECT id FROM agents WHERE tenant = $1 AND slug = $2), "
    "d AS (DELETE FROM agent_secrets s USING a WHERE s.agent = a.id AND s.name = $3 RETURNING s.name) "
    "SELECT EXISTS (SELECT FROM a), EXISTS (SELECT FROM d)";

static void reply_delete(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    enum secret_deleted what = SECRET_NONE_NO_AGENT;
    if (err == NULL && pg_get_bool(r, 0, 0))
        what = pg_get_bool(r, 0, 1) ? SECRET_DELETED : SECRET_NONE;
    ((secret_delete_fn *)c->fn)(c->arg, what, err);
    free(c);
}

int secret_delete(struct pg *pg, int32_t tenant, struct str slug, struct str name, int64_t deadline_ms,
                  secret_delete_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(512);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_text(p, slug);
        pg_put_text(p, name);
    }
    return store_query(pg, sql_delete, p, deadline_ms, reply_delete, (void (*)(void))fn, arg, err);
}

/* ---- executors' ---- */

static const char sql_get[] =
    "SELECT name, key_id, sealed FROM agent_secrets WHERE agent = $1 AND tenant = $2 "
    "ORDER BY name COLLATE \"C\"";
static const char sql_of_invocation[] =
    "SELECT '', key_id, sealed FROM invocation_env WHERE id = $1 AND tenant = $2";

static void reply_get(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    struct secret_sealed list[SECRETS_MAX];
    size_t n = 0;
    for (int i = 0; err == NULL && i < pg_rows(r) && n < SECRETS_MAX; i++)
        list[n++] = (struct secret_sealed){
            .name = pg_get_str(r, i, 0), .key_id = pg_get_str(r, i, 1), .sealed = pg_get_str(r, i, 2)};
    ((secrets_get_fn *)c->fn)(c->arg, list, n, err);
    free(c);
}

static int get(struct pg *pg, const char *sql, int32_t tenant, struct uuid id, int64_t deadline_ms,
               secrets_get_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL) {
        pg_put_uuid(p, id);
        pg_put_int4(p, tenant);
    }
    return store_query(pg, sql, p, deadline_ms, reply_get, (void (*)(void))fn, arg, err);
}

int secrets_get(struct pg *pg, int32_t tenant, struct uuid agent, int64_t deadline_ms, secrets_get_fn *fn,
                void *arg, struct err *err)
{
    return get(pg, sql_get, tenant, agent, deadline_ms, fn, arg, err);
}

int secrets_of_invocation(struct pg *pg, int32_t tenant, struct uuid id, int64_t deadline_ms,
                          secrets_get_fn *fn, void *arg, struct err *err)
{
    return get(pg, sql_of_invocation, tenant, id, deadline_ms, fn, arg, err);
}

/* ---- rotation ---- */

static const char *const sql_stale[SECRETS_TABLES] = {
    [SECRETS_OF_AGENTS] =
        "SELECT agent, name, key_id, sealed FROM agent_secrets WHERE (agent, name) > ($2, $3) "
        "AND key_id <> $1 ORDER BY agent, name LIMIT $4",
    [SECRETS_OF_INVOCATIONS] =
        "SELECT id, '', key_id, sealed FROM invocation_env WHERE id > $2 AND $3 = $3::text "
        "AND key_id <> $1 ORDER BY id LIMIT $4",
};
static const char *const sql_reseal[SECRETS_TABLES] = {
    [SECRETS_OF_AGENTS] = "UPDATE agent_secrets s SET sealed = w.new, key_id = $1 FROM unnest($2::uuid[], "
                          "$3::text[], $4::bytea[], $5::bytea[]) AS w (id, name, old, new) "
                          "WHERE s.agent = w.id AND s.name = w.name AND s.sealed = w.old",
    [SECRETS_OF_INVOCATIONS] =
        "UPDATE invocation_env s SET sealed = w.new, key_id = $1 FROM unnest($2::uuid[], "
        "$3::text[], $4::bytea[], $5::bytea[]) AS w (id, name, old, new) "
        "WHERE s.id = w.id AND s.sealed = w.old",
};

static void reply_stale(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    struct secrets_row *rows = calloc(n + 1, sizeof *rows);
    struct err none;
    if (rows == NULL && err == NULL) {
        err_set(&none, ERR_NO_MEMORY, "no memory for secrets");
        err = &none;
    }
    for (size_t i = 0; err == NULL && i < n; i++)
        rows[i] = (struct secrets_row){.id = pg_get_uuid(r, (int)i, 0),
                                       .name = pg_get_str(r, (int)i, 1),
                                       .key_id = pg_get_str(r, (int)i, 2),
                                       .sealed = pg_get_str(r, (int)i, 3)};
    ((secrets_stale_fn *)c->fn)(c->arg, rows, err == NULL ? n : 0, err);
    free(rows);
    free(c);
}

int secrets_stale(struct pg *pg, enum secrets_table table, struct str key_id, struct uuid after,
                  struct str after_name, int limit, int64_t deadline_ms, secrets_stale_fn *fn, void *arg,
                  struct err *err)
{
    struct pg_params *p = pg_params_new(512);
    if (p != NULL) {
        pg_put_text(p, key_id);
        pg_put_uuid(p, after);
        pg_put_text(p, after_name);
        pg_put_int8(p, limit);
    }
    return store_query(pg, sql_stale[table], p, deadline_ms, reply_stale, (void (*)(void))fn, arg, err);
}

static void reply_reseal(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    ((secrets_reseal_fn *)c->fn)(c->arg, err == NULL ? pg_affected(r) : 0, err);
    free(c);
}

int secrets_reseal(struct pg *pg, enum secrets_table table, struct str key_id,
                   const struct secrets_change *changes, size_t n, int64_t deadline_ms, secrets_reseal_fn *fn,
                   void *arg, struct err *err)
{
    size_t bytes = 1024;
    for (size_t i = 0; i < n; i++)
        bytes += changes[i].old_sealed.n + changes[i].new_sealed.n + changes[i].name.n + 64;
    struct pg_params *p = pg_params_new(bytes);
    if (p != NULL) {
        pg_put_text(p, key_id);
        pg_array_begin(p, PG_UUID);
        for (size_t i = 0; i < n; i++)
            pg_put_uuid(p, changes[i].id);
        pg_array_end(p);
        pg_array_begin(p, PG_TEXT);
        for (size_t i = 0; i < n; i++)
            pg_put_text(p, changes[i].name);
        pg_array_end(p);
        pg_array_begin(p, PG_BYTEA);
        for (size_t i = 0; i < n; i++)
            pg_put_bytea(p, changes[i].old_sealed);
        pg_array_end(p);
        pg_array_begin(p, PG_BYTEA);
        for (size_t i = 0; i < n; i++)
            pg_put_bytea(p, changes[i].new_sealed);
        pg_array_end(p);
    }
    return store_query(pg, sql_reseal[table], p, deadline_ms, reply_reseal, (void (*)(void))fn, arg, err);
}
