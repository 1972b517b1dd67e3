/* Where a value stands. Errors in files that people write name the line; the tree does not keep it. So the
 * tree says which value it is, counted in document order, and one walk over the text, which has been scanned,
 * finds the line. Only for errors: it costs a pass over the whole. */
#include <stdbool.h>
#include <string.h>

#include "json/scan.h"

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* p stands on the opening quote; what follows the closing one. */
static const char *behind_string(const char *p)
{
    for (p++; *p != '"'; p++)
        p += *p == '\\';
    return p + 1;
}

static const char *behind_token(const char *p, const char *end)
{
    if (*p == '"')
        return behind_string(p);
    if (*p == '{' || *p == '[')
        return p + 1;
    while (p < end && strchr(" \t\r\n,]}", *p) == NULL)
        p++;
    return p;
}

static bool is_key(const char *after, const char *end)
{
    while (after < end && is_space(*after))
        after++;
    return after < end && *after == ':';
}

unsigned json_nth_line(struct str text, size_t nth)
{
    const char *p = text.p, *end = text.p + text.n;
    unsigned line = 1, key_line = 0; /* 0: the next value has no key */
    size_t seen = 0;
    while (p < end) {
        if (is_space(*p) || strchr(",:]}", *p) != NULL) {
            line += *p++ == '\n';
            continue;
        }
        const char *after = behind_token(p, end);
        bool key = *p == '"' && is_key(after, end);
        if (!key && seen++ == nth)
            return key_line != 0 ? key_line : line;
        key_line = key ? line : 0;
        p = after;
    }
    return line;
}
