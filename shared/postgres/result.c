/* Results: typed reads of a PGresult in binary format. A `struct pg_result` is libpq's PGresult; the cast
 * stays here and in pg.c. */
#include <endian.h>
#include <libpq-fe.h>
#include <string.h>

#include "postgres/params.h"

enum { OID_JSONB = 3802 };

static const PGresult *raw(const struct pg_result *r)
{
    return (const PGresult *)(const void *)r;
}

int pg_rows(const struct pg_result *r)
{
    return PQntuples(raw(r));
}

int64_t pg_affected(const struct pg_result *r)
{
    int64_t n = 0;
    /* PQcmdTuples takes a non-const pointer but only reads */
    str_to_i64(str_of(PQcmdTuples((PGresult *)(void *)(uintptr_t)r)), &n);
    return n;
}

bool pg_is_null(const struct pg_result *r, int row, int col)
{
    INVARIANT(row >= 0 && row < PQntuples(raw(r)) && col >= 0 && col < PQnfields(raw(r)));
    return PQgetisnull(raw(r), row, col) != 0;
}

/* Copies a column of exactly n bytes; a NULL leaves zeros. */
static void fixed(const struct pg_result *r, int row, int col, void *out, int n)
{
    memset(out, 0, (size_t)n);
    if (pg_is_null(r, row, col))
        return;
    INVARIANT(PQgetlength(raw(r), row, col) == n);
    memcpy(out, PQgetvalue(raw(r), row, col), (size_t)n);
}

bool pg_get_bool(const struct pg_result *r, int row, int col)
{
    char v;
    fixed(r, row, col, &v, 1);
    return v != 0;
}

int16_t pg_get_int2(const struct pg_result *r, int row, int col)
{
    uint16_t v;
    fixed(r, row, col, &v, sizeof v);
    return (int16_t)be16toh(v);
}

int32_t pg_get_int4(const struct pg_result *r, int row, int col)
{
    uint32_t v;
    fixed(r, row, col, &v, sizeof v);
    return (int32_t)be32toh(v);
}

int64_t pg_get_int8(const struct pg_result *r, int row, int col)
{
    uint64_t v;
    fixed(r, row, col, &v, sizeof v);
    return (int64_t)be64toh(v);
}

double pg_get_float8(const struct pg_result *r, int row, int col)
{
    int64_t bits = pg_get_int8(r, row, col);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

struct str pg_get_str(const struct pg_result *r, int row, int col)
{
    if (pg_is_null(r, row, col))
        return STR("");
    struct str s = str_make(PQgetvalue(raw(r), row, col), (size_t)PQgetlength(raw(r), row, col));
    if (PQftype(raw(r), col) == OID_JSONB && s.n > 0) /* a version byte leads (jsonb_send) */
        s = str_make(s.p + 1, s.n - 1);
    return s;
}

struct uuid pg_get_uuid(const struct pg_result *r, int row, int col)
{
    struct uuid id;
    fixed(r, row, col, id.b, sizeof id.b);
    return id;
}

wall_t pg_get_time(const struct pg_result *r, int row, int col)
{
    if (pg_is_null(r, row, col))
        return (wall_t){0};
    return (wall_t){.us = pg_get_int8(r, row, col) + PG_EPOCH_US};
}
