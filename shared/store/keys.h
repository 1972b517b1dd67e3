/* API keys and tenants. */
#ifndef STORE_KEYS_H
#define STORE_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "crypto/crypto.h"
#include "postgres/pg.h"

struct api_key {
    struct uuid id;
    int32_t tenant;
    bool valid; /* known, not revoked, not expired */
};

typedef void key_lookup_fn(void *arg, const struct api_key *key, const struct err *err);
/* By hash: the key's text is in no statement. */
int key_lookup(struct pg *pg, const uint8_t hash[SHA256_BYTES], int64_t deadline_ms, key_lookup_fn *fn,
               void *arg, struct err *err);

typedef void key_create_fn(void *arg, struct uuid id, const struct err *err);
/* Makes the tenant when it is new (create_tenant) or fails with ERR_NOT_FOUND. */
int key_create(struct pg *pg, struct str tenant, bool create_tenant, struct str name, struct str key_text,
               int64_t deadline_ms, key_create_fn *fn, void *arg, struct err *err);

#endif
