/* Hashing, comparing, encoding and API keys, on libsodium. Call crypto_init once in main. */
#ifndef CRYPTO_CRYPTO_H
#define CRYPTO_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

enum { SHA256_BYTES = 32, API_KEY_TEXT_BYTES = 64 };

int crypto_init(struct err *err);

void crypto_sha256(struct str data, uint8_t out[SHA256_BYTES]);

/* Streaming SHA-256. */
struct crypto_sha256_state {
    _Alignas(16) uint8_t opaque[128];
};
void crypto_sha256_init(struct crypto_sha256_state *s);
void crypto_sha256_update(struct crypto_sha256_state *s, struct str data);
void crypto_sha256_final(struct crypto_sha256_state *s, uint8_t out[SHA256_BYTES]);

void crypto_hmac_sha256(struct str key, struct str data, uint8_t out[SHA256_BYTES]);

/* A short hash under a secret key (SipHash-2-4): for tables whose keys strangers choose. */
enum { SHORT_HASH_KEY_BYTES = 16 };
uint64_t crypto_short_hash(const uint8_t key[SHORT_HASH_KEY_BYTES], struct str data);

/* Constant time in the content (not in the lengths). */
bool crypto_equal(struct str a, struct str b);

/* Overwrites memory in a way that the compiler keeps. */
void crypto_wipe(void *p, size_t n);

/* Encoders append to out; decoders take the whole input or nothing (false; out untouched). */
bool crypto_hex(struct str data, struct buf *out);
bool crypto_unhex(struct str text, struct buf *out);
bool crypto_base64(struct str data, struct buf *out);    /* standard alphabet, padded */
bool crypto_base64url(struct str data, struct buf *out); /* URL alphabet, no padding */
bool crypto_unbase64(struct str text, struct buf *out);  /* either alphabet, padding optional */

/* A new API key's text "sp_" + 43 base64url characters (32 random bytes), NUL-ended. */
void crypto_api_key_new(char out[API_KEY_TEXT_BYTES]);
/* What is stored and looked up: SHA-256 of the whole text (a key has 256 random bits: no salt, no
 * stretching). False when text does not have a key's form. */
bool crypto_api_key_hash(struct str text, uint8_t out[SHA256_BYTES]);

/* A string that must not be printed: the only way to its bytes is secret_reveal. */
struct secret;
struct secret *secret_new(struct str s); /* copies; NULL without memory */
struct str secret_reveal(const struct secret *s);
void secret_free(struct secret **s); /* wipes */

/* Zeroed memory for secrets that are many, or change: guarded, locked when the limit allows, in no core dump.
 * NULL without memory. */
void *crypto_guarded_new(size_t n);
void crypto_guarded_free(void *p); /* wipes; NULL is fine */
/* Raises this process's limit of locked memory as far as it may. Whether n bytes can be locked now: guarded
 * memory beyond the limit is not, and says nothing. */
bool crypto_can_lock(size_t n);

#endif
