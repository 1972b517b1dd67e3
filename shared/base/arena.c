/* Arenas: a chain of blocks, the newest first; a large piece has a block of its own. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { BLOCK_BYTES = 4096, ALIGN = 16 };

struct block {
    struct block *next;
    size_t used, size;
    _Alignas(ALIGN) char data[];
};

struct arena {
    struct block *blocks;
    size_t used, max;
};

struct arena *arena_new(size_t max_bytes)
{
    struct arena *a = calloc(1, sizeof *a);
    if (a != NULL)
        a->max = max_bytes;
    return a;
}

void arena_free(struct arena **a)
{
    if (a == NULL || *a == NULL)
        return;
    for (struct block *b = (*a)->blocks, *next; b != NULL; b = next) {
        next = b->next;
        free(b);
    }
    free(*a);
    *a = NULL;
}

static struct block *block_add(struct arena *a, size_t n)
{
    size_t size = n > BLOCK_BYTES / 2 ? n : BLOCK_BYTES - sizeof(struct block);
    struct block *b = calloc(1, sizeof *b + size);
    if (b == NULL)
        return NULL;
    b->size = size;
    b->next = a->blocks;
    a->blocks = b;
    return b;
}

void *arena_alloc(struct arena *a, size_t n)
{
    if (n > a->max - a->used)
        return NULL;
    size_t padded = (n + ALIGN - 1) / ALIGN * ALIGN;
    struct block *b = a->blocks;
    if (b == NULL || b->size - b->used < padded)
        b = block_add(a, padded);
    if (b == NULL)
        return NULL;
    void *p = b->data + b->used;
    b->used += padded;
    a->used += n;
    return p;
}

char *arena_dup(struct arena *a, struct str s)
{
    char *p = arena_alloc(a, s.n + 1);
    if (p != NULL && s.n > 0)
        memcpy(p, s.p, s.n);
    return p;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = n >= 0 ? arena_alloc(a, (size_t)n + 1) : NULL;
    if (p != NULL)
        vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}

size_t arena_used(const struct arena *a)
{
    return a->used;
}
