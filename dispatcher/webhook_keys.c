/* Opened signing keys. A slot is found by its owner's id and holds the sealed form it was opened from:
 * another sealed form (after a rotation) is opened anew. Secrets are nowhere else in the process. */
#include "webhook_keys.h"

#include <stdlib.h>
#include <string.h>

#include "crypto/crypto.h"

enum { SLOTS = 1024 };

struct slot {
    struct webhook_sealed sealed;
    struct webhook_secret secret;
};

struct webhook_keys {
    const struct seal_private *keys;
    struct slot *slots; /* guarded */
};

struct webhook_keys *webhook_keys_new(const struct seal_private *keys)
{
    struct webhook_keys *k = calloc(1, sizeof *k);
    if (k == NULL)
        return NULL;
    k->keys = keys;
    k->slots = crypto_guarded_new(SLOTS * sizeof *k->slots);
    if (k->slots == NULL)
        webhook_keys_free(&k);
    return k;
}

void webhook_keys_free(struct webhook_keys **k)
{
    if (k == NULL || *k == NULL)
        return;
    crypto_guarded_free((*k)->slots);
    free(*k);
    *k = NULL;
}

static bool is_same(const struct webhook_sealed *a, const struct webhook_sealed *b)
{
    return a->n == b->n && memcmp(a->b, b->b, a->n) == 0 && strcmp(a->key_id, b->key_id) == 0;
}

bool webhook_keys_sign(struct webhook_keys *k, struct uuid owner, const struct webhook_sealed *secret,
                       struct str id, int64_t timestamp_sec, struct str body, struct buf *out)
{
    /* the current and the previous secret of one owner lie in different slots, mostly */
    struct slot *s = &k->slots[(((size_t)owner.b[14] << 8 | owner.b[15]) ^ secret->b[0]) % SLOTS];
    if (secret->n == 0)
        return false;
    if (!is_same(&s->sealed, secret)) {
        s->sealed.n = 0;
        if (!seal_open(k->keys, str_of(secret->key_id), webhook_sealed_view(secret), s->secret.b,
                       sizeof s->secret.b, &s->secret.n))
            return false;
        s->sealed = *secret;
    }
    return webhook_sign(&s->secret, id, timestamp_sec, body, out);
}
