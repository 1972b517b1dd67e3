/* libsodium behind one door: hashes, comparison, hexadecimal, API keys and secrets. base64.c has the rest. */
#include "crypto/crypto.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

_Static_assert(sizeof(struct crypto_sha256_state) >= sizeof(crypto_hash_sha256_state),
               "the opaque state fits");
_Static_assert(SHA256_BYTES == crypto_hash_sha256_BYTES, "SHA-256 has 32 bytes");

enum { KEY_RANDOM_BYTES = 32, KEY_CHARS = 43 };

int crypto_init(struct err *err)
{
    if (sodium_init() < 0)
        return err_set(err, ERR_INTERNAL, "libsodium cannot be initialised");
    return 0;
}

static const unsigned char *bytes(struct str s)
{
    return (const unsigned char *)s.p;
}

/* ---- hashes ---- */

void crypto_sha256(struct str data, uint8_t out[SHA256_BYTES])
{
    crypto_hash_sha256(out, bytes(data), data.n);
}

static crypto_hash_sha256_state *sha_state(struct crypto_sha256_state *s)
{
    return (crypto_hash_sha256_state *)(void *)s->opaque;
}

void crypto_sha256_init(struct crypto_sha256_state *s)
{
    crypto_hash_sha256_init(sha_state(s));
}

void crypto_sha256_update(struct crypto_sha256_state *s, struct str data)
{
    if (data.n != 0)
        crypto_hash_sha256_update(sha_state(s), bytes(data), data.n);
}

void crypto_sha256_final(struct crypto_sha256_state *s, uint8_t out[SHA256_BYTES])
{
    crypto_hash_sha256_final(sha_state(s), out);
}

void crypto_hmac_sha256(struct str key, struct str data, uint8_t out[SHA256_BYTES])
{
    crypto_auth_hmacsha256_state st;
    crypto_auth_hmacsha256_init(&st, bytes(key), key.n);
    if (data.n != 0)
        crypto_auth_hmacsha256_update(&st, bytes(data), data.n);
    crypto_auth_hmacsha256_final(&st, out);
    sodium_memzero(&st, sizeof st);
}

uint64_t crypto_short_hash(const uint8_t key[SHORT_HASH_KEY_BYTES], struct str data)
{
    uint64_t hash;
    _Static_assert(crypto_shorthash_BYTES == sizeof hash && crypto_shorthash_KEYBYTES == SHORT_HASH_KEY_BYTES,
                   "SipHash-2-4");
    crypto_shorthash((unsigned char *)&hash, (const unsigned char *)data.p, data.n, key);
    return hash;
}

bool crypto_equal(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || sodium_memcmp(a.p, b.p, a.n) == 0);
}

void crypto_wipe(void *p, size_t n)
{
    sodium_memzero(p, n);
}

/* ---- hexadecimal ---- */

bool crypto_hex(struct str data, struct buf *out)
{
    static const char digits[] = "0123456789abcdef";
    if (data.n > SIZE_MAX / 4) {
        out->failed = true;
        return false;
    }
    char *to = buf_reserve(out, data.n * 2);
    if (to == NULL)
        return false;
    for (size_t i = 0; i < data.n; i++) {
        unsigned char c = (unsigned char)data.p[i];
        to[2 * i] = digits[c >> 4];
        to[2 * i + 1] = digits[c & 15];
    }
    buf_commit(out, data.n * 2);
    return true;
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    char low = (char)(c | 32);
    return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

bool crypto_unhex(struct str text, struct buf *out)
{
    if (text.n % 2 != 0)
        return false;
    if (text.n == 0)
        return true;
    char *to = buf_reserve(out, text.n / 2);
    if (to == NULL)
        return false;
    for (size_t i = 0; i < text.n / 2; i++) {
        int high = nibble(text.p[2 * i]), low = nibble(text.p[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        to[i] = (char)(high << 4 | low);
    }
    buf_commit(out, text.n / 2);
    return true;
}

/* ---- API keys ---- */

void crypto_api_key_new(char out[API_KEY_TEXT_BYTES])
{
    unsigned char random[KEY_RANDOM_BYTES];
    randombytes_buf(random, sizeof random);
    memset(out, 0, API_KEY_TEXT_BYTES);
    memcpy(out, "sp_", 3);
    sodium_bin2base64(out + 3, API_KEY_TEXT_BYTES - 3, random, sizeof random,
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    sodium_memzero(random, sizeof random);
}

static bool is_base64url(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

bool crypto_api_key_hash(struct str text, uint8_t out[SHA256_BYTES])
{
    if (text.n != 3 + KEY_CHARS || !str_starts(text, STR("sp_")))
        return false;
    for (size_t i = 3; i < text.n; i++)
        if (!is_base64url(text.p[i]))
            return false;
    crypto_sha256(text, out);
    return true;
}

/* ---- secrets ---- */

/* On pages of its own: locked when the limit allows, left out of core dumps, guarded on both sides. That
 * costs a few system calls and pages each: secrets are for what lives as long as the process. */
struct secret {
    size_t n;
    char data[];
};

struct secret *secret_new(struct str s)
{
    if (s.n > SIZE_MAX / 2)
        return NULL;
    /* sodium_malloc aligns the end to the guard page, so the size is rounded up for the header's sake */
    size_t size = (sizeof(struct secret) + s.n + 15) / 16 * 16;
    struct secret *secret = sodium_malloc(size);
    if (secret == NULL)
        return NULL;
    secret->n = s.n;
    if (s.n != 0)
        memcpy(secret->data, s.p, s.n);
    return secret;
}

struct str secret_reveal(const struct secret *s)
{
    return s != NULL ? str_make(s->data, s->n) : STR("");
}

void secret_free(struct secret **s)
{
    if (s == NULL || *s == NULL)
        return;
    sodium_free(*s); /* wipes */
    *s = NULL;
}

void *crypto_guarded_new(size_t n)
{
    size_t size = (n + 15) / 16 * 16; /* its end lies against the guard page: rounded up for alignment */
    void *p = sodium_malloc(size);
    if (p != NULL)
        memset(p, 0, size);
    return p;
}

bool crypto_can_lock(size_t n)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_MEMLOCK, &limit);
    }
    void *p = malloc(n);
    bool can = p != NULL && sodium_mlock(p, n) == 0;
    if (can)
        sodium_munlock(p, n);
    free(p);
    return can;
}

void crypto_guarded_free(void *p)
{
    sodium_free(p);
}
