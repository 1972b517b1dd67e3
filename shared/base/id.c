/* UUIDv7: time, a counter that keeps ids of one process in order, randomness. */
#include "base/id.h"

#include <stdio.h>
#include <unistd.h>
#include <sys/random.h>

#include "base/err.h"

void random_bytes(void *out, size_t n)
{
    unsigned char *p = out;
    while (n > 0) {
        size_t step = n < 256 ? n : 256; /* getentropy's limit */
        if (getentropy(p, step) != 0)
            BUG("no randomness from the kernel");
        p += step;
        n -= step;
    }
}

/* Random bytes from a small pool: one system call for forty ids. */
static void pooled_random(uint8_t out[6])
{
    static uint8_t pool[240];
    static size_t left = 0;
    static pid_t owner = 0;
    if (left < 6 || owner != getpid()) { /* a forked child must not repeat its parent's ids */
        random_bytes(pool, sizeof pool);
        left = sizeof pool;
        owner = getpid();
    }
    left -= 6;
    memcpy(out, pool + left, 6);
}

static void put_time(struct uuid *id, int64_t ms)
{
    for (int i = 0; i < 6; i++)
        id->b[i] = (uint8_t)(ms >> (40 - 8 * i));
}

/* A clock put back by less is waited for: ids stay in order. By more, they would name the wrong day. */
enum { BACK_MS = 60 * 1000 };

struct uuid uuid_new(void)
{
    static int64_t last_ms = 0;
    static uint32_t counter = 0; /* 26 bits */
    int64_t ms = wall_now().us / 1000;
    if (ms > last_ms || last_ms - ms > BACK_MS) {
        last_ms = ms;
        uint8_t seed[6];
        pooled_random(seed);
        counter = (uint32_t)(seed[0] | seed[1] << 8) & 0xFFFF; /* starts low: room to count up */
    } else if (++counter >= 1u << 26) {
        last_ms++; /* the counter ran over: borrow from the future, as RFC 9562 allows */
        counter = 0;
    }
    struct uuid id;
    put_time(&id, last_ms);
    id.b[6] = (uint8_t)(0x70 | counter >> 22);
    id.b[7] = (uint8_t)(counter >> 14);
    id.b[8] = (uint8_t)(0x80 | (counter >> 8 & 0x3F));
    id.b[9] = (uint8_t)counter;
    pooled_random(id.b + 10);
    id.b[15] &= 0xFE; /* of no series */
    return id;
}

enum { SERIES_SHIFT = 1, SERIES_BITS = 20 }; /* above the lowest bit, which tells members of series */

struct uuid uuid_series(void)
{
    struct uuid id;
    put_time(&id, wall_now().us / 1000);
    random_bytes(id.b + 6, 10);
    id.b[6] = (uint8_t)(0x70 | (id.b[6] & 0x0F));
    id.b[8] = (uint8_t)(0x80 | (id.b[8] & 0x3F));
    return uuid_of_series(id, 0);
}

struct uuid uuid_of_series(struct uuid first, uint32_t i)
{
    INVARIANT(i < UUID_SERIES_MAX);
    uint32_t low = i << SERIES_SHIFT | 1;
    first.b[13] = (uint8_t)((first.b[13] & ~((1u << (SERIES_BITS + SERIES_SHIFT - 16)) - 1)) | low >> 16);
    first.b[14] = (uint8_t)(low >> 8);
    first.b[15] = (uint8_t)low;
    return first;
}

uint32_t uuid_series_index(struct uuid id)
{
    uint32_t low = (uint32_t)id.b[13] << 16 | (uint32_t)id.b[14] << 8 | id.b[15];
    return (low & ((1u << (SERIES_BITS + SERIES_SHIFT)) - 1)) >> SERIES_SHIFT;
}

bool uuid_in_series(struct uuid id)
{
    return (id.b[15] & 1) != 0;
}

struct uuid uuid_floor(wall_t t)
{
    struct uuid id = {0};
    put_time(&id, t.us / 1000);
    return id;
}

wall_t uuid_time(struct uuid id)
{
    int64_t ms = 0;
    for (int i = 0; i < 6; i++)
        ms = ms << 8 | id.b[i];
    return (wall_t){.us = ms * 1000};
}

int uuid_cmp(struct uuid a, struct uuid b)
{
    return memcmp(a.b, b.b, sizeof a.b);
}

bool uuid_eq(struct uuid a, struct uuid b)
{
    return uuid_cmp(a, b) == 0;
}

bool uuid_is_zero(struct uuid id)
{
    static const struct uuid zero;
    return uuid_eq(id, zero);
}

static bool hyphen_at(size_t i)
{
    return i == 8 || i == 13 || i == 18 || i == 23;
}

void uuid_format(struct uuid id, char out[UUID_TEXT_BYTES])
{
    static const char hex[] = "0123456789abcdef";
    size_t at = 0;
    for (size_t i = 0; i < sizeof id.b; i++) {
        if (hyphen_at(at))
            out[at++] = '-';
        out[at++] = hex[id.b[i] >> 4];
        out[at++] = hex[id.b[i] & 15];
    }
    out[at] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool uuid_parse(struct str s, struct uuid *out)
{
    if (s.n != UUID_TEXT_BYTES - 1)
        return false;
    struct uuid id;
    size_t byte = 0;
    for (size_t i = 0; i < s.n;) {
        if (hyphen_at(i)) {
            if (s.p[i++] != '-')
                return false;
            continue;
        }
        int hi = hex_value(s.p[i]), lo = hex_value(s.p[i + 1]);
        if (hi < 0 || lo < 0)
            return false;
        id.b[byte++] = (uint8_t)(hi << 4 | lo);
        i += 2;
    }
    *out = id;
    return true;
}

void id_format(const char *prefix, struct uuid id, char out[ID_TEXT_BYTES])
{
    char text[UUID_TEXT_BYTES];
    uuid_format(id, text);
    snprintf(out, ID_TEXT_BYTES, "%.6s_%s", prefix, text);
}

bool id_parse(const char *prefix, struct str s, struct uuid *out)
{
    size_t n = strlen(prefix);
    if (s.n <= n || memcmp(s.p, prefix, n) != 0 || s.p[n] != '_')
        return false;
    return uuid_parse(str_make(s.p + n + 1, s.n - n - 1), out);
}
