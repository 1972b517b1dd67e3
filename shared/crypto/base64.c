/* Base64 (RFC 4648), table-driven.
 *
 * libsodium's codec is constant-time and three to ten times slower; outputs of 10 MiB and every Connect frame
 * pass here, and none of them is a secret. Secrets (API keys) use libsodium's. The decoder is strict: no
 * spaces, padding complete or absent, unused bits zero. */
#include "crypto/crypto.h"

static const char standard[65] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char url[65] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* A character's value with bit 6 set, both alphabets; 0 for any other byte. */
enum { VALID = 0x40 };
static const uint8_t values[256] = {
    0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,  0,  0,  0,  0,  0,   0,   0,
    0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,  0,  0,  0,  0,  0,   0,   126,
    0,   126, 0,   127, 116, 117, 118, 119, 120, 121, 122, 123, 124, 125, 0,  0,  0,  0,  0,  0,   0,   64,
    65,  66,  67,  68,  69,  70,  71,  72,  73,  74,  75,  76,  77,  78,  79, 80, 81, 82, 83, 84,  85,  86,
    87,  88,  89,  0,   0,   0,   0,   127, 0,   90,  91,  92,  93,  94,  95, 96, 97, 98, 99, 100, 101, 102,
    103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 115, 0,   0,  0,  0,  0,
};

/* The last one or two bytes. */
static char *encode_tail(const uint8_t *p, size_t left, const char *alphabet, bool pad, char *to)
{
    if (left == 0)
        return to;
    unsigned v = (unsigned)p[0] << 16 | (left == 2 ? (unsigned)p[1] << 8 : 0);
    *to++ = alphabet[v >> 18];
    *to++ = alphabet[v >> 12 & 63];
    if (left == 2)
        *to++ = alphabet[v >> 6 & 63];
    for (size_t i = left; pad && i < 3; i++)
        *to++ = '=';
    return to;
}

static bool encode(struct str data, const char *alphabet, bool pad, struct buf *out)
{
    size_t exact = data.n / 3 * 4 + (data.n % 3 == 0 ? 0 : pad ? 4 : data.n % 3 + 1);
    if (data.n > SIZE_MAX / 2) {
        out->failed = true;
        return false;
    }
    char *to = buf_reserve(out, exact);
    if (to == NULL)
        return false;
    const uint8_t *p = (const uint8_t *)data.p;
    size_t left = data.n;
    for (; left >= 3; left -= 3, p += 3) {
        unsigned v = (unsigned)p[0] << 16 | (unsigned)p[1] << 8 | p[2];
        *to++ = alphabet[v >> 18];
        *to++ = alphabet[v >> 12 & 63];
        *to++ = alphabet[v >> 6 & 63];
        *to++ = alphabet[v & 63];
    }
    encode_tail(p, left, alphabet, pad, to);
    buf_commit(out, exact);
    return true;
}

bool crypto_base64(struct str data, struct buf *out)
{
    return encode(data, standard, true, out);
}

bool crypto_base64url(struct str data, struct buf *out)
{
    return encode(data, url, false, out);
}

/* The text without its padding; false when there is some and it is not what completes the last group. */
static bool strip_padding(struct str *text)
{
    size_t n = text->n, pads = 0;
    while (n > 0 && pads < 2 && text->p[n - 1] == '=') {
        n--;
        pads++;
    }
    bool fits = pads == 0 || text->n % 4 == 0;
    text->n = n;
    return fits && n % 4 != 1;
}

/* The last two or three characters; their spare bits must be zero. */
static bool decode_tail(const uint8_t *p, size_t left, uint8_t *to)
{
    if (left == 0)
        return true;
    unsigned a = values[p[0]], b = values[p[1]], c = left == 3 ? values[p[2]] : VALID;
    unsigned v = (a & 63) << 18 | (b & 63) << 12 | (c & 63) << 6;
    to[0] = (uint8_t)(v >> 16);
    if (left == 3)
        to[1] = (uint8_t)(v >> 8);
    return (a & b & c & VALID) != 0 && (v & (left == 3 ? 0xffu : 0xffffu)) == 0;
}

static bool decode(struct str text, uint8_t *to)
{
    const uint8_t *p = (const uint8_t *)text.p;
    size_t left = text.n;
    unsigned valid = VALID;
    for (; left >= 4; left -= 4, p += 4, to += 3) {
        unsigned a = values[p[0]], b = values[p[1]], c = values[p[2]], d = values[p[3]];
        valid &= a & b & c & d;
        unsigned v = (a & 63) << 18 | (b & 63) << 12 | (c & 63) << 6 | (d & 63);
        to[0] = (uint8_t)(v >> 16);
        to[1] = (uint8_t)(v >> 8);
        to[2] = (uint8_t)v;
    }
    return valid != 0 && decode_tail(p, left, to);
}

bool crypto_unbase64(struct str text, struct buf *out)
{
    if (!strip_padding(&text))
        return false;
    size_t n = text.n / 4 * 3 + (text.n % 4 != 0 ? text.n % 4 - 1 : 0);
    if (n == 0)
        return true;
    uint8_t *to = (uint8_t *)buf_reserve(out, n);
    if (to == NULL || !decode(text, to))
        return false;
    buf_commit(out, n);
    return true;
}
