/* API keys and tenants. A key's text is in no statement: keys are known by their hash. A revoked key's row
 * stays: invocations and usage refer to it. */
#ifndef STORE_KEYS_H
#define STORE_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "crypto/crypto.h"
#include "model/api_key.h"
#include "postgres/pg.h"
#include "redis/redis.h"

enum { KEYS_MAX = 1000 /* of a tenant, that are neither revoked nor expired */, KEY_PREFIX_BYTES = 7 };

/* ---- who asks ---- */

struct api_key {
    struct uuid id;
    int32_t tenant;
    unsigned scopes;
    bool valid;        /* known, not revoked, not expired */
    int64_t expiry_ms; /* how long it is still valid; -1: it does not expire */
    bool unused;       /* its last use is to be noted */
};

typedef void key_lookup_fn(void *arg, const struct api_key *key, const struct err *err);
int key_lookup(struct pg *pg, const uint8_t hash[SHA256_BYTES], int64_t deadline_ms, key_lookup_fn *fn,
               void *arg, struct err *err);
/* Notes that it was used now, unless that was done within the last minute. Nobody waits for it. */
void key_touch(struct pg *pg, struct uuid id, int64_t deadline_ms);

/* ---- making, listing, revoking ---- */

/* Views are valid during the callback, or as long as their owner says. */
struct key_record {
    struct uuid id;
    struct str name, prefix;
    unsigned scopes;
    wall_t created_at, expires_at, last_used_at, revoked_at; /* 0: none */
};

enum key_made { KEY_MADE, KEY_NO_TENANT, KEY_TOO_MANY };
typedef void key_create_fn(void *arg, enum key_made what, const struct err *err);
/* k: id, name, scopes, expires_at and created_at are taken from it. Of an unknown outcome: a key that nobody
 * has may be there. */
int key_create(struct pg *pg, int32_t tenant, const struct key_record *k, struct str key_text,
               int64_t deadline_ms, key_create_fn *fn, void *arg, struct err *err);
/* The same for a tenant by its name, which is made when it is new. */
int key_create_for(struct pg *pg, struct str tenant, const struct key_record *k, struct str key_text,
                   int64_t deadline_ms, key_create_fn *fn, void *arg, struct err *err);

/* The newest first; those older than `before` (zero: all), or one (id). */
struct keys_query {
    int32_t tenant;
    struct uuid id, before;
    bool revoked; /* those, too */
    int limit;
};
typedef void keys_fn(void *arg, const struct key_record *list, size_t n, const struct err *err);
int keys_get(struct pg *pg, const struct keys_query *q, int64_t deadline_ms, keys_fn *fn, void *arg,
             struct err *err);

/* found: there is such a key; it was revoked now, or before. */
typedef void key_revoke_fn(void *arg, bool found, const struct err *err);
int key_revoke(struct pg *pg, int32_t tenant, struct uuid id, int64_t deadline_ms, key_revoke_fn *fn,
               void *arg, struct err *err);

/* Tells all gateways that a key was revoked: 16 bytes, its id. A lost message costs the seconds of their
 * caches (gateway/auth.h). */
#define KEYS_CHANNEL "sp:keys"
void key_tell_revoked(struct redis *r, struct uuid id);

#endif
