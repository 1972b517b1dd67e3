/* Signing keys, opened: a cache in guarded memory, for opening one costs more than signing with it. */
#ifndef DISPATCHER_WEBHOOK_KEYS_H
#define DISPATCHER_WEBHOOK_KEYS_H

#include "base/buf.h"
#include "base/id.h"
#include "crypto/seal.h"
#include "crypto/webhook_sign.h"
#include "store/webhooks.h"

struct webhook_keys;

/* private keys are borrowed. NULL without memory. */
struct webhook_keys *webhook_keys_new(const struct seal_private *keys);
void webhook_keys_free(struct webhook_keys **k);

/* Appends one signature by the sealed secret. owner: whose it is, for the cache. False when it cannot be
 * opened: sealed by a key that is not here, or damaged. */
bool webhook_keys_sign(struct webhook_keys *k, struct uuid owner, const struct webhook_sealed *secret,
                       struct str id, int64_t timestamp_sec, struct str body, struct buf *out);

#endif
