/* Argument lists for Redis commands and scripts: views, with the numbers and texts made for them kept alive.
 */
#ifndef STORE_ARGS_H
#define STORE_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/id.h"
#include "base/str.h"

struct args {
    struct str *v;
    int n, cap;
    struct arena *arena;
    bool failed; /* sticky: no memory */
};

/* max_bytes caps what is made here (numbers, id texts, packed bodies), not what is only referred to. */
void args_init(struct args *a, size_t max_bytes);
void args_deinit(struct args *a);

void args_str(struct args *a, struct str s);   /* by reference */
void args_cstr(struct args *a, const char *s); /* by reference */
void args_copy(struct args *a, struct str s);
void args_int(struct args *a, int64_t v);
void args_uuid(struct args *a, const struct uuid *id); /* 16 bytes, by reference */
void args_uuid_text(struct args *a, struct uuid id);
/* prefix + uuid text */
void args_key(struct args *a, const char *prefix, struct uuid id);

#endif
