/* Sealed values (libsodium's crypto_box_seal): whoever has the public key can seal, only the holder of the
 * private key can open. Gateways seal what callers entrust to them; daemons that need it open it.
 *
 * Keys are texts: "sppub_" or "spkey_" and 43 base64url characters. A value is stored with the id of the key
 * that sealed it, so that a private key can be replaced: the new one goes first into its file, the old ones
 * stay in it as long as values of theirs are about. */
#ifndef CRYPTO_SEAL_H
#define CRYPTO_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

enum {
    SEAL_KEY_TEXT_BYTES = 56, /* with the NUL */
    SEAL_KEY_ID_BYTES = 17,   /* 16 hexadecimal characters and the NUL */
    SEAL_OVERHEAD_BYTES = 48, /* a sealed value is this much longer */
    SEAL_KEYS_MAX = 8,
};

struct seal_public {
    uint8_t key[32];
    char id[SEAL_KEY_ID_BYTES];
};

/* A new pair, as texts. The private text is the caller's to wipe. */
void seal_pair_new(char public_out[SEAL_KEY_TEXT_BYTES], char private_out[SEAL_KEY_TEXT_BYTES]);

/* -1 and ERR_CONFIG when text is no public key. White space around it is fine. */
int seal_public_read(struct str text, struct seal_public *out, struct err *err);

/* Appends the sealed value. False without memory, or past the buffer's cap. */
bool seal_value(const struct seal_public *key, struct str plain, struct buf *out);

/* Private keys, on pages that are locked and in no core dump. text: one to SEAL_KEYS_MAX of them, separated
 * by white space. NULL and ERR_CONFIG (which quotes nothing) when it holds anything else. */
struct seal_private;
struct seal_private *seal_private_new(struct str text, struct err *err);
void seal_private_free(struct seal_private **k);

/* Whether a key of that id is there. */
bool seal_private_has(const struct seal_private *k, struct str id);

/* Opens into out (at most out_max bytes; *n_out says how many). False when no key of that id is there, or the
 * value is damaged. The caller wipes out. */
bool seal_open(const struct seal_private *k, struct str id, struct str sealed, void *out, size_t out_max,
               size_t *n_out);

/* For configuration tables: whether the text can be read. */
int seal_public_check(const char *text, struct err *err);
int seal_private_check(const char *text, struct err *err);

#endif
