/* traceparent. */
#include "model/traceparent.h"

#include <string.h>

enum { VERSION_AT = 0, TRACE_AT = 3, PARENT_AT = 36, FLAGS_AT = 53, TEXT_LENGTH = 55 };

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_hex(const char *p, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int high = hex_digit(p[2 * i]), low = hex_digit(p[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool is_zero(const uint8_t *p, size_t n)
{
    while (n > 0 && p[n - 1] == 0)
        n--;
    return n == 0;
}

bool traceparent_parse(struct str s, struct traceparent *out)
{
    uint8_t version = 0;
    *out = (struct traceparent){0};
    if (s.n < TEXT_LENGTH || s.p[TRACE_AT - 1] != '-' || s.p[PARENT_AT - 1] != '-' ||
        s.p[FLAGS_AT - 1] != '-')
        return false;
    struct traceparent t = {.present = true};
    if (!read_hex(s.p + VERSION_AT, &version, 1) || version == 0xFF ||
        !read_hex(s.p + TRACE_AT, t.trace_id, 16) || !read_hex(s.p + PARENT_AT, t.parent_id, 8) ||
        !read_hex(s.p + FLAGS_AT, &t.flags, 1))
        return false;
    if (s.n > TEXT_LENGTH && (version == 0 || s.p[TEXT_LENGTH] != '-'))
        return false;
    if (is_zero(t.trace_id, sizeof t.trace_id) || is_zero(t.parent_id, sizeof t.parent_id))
        return false;
    *out = t;
    return true;
}

static char *put_hex(char *to, const uint8_t *p, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        *to++ = digits[p[i] >> 4];
        *to++ = digits[p[i] & 15];
    }
    return to;
}

void traceparent_format(const struct traceparent *t, char out[TRACEPARENT_TEXT_BYTES])
{
    char *to = out;
    if (t->present) {
        memcpy(to, "00-", 3);
        to = put_hex(to + 3, t->trace_id, sizeof t->trace_id);
        *to++ = '-';
        to = put_hex(to, t->parent_id, sizeof t->parent_id);
        *to++ = '-';
        to = put_hex(to, &t->flags, 1);
    }
    *to = '\0';
}
