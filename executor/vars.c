/* Variables in clear. One block: the places, then the texts. */
#include "vars.h"

#include <stdint.h>
#include <string.h>

#include "crypto/crypto.h"

enum { PUNCTUATION = 2 }; /* '=' and the NUL */

struct place {
    uint32_t at, name_n, value_n;
};

struct vars {
    int refs;
    size_t n, max, used, room;
    char *text;
    struct place places[];
};

struct vars *vars_new(size_t count, size_t bytes)
{
    size_t room = bytes + count * PUNCTUATION;
    struct vars *v = crypto_guarded_new(sizeof *v + count * sizeof *v->places + room);
    if (v == NULL)
        return NULL;
    v->refs = 1;
    v->max = count;
    v->room = room;
    v->text = (char *)(v->places + count);
    return v;
}

struct vars *vars_keep(struct vars *v)
{
    if (v != NULL)
        v->refs++;
    return v;
}

void vars_free(struct vars **pv)
{
    struct vars *v = *pv;
    *pv = NULL;
    if (v != NULL && --v->refs == 0)
        crypto_guarded_free(v);
}

bool vars_add(struct vars *v, struct str name, struct str value)
{
    size_t n = name.n + value.n + PUNCTUATION;
    if (v->n == v->max || n > v->room - v->used)
        return false;
    char *to = v->text + v->used;
    v->places[v->n++] = (struct place){(uint32_t)v->used, (uint32_t)name.n, (uint32_t)value.n};
    v->used += n;
    memcpy(to, name.p, name.n);
    to[name.n] = '=';
    if (value.n > 0)
        memcpy(to + name.n + 1, value.p, value.n);
    to[n - 1] = '\0';
    return true;
}

size_t vars_count(const struct vars *v)
{
    return v != NULL ? v->n : 0;
}

const char *vars_pair(const struct vars *v, size_t i)
{
    return v->text + v->places[i].at;
}

struct str vars_name(const struct vars *v, size_t i)
{
    return str_make(vars_pair(v, i), v->places[i].name_n);
}

struct str vars_value(const struct vars *v, size_t i)
{
    return str_make(vars_pair(v, i) + v->places[i].name_n + 1, v->places[i].value_n);
}

bool vars_has(const struct vars *v, struct str name)
{
    for (size_t i = 0; i < vars_count(v); i++)
        if (str_eq(vars_name(v, i), name))
            return true;
    return false;
}
