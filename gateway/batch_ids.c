/* A table with open addressing, at most half full. */
#include "batch_ids.h"

#include <stdlib.h>

#include "base/id.h"
#include "crypto/crypto.h"

enum { FIRST_SLOTS = 1024 };

struct batch_ids {
    uint8_t key[SHORT_HASH_KEY_BYTES];
    uint64_t *hashes; /* 0: free */
    uint32_t *items;
    size_t slots, used;
};

struct batch_ids *batch_ids_new(void)
{
    struct batch_ids *ids = calloc(1, sizeof *ids);
    if (ids == NULL)
        return NULL;
    random_bytes(ids->key, sizeof ids->key);
    ids->slots = FIRST_SLOTS;
    ids->hashes = calloc(ids->slots, sizeof *ids->hashes);
    ids->items = calloc(ids->slots, sizeof *ids->items);
    if (ids->hashes == NULL || ids->items == NULL)
        batch_ids_free(&ids);
    return ids;
}

void batch_ids_free(struct batch_ids **ids)
{
    if (ids == NULL || *ids == NULL)
        return;
    free((*ids)->hashes);
    free((*ids)->items);
    free(*ids);
    *ids = NULL;
}

/* Where the hash is, or would go. */
static size_t slot_of(const uint64_t *hashes, size_t slots, uint64_t hash)
{
    size_t at = (size_t)hash & (slots - 1);
    while (hashes[at] != 0 && hashes[at] != hash)
        at = (at + 1) & (slots - 1);
    return at;
}

static int grow(struct batch_ids *ids)
{
    size_t slots = ids->slots * 2;
    uint64_t *hashes = calloc(slots, sizeof *hashes);
    uint32_t *items = calloc(slots, sizeof *items);
    if (hashes == NULL || items == NULL) {
        free(hashes);
        free(items);
        return -1;
    }
    for (size_t i = 0; i < ids->slots; i++) {
        if (ids->hashes[i] == 0)
            continue;
        size_t at = slot_of(hashes, slots, ids->hashes[i]);
        hashes[at] = ids->hashes[i];
        items[at] = ids->items[i];
    }
    free(ids->hashes);
    free(ids->items);
    ids->hashes = hashes;
    ids->items = items;
    ids->slots = slots;
    return 0;
}

int64_t batch_ids_add(struct batch_ids *ids, struct str id, uint32_t item)
{
    if (2 * (ids->used + 1) > ids->slots && grow(ids) != 0)
        return -1;
    uint64_t hash = crypto_short_hash(ids->key, id);
    hash = hash != 0 ? hash : 1;
    size_t at = slot_of(ids->hashes, ids->slots, hash);
    if (ids->hashes[at] == hash)
        return ids->items[at];
    ids->hashes[at] = hash;
    ids->items[at] = item;
    ids->used++;
    return 0;
}
