/* Arenas: everything that one request allocates, freed in one go, with a cap. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

#include "base/str.h"

struct arena;

/* An arena that gives out at most max_bytes in all. NULL without memory. */
struct arena *arena_new(size_t max_bytes);

/* Frees everything and nulls the caller's pointer; NULL is fine. */
void arena_free(struct arena **a);

/* Zeroed, aligned for any type; NULL past the cap or without memory. Lives as long as the arena. */
void *arena_alloc(struct arena *a, size_t n);

/* NUL-ended copies; NULL past the cap. */
char *arena_dup(struct arena *a, struct str s);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Bytes given out so far. */
size_t arena_used(const struct arena *a);

#endif
