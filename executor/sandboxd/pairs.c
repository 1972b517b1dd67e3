/* Pairs (pairs.h). */
#include "pairs.h"

#include <stdlib.h>

#include "crypto/crypto.h"

bool pairs_add(struct pairs *p, struct str name, struct str value)
{
    struct pair *items = realloc(p->items, (p->count + 1) * sizeof *items);
    if (items == NULL)
        return false;
    p->items = items;
    struct pair pair = {str_dup(name), str_dup(value)};
    if (pair.name == NULL || pair.value == NULL) {
        free(pair.name);
        free(pair.value);
        return false;
    }
    items[p->count++] = pair;
    return true;
}

void pairs_free(struct pairs *p)
{
    for (size_t i = 0; i < p->count; i++) {
        crypto_wipe(p->items[i].value, strlen(p->items[i].value));
        free(p->items[i].name);
        free(p->items[i].value);
    }
    free(p->items);
    *p = (struct pairs){0};
}

const char *pairs_get(const struct pairs *p, struct str name)
{
    for (size_t i = 0; i < p->count; i++)
        if (str_eq_c(name, p->items[i].name))
            return p->items[i].value;
    return NULL;
}
