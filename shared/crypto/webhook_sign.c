/* Signatures of webhooks. */
#include "crypto/webhook_sign.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "crypto/crypto.h"

#define PREFIX "whsec_"
enum { NEW_BYTES = 32, SIGNATURE_CHARS = 44 };

void webhook_secret_new(char out[WEBHOOK_SECRET_TEXT_BYTES])
{
    uint8_t random[NEW_BYTES];
    randombytes_buf(random, sizeof random);
    memset(out, 0, WEBHOOK_SECRET_TEXT_BYTES);
    memcpy(out, PREFIX, sizeof PREFIX - 1);
    sodium_bin2base64(out + sizeof PREFIX - 1, WEBHOOK_SECRET_TEXT_BYTES - (sizeof PREFIX - 1), random,
                      sizeof random, sodium_base64_VARIANT_ORIGINAL);
    sodium_memzero(random, sizeof random);
}

bool webhook_secret_read(struct str text, struct webhook_secret *out)
{
    if (!str_starts(text, STR(PREFIX)))
        return false;
    out->n = 0;
    return sodium_base642bin(out->b, sizeof out->b, text.p + sizeof PREFIX - 1, text.n - (sizeof PREFIX - 1),
                             NULL, &out->n, NULL, sodium_base64_VARIANT_ORIGINAL) == 0 &&
           out->n >= WEBHOOK_SECRET_MIN_BYTES;
}

static void mac(const struct webhook_secret *secret, struct str id, int64_t timestamp_sec, struct str body,
                uint8_t out[SHA256_BYTES])
{
    char middle[32];
    crypto_auth_hmacsha256_state st;
    int n = snprintf(middle, sizeof middle, ".%lld.", (long long)timestamp_sec);
    crypto_auth_hmacsha256_init(&st, secret->b, secret->n);
    crypto_auth_hmacsha256_update(&st, (const unsigned char *)id.p, id.n);
    crypto_auth_hmacsha256_update(&st, (const unsigned char *)middle, (size_t)n);
    crypto_auth_hmacsha256_update(&st, (const unsigned char *)body.p, body.n);
    crypto_auth_hmacsha256_final(&st, out);
    sodium_memzero(&st, sizeof st);
}

bool webhook_sign(const struct webhook_secret *secret, struct str id, int64_t timestamp_sec, struct str body,
                  struct buf *out)
{
    uint8_t code[SHA256_BYTES];
    mac(secret, id, timestamp_sec, body, code);
    return buf_str(out, STR("v1,")) && crypto_base64(str_make((const char *)code, sizeof code), out);
}

bool webhook_verify(const struct webhook_secret *secret, struct str id, int64_t timestamp_sec,
                    struct str body, struct str header)
{
    uint8_t code[SHA256_BYTES];
    char want[SIGNATURE_CHARS + 1];
    struct str one;
    bool found = false;
    mac(secret, id, timestamp_sec, body, code);
    sodium_bin2base64(want, sizeof want, code, sizeof code, sodium_base64_VARIANT_ORIGINAL);
    while (str_split(&header, ' ', &one))
        if (str_starts(one, STR("v1,")) &&
            crypto_equal(str_make(one.p + 3, one.n - 3), str_make(want, SIGNATURE_CHARS)))
            found = true;
    return found;
}
