/* The metadata filter (filter.h). Pure. */
#include "filter.h"

#include <string.h>

#include "base/buf.h"

enum { FILTER_MAX_BYTES = 16384 };

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Takes one layer of percent-encoding off; '+' is a space, as in Go's QueryUnescape. */
static bool unescape(struct str s, struct buf *out)
{
    buf_clear(out);
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '%') {
            buf_byte(out, s.p[i] == '+' ? ' ' : s.p[i]);
            continue;
        }
        int high = i + 2 < s.n ? hex_digit(s.p[i + 1]) : -1, low = i + 2 < s.n ? hex_digit(s.p[i + 2]) : -1;
        if (high < 0 || low < 0)
            return false;
        buf_byte(out, (char)(high << 4 | low));
        i += 2;
    }
    return !out->failed;
}

static bool take_pair(struct str pair, struct pairs *out, struct buf *name, struct buf *value)
{
    struct str rest = pair, left;
    if (!str_split(&rest, '=', &left) || rest.p == NULL || memchr(rest.p, '=', rest.n) != NULL)
        return false;
    return unescape(left, name) && unescape(rest, value) && pairs_add(out, buf_view(name), buf_view(value));
}

bool filter_parse(struct str text, struct pairs *out, struct err *err)
{
    struct buf whole, name, value;
    struct str rest, pair;
    buf_init(&whole, FILTER_MAX_BYTES);
    buf_init(&name, FILTER_MAX_BYTES);
    buf_init(&value, FILTER_MAX_BYTES);
    *out = (struct pairs){0};
    bool ok = unescape(text, &whole);
    rest = buf_view(&whole);
    while (ok && rest.n > 0 && str_split(&rest, '&', &pair))
        ok = take_pair(pair, out, &name, &value);
    buf_deinit(&whole);
    buf_deinit(&name);
    buf_deinit(&value);
    if (ok)
        return true;
    pairs_free(out);
    err_set(err, ERR_BAD_QUERY, "metadata: pairs of key=value, percent-encoded, are expected");
    return false;
}

bool filter_match(const struct pairs *filter, const struct pairs *metadata)
{
    for (size_t i = 0; i < filter->count; i++) {
        const char *value = pairs_get(metadata, str_of(filter->items[i].name));
        if (value == NULL || strcmp(value, filter->items[i].value) != 0)
            return false;
    }
    return true;
}
