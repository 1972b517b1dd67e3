/* Bearer keys. */
#include "auth.h"

#include <stdlib.h>
#include <uthash.h>

#include "store/keys.h"

enum { LOOKUP_MS = 5000 };

struct cached {
    uint8_t hash[SHA256_BYTES];
    struct uuid id;
    int32_t tenant;
    unsigned scopes;
    mono_t until;
    UT_hash_handle hh; /* insertion order: the oldest first */
};

struct auth {
    struct gateway *g;
    struct cached *keys;
    uint64_t forgotten; /* times: what was asked for before may be of before a key was revoked */
};

struct lookup {
    struct auth *a;
    struct call *c;
    uint8_t hash[SHA256_BYTES];
    uint64_t forgotten;
    void (*next)(struct call *c);
};

struct auth *auth_new(struct gateway *g)
{
    struct auth *a = calloc(1, sizeof *a);
    if (a != NULL)
        a->g = g;
    return a;
}

static void drop(struct auth *a, struct cached *k)
{
    HASH_DEL(a->keys, k);
    free(k);
}

void auth_free(struct auth **a)
{
    if (a == NULL || *a == NULL)
        return;
    struct cached *k, *next;
    HASH_ITER(hh, (*a)->keys, k, next)
    {
        drop(*a, k);
    }
    free(*a);
    *a = NULL;
}

void auth_forget(struct auth *a, struct uuid id)
{
    struct cached *k, *next;
    a->forgotten++;
    HASH_ITER(hh, a->keys, k, next)
    {
        if (uuid_eq(k->id, id))
            drop(a, k);
    }
}

static void remember(struct auth *a, const uint8_t *hash, const struct api_key *key)
{
    struct cached *k;
    HASH_FIND(hh, a->keys, hash, SHA256_BYTES, k);
    if (k != NULL)
        drop(a, k);
    if (HASH_COUNT(a->keys) >= AUTH_CACHE_KEYS)
        drop(a, a->keys);
    k = calloc(1, sizeof *k);
    if (k == NULL)
        return; /* only a cache */
    memcpy(k->hash, hash, SHA256_BYTES);
    k->id = key->id;
    k->tenant = key->tenant;
    k->scopes = key->scopes;
    bool expires = key->expiry_ms >= 0 && key->expiry_ms < AUTH_CACHE_MS;
    k->until = mono_add_ms(loop_now(a->g->loop), expires ? key->expiry_ms : AUTH_CACHE_MS);
    HASH_ADD(hh, a->keys, hash, SHA256_BYTES, k);
}

static void on_key(void *arg, const struct api_key *key, const struct err *err)
{
    struct lookup *l = arg;
    struct call *c = l->c;
    if (err == NULL && key->valid) {
        if (l->forgotten == l->a->forgotten)
            remember(l->a, l->hash, key);
        if (key->unused)
            key_touch(l->a->g->files, key->id, LOOKUP_MS);
    }
    void (*next)(struct call *) = l->next;
    free(l);
    if (!call_leave(c))
        return;
    if (err != NULL) {
        call_fail_query(c, err);
    } else if (!key->valid) {
        call_fail_code(c, ERR_UNAUTHORIZED, "the API key is unknown, expired or revoked");
    } else {
        c->tenant = key->tenant;
        c->api_key = key->id;
        c->scopes = key->scopes;
        next(c);
    }
}

/* "Bearer <key>": the scheme in any case, one space or more. */
static bool bearer(struct call *c, struct str *key)
{
    struct str header;
    if (!http_header(c->req, "Authorization", &header) || http_header_count(c->req, "Authorization") != 1)
        return false;
    if (header.n < 8 || !str_eq_nocase(str_make(header.p, 7), STR("bearer ")))
        return false;
    *key = str_trim(str_make(header.p + 7, header.n - 7));
    return true;
}

static void look_up(struct auth *a, struct call *c, const uint8_t *hash, void (*next)(struct call *c))
{
    struct err err;
    struct lookup *l = calloc(1, sizeof *l);
    if (l == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    *l = (struct lookup){.a = a, .c = c, .forgotten = a->forgotten, .next = next};
    memcpy(l->hash, hash, SHA256_BYTES);
    call_enter(c);
    if (key_lookup(a->g->read, hash, LOOKUP_MS, on_key, l, &err) == 0)
        return;
    free(l);
    if (call_leave(c))
        call_fail(c, &err);
}

void auth_check(struct auth *a, struct call *c, void (*next)(struct call *c))
{
    struct str text;
    uint8_t hash[SHA256_BYTES];
    if (!bearer(c, &text)) {
        call_fail_code(c, ERR_UNAUTHORIZED, "send the header Authorization: Bearer sp_…");
        return;
    }
    if (!crypto_api_key_hash(text, hash)) {
        call_fail_code(c, ERR_UNAUTHORIZED, "the API key is malformed: keys are sp_ and 43 characters");
        return;
    }
    struct cached *k;
    HASH_FIND(hh, a->keys, hash, SHA256_BYTES, k);
    if (k != NULL && mono_before(loop_now(a->g->loop), k->until)) {
        c->tenant = k->tenant;
        c->api_key = k->id;
        c->scopes = k->scopes;
        next(c);
        return;
    }
    look_up(a, c, hash, next);
}
