/* Values: from text to the field of a daemon's struct, kind by kind. To add a kind: a case in config_convert,
 * in config_unload and in kind_name (config.c). */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/settings.h"

struct unit {
    const char *suffix;
    int64_t factor;
};

static const struct unit byte_units[] = {{"", 1}, {"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {NULL, 0}};
static const struct unit time_units[] = {{"", 1},      {"ms", 1},      {"s", 1000},
                                         {"m", 60000}, {"h", 3600000}, {NULL, 0}};

static bool parse_units(struct str text, const struct unit *units, int64_t *out)
{
    size_t digits = 0;
    while (digits < text.n &&
           ((text.p[digits] >= '0' && text.p[digits] <= '9') || (digits == 0 && text.p[0] == '-')))
        digits++;
    int64_t n;
    if (!str_to_i64(str_make(text.p, digits), &n))
        return false;
    struct str suffix = str_make(text.p + digits, text.n - digits);
    for (; units->suffix != NULL; units++)
        if (str_eq_nocase(suffix, str_of(units->suffix)))
            return !__builtin_mul_overflow(n, units->factor, out);
    return false;
}

static const char *convert_number(const struct config_row *row, const struct unit *units,
                                  const char *expected, struct str text, void *field,
                                  char why[CONFIG_WHY_BYTES])
{
    int64_t v;
    bool bounded = row->min != 0 || row->max != 0;
    bool ok = units != NULL ? parse_units(text, units, &v) : str_to_i64(text, &v);
    if (!ok) {
        snprintf(why, CONFIG_WHY_BYTES, "must be %s, not \"%.40s\"", expected, text.p);
        return why;
    }
    if (bounded && (v < row->min || v > row->max)) {
        snprintf(why, CONFIG_WHY_BYTES, "must be from %lld to %lld, not %.40s", (long long)row->min,
                 (long long)row->max, text.p);
        return why;
    }
    memcpy(field, &v, sizeof v);
    return NULL;
}

static const char *convert_bool(struct str text, void *field, char why[CONFIG_WHY_BYTES])
{
    static const char *const yes[] = {"true", "1", "yes"}, *const no[] = {"false", "0", "no"};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
        bool is_yes = str_eq_nocase(text, str_of(yes[i]));
        if (is_yes || str_eq_nocase(text, str_of(no[i]))) {
            memcpy(field, &is_yes, sizeof is_yes);
            return NULL;
        }
    }
    snprintf(why, CONFIG_WHY_BYTES, "must be true or false, not \"%.40s\"", text.p);
    return why;
}

static const char *convert_string(struct str text, void *field)
{
    char *copy = str_dup(text);
    if (copy == NULL)
        return "does not fit into memory";
    memcpy(field, &copy, sizeof copy);
    return NULL;
}

static const char *convert_secret(struct str text, void *field)
{
    struct secret *secret = secret_new(text);
    if (secret == NULL)
        return "does not fit into memory";
    memcpy(field, &secret, sizeof secret);
    return NULL;
}

static bool is_address(struct str host, bool v6)
{
    char text[64];
    unsigned char address[16];
    return str_copy(host, text, sizeof text) && inet_pton(v6 ? AF_INET6 : AF_INET, text, address) == 1;
}

/* "127.0.0.1:8080" or "[::1]:8080" */
static bool is_listen(struct str s)
{
    uint64_t port;
    const char *colon = memrchr(s.p, ':', s.n);
    if (colon == NULL)
        return false;
    struct str host = str_make(s.p, (size_t)(colon - s.p));
    if (!str_to_u64(str_make(colon + 1, s.n - host.n - 1), &port) || port > 65535)
        return false;
    bool v6 = host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';
    return is_address(v6 ? str_make(host.p + 1, host.n - 2) : host, v6);
}

/* A scheme, "://", and something without spaces or controls. */
static bool is_url(struct str s)
{
    size_t i = 0;
    while (i < s.n && (isalnum((unsigned char)s.p[i]) || (i > 0 && strchr("+-.", s.p[i]) != NULL)))
        i++;
    if (i == 0 || s.n - i < 4 || memcmp(s.p + i, "://", 3) != 0)
        return false;
    for (; i < s.n; i++)
        if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f)
            return false;
    return true;
}

const char *config_convert(const struct config_row *row, const char *value, void *out,
                           char why[CONFIG_WHY_BYTES])
{
    struct str text = str_of(value);
    void *field = (char *)out + row->offset;
    switch (row->kind) {
    case CONFIG_STRING:
        return convert_string(text, field);
    case CONFIG_SECRET:
        return convert_secret(text, field);
    case CONFIG_INT:
        return convert_number(row, NULL, "a whole number", text, field, why);
    case CONFIG_BYTES:
        return convert_number(row, byte_units, "a size like 65536, 64k, 10m or 1g", text, field, why);
    case CONFIG_MS:
        return convert_number(row, time_units, "a time like 250ms, 5s, 2m or 24h", text, field, why);
    case CONFIG_BOOL:
        return convert_bool(text, field, why);
    case CONFIG_LISTEN:
        return is_listen(text) ? convert_string(text, field)
                               : "must be a numeric address:port or [v6 address]:port";
    case CONFIG_URL:
        return is_url(text) ? convert_string(text, field) : "must be a url: scheme://...";
    }
    BUG("a configuration row of no kind");
}
