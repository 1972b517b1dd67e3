/* Names of variables, and packed lists of them. */
#include "model/environment.h"

#include <string.h>

static bool is_well_formed(struct str s)
{
    if (s.n == 0 || s.n > ENV_NAME_MAX_BYTES || (s.p[0] >= '0' && s.p[0] <= '9'))
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'))
            return false;
    }
    return true;
}

static bool is_reserved(struct str s)
{
    static const char *const names[] = {"PATH", "HOME",     "SHELL", "USER",        "LOGNAME", "PWD",
                                        "ENV",  "BASH_ENV", "IFS",   "TRACEPARENT", NULL};
    for (size_t i = 0; names[i] != NULL; i++)
        if (str_eq_c(s, names[i]))
            return true;
    return str_starts(s, STR("LD_")) || str_starts(s, STR("SANDPIPER_"));
}

int env_name_check(struct str name, struct err *err)
{
    if (!is_well_formed(name))
        return err_set(err, ERR_BAD_FIELD,
                       "a variable's name is 1 to %d capital letters, digits and _, and begins with no digit",
                       ENV_NAME_MAX_BYTES);
    if (is_reserved(name))
        return err_set(
            err, ERR_BAD_FIELD,
            "%.*s is set by the system: choose another name (PATH, HOME, LD_*, SANDPIPER_* and the "
            "like are taken)",
            STR_ARG(name));
    return 0;
}

bool env_pack(struct str name, struct str value, struct buf *out)
{
    uint32_t n = (uint32_t)value.n;
    const unsigned char size[4] = {(unsigned char)n, (unsigned char)(n >> 8), (unsigned char)(n >> 16),
                                   (unsigned char)(n >> 24)};
    buf_byte(out, (char)name.n);
    buf_str(out, name);
    buf_append(out, size, sizeof size);
    return buf_str(out, value);
}

static bool take(struct str *rest, size_t n, struct str *out)
{
    if (rest->n < n)
        return false;
    *out = str_make(rest->p, n);
    *rest = str_make(rest->p + n, rest->n - n);
    return true;
}

int env_unpack(struct str *rest, struct str *name, struct str *value)
{
    struct str size;
    if (rest->n == 0)
        return 0;
    if (!take(rest, 1, &size) || !take(rest, (unsigned char)size.p[0], name) ||
        env_name_check(*name, NULL) != 0 || !take(rest, 4, &size))
        return -1;
    const unsigned char *b = (const unsigned char *)size.p;
    size_t n = (size_t)b[0] | (size_t)b[1] << 8 | (size_t)b[2] << 16 | (size_t)b[3] << 24;
    if (!take(rest, n, value) || (n > 0 && memchr(value->p, '\0', n) != NULL))
        return -1;
    return 1;
}
