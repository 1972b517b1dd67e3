/* API keys: what each may do. */
#include "model/api_key.h"

#include <stdio.h>
#include <string.h>

static const struct {
    unsigned bit;
    const char *name;
} scopes[] = {{KEY_READ, "read"}, {KEY_INVOKE, "invoke"}, {KEY_DEPLOY, "deploy"}, {KEY_ADMIN, "admin"}};
enum { SCOPES = sizeof scopes / sizeof *scopes };

unsigned key_scope_parse(struct str name)
{
    for (int i = 0; i < SCOPES; i++)
        if (str_eq_c(name, scopes[i].name))
            return scopes[i].bit;
    return 0;
}

unsigned key_scopes_parse(struct str list)
{
    unsigned all = 0;
    struct str name;
    while (str_split(&list, ',', &name)) {
        unsigned bit = key_scope_parse(str_trim(name));
        if (bit == 0)
            return 0;
        all |= bit;
    }
    return all;
}

const char *key_scope_name(unsigned bit)
{
    for (int i = 0; i < SCOPES; i++)
        if (scopes[i].bit == bit)
            return scopes[i].name;
    return NULL;
}

void key_scopes_text(unsigned has, const char *sep, char out[KEY_SCOPES_TEXT_BYTES])
{
    size_t n = 0;
    out[0] = '\0';
    for (int i = 0; i < SCOPES; i++)
        if ((has & scopes[i].bit) != 0 && n < KEY_SCOPES_TEXT_BYTES)
            n += (size_t)snprintf(out + n, KEY_SCOPES_TEXT_BYTES - n, "%s%s", n > 0 ? sep : "",
                                  scopes[i].name);
}

bool key_name_valid(struct str name)
{
    if (name.n == 0 || name.n > KEY_NAME_MAX_BYTES || !str_is_utf8(name))
        return false;
    for (size_t i = 0; i < name.n; i++)
        if ((unsigned char)name.p[i] < ' ' || name.p[i] == 0x7F)
            return false;
    return true;
}
