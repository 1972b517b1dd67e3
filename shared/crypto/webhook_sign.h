/* Signatures of webhooks as the Standard Webhooks specification has them: HMAC-SHA256 over
 * "<webhook-id>.<webhook-timestamp>.<body>", written "v1,<base64>"; several are separated by a space. Secrets
 * are 24 to 64 random bytes, written "whsec_<base64>". */
#ifndef CRYPTO_WEBHOOK_SIGN_H
#define CRYPTO_WEBHOOK_SIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

enum {
    WEBHOOK_SECRET_MIN_BYTES = 24,
    WEBHOOK_SECRET_MAX_BYTES = 64,
    WEBHOOK_SECRET_TEXT_BYTES = 96, /* "whsec_", base64 of 64 bytes, NUL */
};

/* A signing key, opened. Wipe it after use (crypto_wipe). */
struct webhook_secret {
    uint8_t b[WEBHOOK_SECRET_MAX_BYTES];
    size_t n;
};

/* A new secret of 32 random bytes, as text. */
void webhook_secret_new(char out[WEBHOOK_SECRET_TEXT_BYTES]);

/* False when text is not "whsec_" and the base64 of 24 to 64 bytes. */
bool webhook_secret_read(struct str text, struct webhook_secret *out);

/* Appends one signature. */
bool webhook_sign(const struct webhook_secret *secret, struct str id, int64_t timestamp_sec, struct str body,
                  struct buf *out);

/* Whether one of the signatures in the header is by this secret. Constant time in each. The timestamp's age
 * is the caller's to judge. */
bool webhook_verify(const struct webhook_secret *secret, struct str id, int64_t timestamp_sec,
                    struct str body, struct str header);

#endif
