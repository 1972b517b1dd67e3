/* Argument lists. */
#include "store/args.h"

#include <stdlib.h>

void args_init(struct args *a, size_t max_bytes)
{
    *a = (struct args){.arena = arena_new(max_bytes)};
    a->failed = a->arena == NULL;
}

void args_deinit(struct args *a)
{
    free(a->v);
    arena_free(&a->arena);
    *a = (struct args){0};
}

void args_str(struct args *a, struct str s)
{
    if (a->n == a->cap) {
        int cap = a->cap > 0 ? a->cap * 2 : 64;
        struct str *v = realloc(a->v, (size_t)cap * sizeof *v);
        if (v == NULL) {
            a->failed = true;
            return;
        }
        a->v = v;
        a->cap = cap;
    }
    a->v[a->n++] = s;
}

void args_cstr(struct args *a, const char *s)
{
    args_str(a, str_of(s));
}

void args_copy(struct args *a, struct str s)
{
    const char *p = a->failed ? NULL : arena_dup(a->arena, s);
    if (p == NULL)
        a->failed = true;
    else
        args_str(a, str_make(p, s.n));
}

void args_int(struct args *a, int64_t v)
{
    const char *p = a->failed ? NULL : arena_printf(a->arena, "%lld", (long long)v);
    if (p == NULL)
        a->failed = true;
    else
        args_str(a, str_of(p));
}

void args_uuid(struct args *a, const struct uuid *id)
{
    args_str(a, str_make((const char *)id->b, sizeof id->b));
}

void args_uuid_text(struct args *a, struct uuid id)
{
    char text[UUID_TEXT_BYTES];
    uuid_format(id, text);
    args_copy(a, str_of(text));
}

void args_key(struct args *a, const char *prefix, struct uuid id)
{
    char text[UUID_TEXT_BYTES];
    uuid_format(id, text);
    const char *p = a->failed ? NULL : arena_printf(a->arena, "%s%s", prefix, text);
    if (p == NULL)
        a->failed = true;
    else
        args_str(a, str_of(p));
}
