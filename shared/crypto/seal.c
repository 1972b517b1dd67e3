/* Sealed values. Private keys lie in one block of sodium_malloc: guarded, locked, left out of core dumps. */
#include "crypto/seal.h"

#include <sodium.h>
#include <string.h>

#include "crypto/crypto.h"

#define PUBLIC_PREFIX "sppub_"
#define PRIVATE_PREFIX "spkey_"
enum { PREFIX_BYTES = 6, KEY_BYTES = 32, KEY_CHARS = 43 };

_Static_assert(KEY_BYTES == crypto_box_PUBLICKEYBYTES && KEY_BYTES == crypto_box_SECRETKEYBYTES, "X25519");
_Static_assert(SEAL_OVERHEAD_BYTES == crypto_box_SEALBYTES, "the header's figure is libsodium's");
_Static_assert(SEAL_KEY_TEXT_BYTES > PREFIX_BYTES + KEY_CHARS, "a key's text fits");

struct pair {
    uint8_t public[KEY_BYTES], private[KEY_BYTES];
    char id[SEAL_KEY_ID_BYTES];
};

struct seal_private {
    size_t n;
    struct pair pairs[SEAL_KEYS_MAX];
};

static void key_id(const uint8_t public[KEY_BYTES], char out[SEAL_KEY_ID_BYTES])
{
    uint8_t hash[SHA256_BYTES];
    crypto_sha256(str_make((const char *)public, KEY_BYTES), hash);
    sodium_bin2hex(out, SEAL_KEY_ID_BYTES, hash, (SEAL_KEY_ID_BYTES - 1) / 2);
}

static void write_text(const char *prefix, const uint8_t key[KEY_BYTES], char out[SEAL_KEY_TEXT_BYTES])
{
    memset(out, 0, SEAL_KEY_TEXT_BYTES);
    memcpy(out, prefix, PREFIX_BYTES);
    sodium_bin2base64(out + PREFIX_BYTES, SEAL_KEY_TEXT_BYTES - PREFIX_BYTES, key, KEY_BYTES,
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

static bool read_text(const char *prefix, struct str text, uint8_t out[KEY_BYTES])
{
    size_t n = 0;
    return text.n == PREFIX_BYTES + KEY_CHARS && memcmp(text.p, prefix, PREFIX_BYTES) == 0 &&
           sodium_base642bin(out, KEY_BYTES, text.p + PREFIX_BYTES, KEY_CHARS, NULL, &n, NULL,
                             sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0 &&
           n == KEY_BYTES;
}

void seal_pair_new(char public_out[SEAL_KEY_TEXT_BYTES], char private_out[SEAL_KEY_TEXT_BYTES])
{
    uint8_t public[KEY_BYTES], private[KEY_BYTES];
    crypto_box_keypair(public, private);
    write_text(PUBLIC_PREFIX, public, public_out);
    write_text(PRIVATE_PREFIX, private, private_out);
    sodium_memzero(private, sizeof private);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* The next word of *rest; false at its end. */
static bool next_word(struct str *rest, struct str *word)
{
    while (rest->n > 0 && is_space(rest->p[0]))
        *rest = str_make(rest->p + 1, rest->n - 1);
    size_t n = 0;
    while (n < rest->n && !is_space(rest->p[n]))
        n++;
    *word = str_make(rest->p, n);
    *rest = str_make(rest->p + n, rest->n - n);
    return n > 0;
}

int seal_public_read(struct str text, struct seal_public *out, struct err *err)
{
    struct str word, more;
    if (!next_word(&text, &word) || next_word(&text, &more) || !read_text(PUBLIC_PREFIX, word, out->key))
        return err_set(err, ERR_CONFIG,
                       "not a public key: they begin with " PUBLIC_PREFIX
                       "; 'sandpiper secrets init' makes a pair");
    key_id(out->key, out->id);
    return 0;
}

bool seal_value(const struct seal_public *key, struct str plain, struct buf *out)
{
    char *to = buf_reserve(out, plain.n + SEAL_OVERHEAD_BYTES);
    if (to == NULL ||
        crypto_box_seal((unsigned char *)to, (const unsigned char *)plain.p, plain.n, key->key) != 0)
        return false;
    buf_commit(out, plain.n + SEAL_OVERHEAD_BYTES);
    return true;
}

static bool read_pairs(struct str text, struct seal_private *k)
{
    struct str word;
    while (next_word(&text, &word)) {
        if (k->n == SEAL_KEYS_MAX)
            return false;
        struct pair *p = &k->pairs[k->n];
        if (!read_text(PRIVATE_PREFIX, word, p->private) ||
            crypto_scalarmult_base(p->public, p->private) != 0)
            return false;
        key_id(p->public, p->id);
        k->n++;
    }
    return k->n > 0;
}

struct seal_private *seal_private_new(struct str text, struct err *err)
{
    size_t size = (sizeof(struct seal_private) + 15) / 16 * 16;
    struct seal_private *k = sodium_malloc(size);
    if (k == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory for private keys");
        return NULL;
    }
    memset(k, 0, size);
    if (!read_pairs(text, k)) {
        err_set(err, ERR_CONFIG,
                "not one to %d private keys: they begin with " PRIVATE_PREFIX
                "; 'sandpiper secrets init' makes a pair",
                SEAL_KEYS_MAX);
        sodium_free(k);
        return NULL;
    }
    return k;
}

void seal_private_free(struct seal_private **k)
{
    if (k == NULL || *k == NULL)
        return;
    sodium_free(*k); /* wipes */
    *k = NULL;
}

static const struct pair *pair_of(const struct seal_private *k, struct str id)
{
    for (size_t i = 0; k != NULL && i < k->n; i++)
        if (str_eq_c(id, k->pairs[i].id))
            return &k->pairs[i];
    return NULL;
}

bool seal_private_has(const struct seal_private *k, struct str id)
{
    return pair_of(k, id) != NULL;
}

bool seal_open(const struct seal_private *k, struct str id, struct str sealed, void *out, size_t out_max,
               size_t *n_out)
{
    const struct pair *p = pair_of(k, id);
    if (p == NULL || sealed.n < SEAL_OVERHEAD_BYTES || sealed.n - SEAL_OVERHEAD_BYTES > out_max)
        return false;
    *n_out = sealed.n - SEAL_OVERHEAD_BYTES;
    return crypto_box_seal_open(out, (const unsigned char *)sealed.p, sealed.n, p->public, p->private) == 0;
}

int seal_public_check(const char *text, struct err *err)
{
    struct seal_public key;
    return seal_public_read(str_of(text), &key, err);
}

int seal_private_check(const char *text, struct err *err)
{
    struct seal_private *k = sodium_init() >= 0 ? seal_private_new(str_of(text), err) : NULL;
    bool fine = k != NULL;
    seal_private_free(&k);
    return fine ? 0 : -1;
}
