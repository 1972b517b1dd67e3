/* Encoded parameters as the connection sends them (private to shared/postgres). */
#ifndef POSTGRES_PARAMS_H
#define POSTGRES_PARAMS_H

#include <stddef.h>
#include <stdint.h>

#include "postgres/pg.h"

enum { PG_MAX_PARAMS = 128 };

/* 2000-01-01, where PostgreSQL's timestamps count from. */
#define PG_EPOCH_US INT64_C(946684800000000)

/* A view: `offsets` lead into `bytes`; a length of -1 is NULL. */
struct pg_args {
    int count;
    const uint32_t *types; /* OIDs */
    const int *lengths;
    const size_t *offsets;
    const char *bytes;
    size_t size;
};

/* The view of p (NULL: no parameters), valid until p changes. False when p failed or an array is open. */
bool pg_params_view(const struct pg_params *p, struct pg_args *out);

#endif
