/* String views: comparison, strict numbers, UTF-8, edit distance. */
#include "base/str.h"

#include <stdlib.h>
#include <strings.h>

bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool str_eq_c(struct str a, const char *b)
{
    return str_eq(a, str_of(b));
}

bool str_eq_nocase(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || strncasecmp(a.p, b.p, a.n) == 0);
}

bool str_starts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

struct str str_trim(struct str s)
{
    while (s.n > 0 && is_blank(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

bool str_split(struct str *rest, char sep, struct str *head_out)
{
    if (rest->p == NULL)
        return false;
    const char *at = rest->n > 0 ? memchr(rest->p, sep, rest->n) : NULL;
    if (at == NULL) {
        *head_out = *rest;
        *rest = (struct str){0};
        return true;
    }
    size_t n = (size_t)(at - rest->p);
    *head_out = str_make(rest->p, n);
    *rest = str_make(at + 1, rest->n - n - 1);
    return true;
}

bool str_to_u64(struct str s, uint64_t *out)
{
    if (s.n == 0)
        return false;
    uint64_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
            return false;
    }
    *out = v;
    return true;
}

bool str_to_i64(struct str s, int64_t *out)
{
    bool neg = s.n > 0 && s.p[0] == '-';
    uint64_t v;
    if (!str_to_u64(neg ? str_make(s.p + 1, s.n - 1) : s, &v))
        return false;
    if (v > (uint64_t)INT64_MAX + (neg ? 1u : 0u))
        return false;
    *out = neg ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

/* Table 3-7 of Unicode. */
int str_utf8_next(struct str s)
{
    const unsigned char *p = (const unsigned char *)s.p, c = p[0];
    if (c < 0x80)
        return 1;
    size_t len = c >= 0xC2 && c <= 0xDF ? 2 : (c & 0xF0) == 0xE0 ? 3 : c >= 0xF0 && c <= 0xF4 ? 4 : 0;
    unsigned char lo = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
    unsigned char hi = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    for (size_t i = 1; i < len; i++) {
        if (i >= s.n)
            return -1;
        if (p[i] < (i == 1 ? lo : 0x80) || p[i] > (i == 1 ? hi : 0xBF))
            return 0;
    }
    return (int)len;
}

bool str_is_utf8(struct str s)
{
    for (size_t i = 0; i < s.n;) {
        int step = str_utf8_next(str_make(s.p + i, s.n - i));
        if (step <= 0)
            return false;
        i += (size_t)step;
    }
    return true;
}

char *str_dup(struct str s)
{
    char *copy = malloc(s.n + 1);
    if (copy == NULL)
        return NULL;
    if (s.n > 0)
        memcpy(copy, s.p, s.n);
    copy[s.n] = '\0';
    return copy;
}

bool str_copy(struct str s, char *out, size_t out_bytes)
{
    if (out_bytes == 0)
        return false;
    bool fits = s.n < out_bytes;
    size_t n = fits ? s.n : 0;
    if (n > 0)
        memcpy(out, s.p, n);
    out[n] = '\0';
    return fits;
}

unsigned str_distance(struct str a, struct str b)
{
    enum { MAX = 64 };
    if (a.n > MAX || b.n > MAX)
        return MAX;
    unsigned rows[3][MAX + 1];
    for (unsigned j = 0; j <= b.n; j++)
        rows[0][j] = j;
    for (unsigned i = 1; i <= a.n; i++) {
        unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];
        row[0] = i;
        for (unsigned j = 1; j <= b.n; j++) {
            unsigned change = above[j - 1] + (a.p[i - 1] == b.p[j - 1] ? 0u : 1u);
            unsigned drop = above[j] + 1, add = row[j - 1] + 1;
            row[j] = change < drop ? change : drop;
            row[j] = add < row[j] ? add : row[j];
            bool swapped = i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1];
            if (swapped && two_above[j - 2] + 1 < row[j])
                row[j] = two_above[j - 2] + 1;
        }
    }
    return rows[a.n % 3][b.n];
}

const char *str_nearest(struct str name, const char *const *known)
{
    const char *best = NULL;
    unsigned least = name.n <= 4 ? 2 : 4; /* one edit in a short name, three in a long one */
    for (; *known != NULL; known++) {
        unsigned d = str_distance(name, str_of(*known));
        if (d < least) {
            least = d;
            best = *known;
        }
    }
    return best;
}
