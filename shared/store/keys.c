/* API keys and tenants. */
#include "store/keys.h"

#include <stdlib.h>

#include "store/call.h"

enum { TELL_MS = 2000 };

/* ---- who asks ---- */

static const char sql_lookup[] =
    "SELECT id, tenant, scopes, revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()), "
    "CASE WHEN expires_at IS NULL THEN -1 ELSE (extract(epoch FROM expires_at - now()) * 1000)::int8 END, "
    "last_used_at IS NULL OR last_used_at < now() - interval '1 minute' "
    "FROM api_keys WHERE hash = $1";

static const char sql_touch[] =
    "UPDATE api_keys SET last_used_at = now() WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < "
    "now() - interval '1 minute')";

static void reply_lookup(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    struct api_key key = {0};
    if (err == NULL && pg_rows(r) == 1)
        key = (struct api_key){.id = pg_get_uuid(r, 0, 0),
                               .tenant = pg_get_int4(r, 0, 1),
                               .scopes = (unsigned)pg_get_int2(r, 0, 2),
                               .valid = pg_get_bool(r, 0, 3),
                               .expiry_ms = pg_get_int8(r, 0, 4),
                               .unused = pg_get_bool(r, 0, 5)};
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

static void reply_nobody(void *arg, const struct pg_result *r, const struct err *err)
{
    (void)arg, (void)r, (void)err;
}

void key_touch(struct pg *pg, struct uuid id, int64_t deadline_ms)
{
    struct pg_params *p = pg_params_new(64);
    if (p == NULL)
        return;
    pg_put_uuid(p, id);
    pg_query(pg, sql_touch, p, deadline_ms, reply_nobody, NULL, NULL);
    pg_params_free(&p);
}

/* ---- making ---- */

/* t: the tenant's id. Counting and inserting is not one step: two at once may make one more than may be. */
#define SQL_CREATE                                                                                       \
    "i AS (INSERT INTO api_keys (id, tenant, hash, name, prefix, scopes, expires_at, created_at) "       \
    "SELECT $2, t.id, $3, $4, $5, $6, $7, $8 FROM t WHERE (SELECT count(*) FROM api_keys k WHERE "       \
    "k.tenant = t.id AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())) < $9 " \
    "RETURNING id) SELECT EXISTS (SELECT FROM t), EXISTS (SELECT FROM i)"

static const char sql_create[] = "WITH t AS (SELECT id FROM tenants WHERE id = $1), " SQL_CREATE;
static const char sql_create_for[] =
    "WITH made AS (INSERT INTO tenants (name) SELECT $1 ON CONFLICT (name) DO NOTHING RETURNING id), "
    "t AS (SELECT id FROM made UNION ALL SELECT id FROM tenants WHERE name = $1 LIMIT 1), " SQL_CREATE;

static void reply_create(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    enum key_made what = KEY_MADE;
    if (err == NULL && !pg_get_bool(r, 0, 0))
        what = KEY_NO_TENANT;
    else if (err == NULL && !pg_get_bool(r, 0, 1))
        what = KEY_TOO_MANY;
    ((key_create_fn *)c->fn)(c->arg, what, err);
    free(c);
}

/* Takes params, which hold the tenant (NULL is out of memory), and adds what comes behind it. */
static int create(struct pg *pg, const char *sql, struct pg_params *p, const struct key_record *k,
                  struct str key_text, int64_t deadline_ms, key_create_fn *fn, void *arg, struct err *err)
{
    uint8_t hash[SHA256_BYTES];
    if (!crypto_api_key_hash(key_text, hash)) {
        pg_params_free(&p);
        return err_set(err, ERR_BAD_FIELD, "not an API key's form");
    }
    if (p != NULL) {
        pg_put_uuid(p, k->id);
        pg_put_bytea(p, str_make((const char *)hash, SHA256_BYTES));
        pg_put_text(p, k->name);
        pg_put_text(p, str_make(key_text.p, KEY_PREFIX_BYTES));
        pg_put_int2(p, (int16_t)k->scopes);
        pg_put_time_or_null(p, k->expires_at);
        pg_put_time(p, k->created_at);
        pg_put_int8(p, KEYS_MAX);
    }
    return store_query(pg, sql, p, deadline_ms, reply_create, (void (*)(void))fn, arg, err);
}

int key_create(struct pg *pg, int32_t tenant, const struct key_record *k, struct str key_text,
               int64_t deadline_ms, key_create_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(1024);
    if (p != NULL)
        pg_put_int4(p, tenant);
    return create(pg, sql_create, p, k, key_text, deadline_ms, fn, arg, err);
}

int key_create_for(struct pg *pg, struct str tenant, const struct key_record *k, struct str key_text,
                   int64_t deadline_ms, key_create_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(1024);
    if (p != NULL)
        pg_put_text(p, tenant);
    return create(pg, sql_create_for, p, k, key_text, deadline_ms, fn, arg, err);
}

/* ---- listing ---- */

static const char sql_get[] =
    "SELECT id, name, prefix, scopes, created_at, expires_at, last_used_at, revoked_at FROM api_keys "
    "WHERE tenant = $1 AND ($2::uuid IS NULL OR id = $2) AND ($3::uuid IS NULL OR id < $3) "
    "AND ($4 OR revoked_at IS NULL) ORDER BY id DESC LIMIT $5";

static void reply_get(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    struct key_record *list = calloc(n + 1, sizeof *list);
    struct err none;
    if (list == NULL && err == NULL) {
        err_set(&none, ERR_NO_MEMORY, "no memory for keys");
        err = &none;
    }
    for (int i = 0; err == NULL && i < (int)n; i++)
        list[i] = (struct key_record){.id = pg_get_uuid(r, i, 0),
                                      .name = pg_get_str(r, i, 1),
                                      .prefix = pg_get_str(r, i, 2),
                                      .scopes = (unsigned)pg_get_int2(r, i, 3),
                                      .created_at = pg_get_time(r, i, 4),
                                      .expires_at = pg_get_time(r, i, 5),
                                      .last_used_at = pg_get_time(r, i, 6),
                                      .revoked_at = pg_get_time(r, i, 7)};
    ((keys_fn *)c->fn)(c->arg, list, err == NULL ? n : 0, err);
    free(list);
    free(c);
}

int keys_get(struct pg *pg, const struct keys_query *q, int64_t deadline_ms, keys_fn *fn, void *arg,
             struct err *err)
{
    struct pg_params *p = pg_params_new(256);
    if (p != NULL) {
        pg_put_int4(p, q->tenant);
        pg_put_uuid_or_null(p, q->id);
        pg_put_uuid_or_null(p, q->before);
        pg_put_bool(p, q->revoked);
        pg_put_int8(p, q->limit);
    }
    return store_query(pg, sql_get, p, deadline_ms, reply_get, (void (*)(void))fn, arg, err);
}

/* ---- revoking ---- */

static const char sql_revoke[] =
    "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE tenant = $1 AND id = $2 RETURNING id";

static void reply_revoke(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    ((key_revoke_fn *)c->fn)(c->arg, err == NULL && pg_rows(r) > 0, err);
    free(c);
}

int key_revoke(struct pg *pg, int32_t tenant, struct uuid id, int64_t deadline_ms, key_revoke_fn *fn,
               void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_uuid(p, id);
    }
    return store_query(pg, sql_revoke, p, deadline_ms, reply_revoke, (void (*)(void))fn, arg, err);
}

void key_tell_revoked(struct redis *r, struct uuid id)
{
    const struct str argv[] = {STR("PUBLISH"), STR(KEYS_CHANNEL), str_make((const char *)id.b, sizeof id.b)};
    redis_command(r, argv, 3, TELL_MS, NULL, NULL, NULL);
}
