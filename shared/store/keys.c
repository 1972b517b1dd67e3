/* API keys and tenants. */
#include "store/keys.h"

#include <stdlib.h>

#include "store/call.h"

static const char sql_lookup[] =
    "SELECT id, tenant, revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) FROM api_keys "
    "WHERE hash = $1";

static const char sql_create[] =
    "WITH made AS (INSERT INTO tenants (name) SELECT $1 WHERE $2 ON CONFLICT (name) DO NOTHING RETURNING "
    "id), "
    "t AS (SELECT id FROM made UNION ALL SELECT id FROM tenants WHERE name = $1 LIMIT 1) "
    "INSERT INTO api_keys (id, tenant, hash, name, prefix) SELECT $3, t.id, $4, $5, $6 FROM t RETURNING id";

static void reply_lookup(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    struct api_key key = {0};
    if (err == NULL && pg_rows(r) == 1)
        key = (struct api_key){
            .id = pg_get_uuid(r, 0, 0), .tenant = pg_get_int4(r, 0, 1), .valid = pg_get_bool(r, 0, 2)};
    ((key_lookup_fn *)c->fn)(c->arg, &key, err);
    free(c);
}

int key_lookup(struct pg *pg, const uint8_t hash[SHA256_BYTES], int64_t deadline_ms, key_lookup_fn *fn,
               void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(256);
    if (p != NULL)
        pg_put_bytea(p, str_make((const char *)hash, SHA256_BYTES));
    return store_query(pg, sql_lookup, p, deadline_ms, reply_lookup, (void (*)(void))fn, arg, err);
}

static void reply_create(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    struct err missing;
    if (err == NULL && pg_rows(r) == 0) {
        err_set(&missing, ERR_NOT_FOUND, "there is no tenant of that name");
        err = &missing;
    }
    ((key_create_fn *)c->fn)(c->arg, err == NULL ? pg_get_uuid(r, 0, 0) : (struct uuid){0}, err);
    free(c);
}

int key_create(struct pg *pg, struct str tenant, bool create_tenant, struct str name, struct str key_text,
               int64_t deadline_ms, key_create_fn *fn, void *arg, struct err *err)
{
    uint8_t hash[SHA256_BYTES];
    if (!crypto_api_key_hash(key_text, hash))
        return err_set(err, ERR_BAD_FIELD, "not an API key's form");
    struct pg_params *p = pg_params_new(1024);
    if (p != NULL) {
        pg_put_text(p, tenant);
        pg_put_bool(p, create_tenant);
        pg_put_uuid(p, uuid_new());
        pg_put_bytea(p, str_make((const char *)hash, sizeof hash));
        pg_put_text(p, name);
        pg_put_text(p, str_make(key_text.p, 7));
    }
    return store_query(pg, sql_create, p, deadline_ms, reply_create, (void (*)(void))fn, arg, err);
}
