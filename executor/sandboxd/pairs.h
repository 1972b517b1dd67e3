/* A short list of names and values: metadata, environments. */
#ifndef SANDBOXD_PAIRS_H
#define SANDBOXD_PAIRS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

/* Names and values, both owned. */
struct pair {
    char *name, *value;
};

struct pairs {
    struct pair *items;
    size_t count;
};

/* Copies both. False without memory. */
bool pairs_add(struct pairs *p, struct str name, struct str value);
/* Wipes the values: an environment may hold secrets. The list is then empty. */
void pairs_free(struct pairs *p);
/* NULL when there is none of that name. */
const char *pairs_get(const struct pairs *p, struct str name);

#endif
