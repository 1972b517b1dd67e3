/* Byte runs and UTF-8 sequences, shared by the scanner and the writer (private to shared/json). */
#ifndef JSON_UTF8_H
#define JSON_UTF8_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* How many bytes from p on need no care inside a JSON string: ASCII without controls, quote and backslash.
 * Eight at a time: a byte with its high bit set, below 0x20, or equal to one of the two makes `care`
 * non-zero. */
static inline size_t json_plain_run(const char *p, const char *end)
{
    const char *at = p;
    const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
    while (end - at >= 8) {
        uint64_t w;
        memcpy(&w, at, 8);
        uint64_t quote = w ^ ones * '"', slash = w ^ ones * '\\';
        uint64_t care = w | ((w - ones * 0x20) & ~w) | ((quote - ones) & ~quote) | ((slash - ones) & ~slash);
        if ((care & highs) != 0)
            break;
        at += 8;
    }
    while (at < end && (unsigned char)*at >= 0x20 && (unsigned char)*at < 0x80 && *at != '"' && *at != '\\')
        at++;
    return (size_t)(at - p);
}

/* The length of the valid UTF-8 sequence at p (RFC 3629, table 3-7 of Unicode), 0 when there is none. */
static inline size_t json_utf8_len(const char *p, const char *end)
{
    const unsigned char *s = (const unsigned char *)p;
    size_t left = (size_t)(end - p);
    if (left >= 1 && s[0] < 0x80)
        return 1;
    if (left < 2 || s[0] < 0xc2 || s[0] > 0xf4 || (s[1] & 0xc0) != 0x80)
        return 0;
    if (s[0] < 0xe0)
        return 2;
    if (left < 3 || (s[2] & 0xc0) != 0x80)
        return 0;
    if (s[0] < 0xf0)
        return (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ? 0 : 3;
    if (left < 4 || (s[3] & 0xc0) != 0x80)
        return 0;
    return (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f) ? 0 : 4;
}

#endif
