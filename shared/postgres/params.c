/* Parameters in PostgreSQL's binary formats (the *_recv functions of src/backend/utils/adt): integers
 * big-endian, timestamptz as microseconds since 2000-01-01, uuid as 16 bytes, arrays as array_recv reads
 * them: dimensions, has-null flag, element OID, length, lower bound 1, then (int32 length, bytes) for each
 * element.
 *
 * All values lie in one growing buffer; a parameter is an offset and a length. To add a type: a row in
 * `types` and a pg_put_ function. */
#include "postgres/params.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

/* PostgreSQL refuses a field above 1 GiB. */
#define FIELD_MAX_BYTES ((size_t)1 << 30)
enum { ARRAY_HEADER_BYTES = 20, EMPTY_ARRAY_BYTES = 12 };

struct type_row {
    uint32_t oid, array_oid; /* src/include/catalog/pg_type.dat */
};

static const struct type_row types[] = {
    [PG_BOOL] = {16, 1000},  [PG_INT2] = {21, 1005},    [PG_INT4] = {23, 1007},
    [PG_INT8] = {20, 1016},  [PG_FLOAT8] = {701, 1022}, [PG_TEXT] = {25, 1009},
    [PG_BYTEA] = {17, 1001}, [PG_UUID] = {2950, 2951},  [PG_TIMESTAMPTZ] = {1184, 1185},
};

struct pg_params {
    struct buf bytes;
    int count;
    uint32_t types[PG_MAX_PARAMS];
    int lengths[PG_MAX_PARAMS];
    size_t offsets[PG_MAX_PARAMS];
    bool failed;
    /* the open array */
    bool in_array;
    enum pg_type element;
    uint32_t elements;
    bool has_null;
};

struct pg_params *pg_params_new(size_t max_bytes)
{
    struct pg_params *p = calloc(1, sizeof *p);
    if (p != NULL)
        buf_init(&p->bytes, max_bytes < FIELD_MAX_BYTES ? max_bytes : FIELD_MAX_BYTES);
    return p;
}

void pg_params_free(struct pg_params **p)
{
    if (p == NULL || *p == NULL)
        return;
    buf_deinit(&(*p)->bytes);
    free(*p);
    *p = NULL;
}

void pg_params_clear(struct pg_params *p)
{
    buf_clear(&p->bytes);
    p->count = 0;
    p->failed = false;
    p->in_array = false;
}

size_t pg_params_bytes(const struct pg_params *p)
{
    return p->bytes.len;
}

bool pg_params_view(const struct pg_params *p, struct pg_args *out)
{
    *out = (struct pg_args){.bytes = ""};
    if (p == NULL)
        return true;
    if (p->failed || p->bytes.failed || p->in_array)
        return false;
    *out = (struct pg_args){.count = p->count,
                            .types = p->types,
                            .lengths = p->lengths,
                            .offsets = p->offsets,
                            .bytes = p->bytes.data != NULL ? p->bytes.data : "",
                            .size = p->bytes.len};
    return true;
}

/* ---- placing values ---- */

static void put_be32(char *to, uint32_t v)
{
    v = htobe32(v);
    memcpy(to, &v, 4);
}

/* Opens the next parameter; its length follows. */
static bool next_param(struct pg_params *p, uint32_t oid)
{
    if (p->count == PG_MAX_PARAMS)
        p->failed = true;
    if (p->failed)
        return false;
    p->types[p->count] = oid;
    p->offsets[p->count] = p->bytes.len;
    p->lengths[p->count] = -1;
    p->count++;
    return true;
}

/* Room for an array's next element. */
static char *place_element(struct pg_params *p, enum pg_type type, size_t n)
{
    INVARIANT(type == p->element);
    char *to = buf_reserve(&p->bytes, 4 + n);
    if (to == NULL)
        return NULL;
    put_be32(to, (uint32_t)n);
    buf_commit(&p->bytes, 4 + n);
    p->elements++;
    return to + 4;
}

/* Room for a value of n bytes, or NULL (and failed). */
static char *place(struct pg_params *p, enum pg_type type, size_t n)
{
    if (p->in_array)
        return place_element(p, type, n);
    char *to = buf_reserve(&p->bytes, n);
    if (to == NULL || !next_param(p, types[type].oid))
        return NULL;
    buf_commit(&p->bytes, n);
    p->lengths[p->count - 1] = (int)n;
    return to;
}

static void put_bytes(struct pg_params *p, enum pg_type type, const void *v, size_t n)
{
    char *to = place(p, type, n);
    if (to != NULL && n != 0)
        memcpy(to, v, n);
}

void pg_put_null(struct pg_params *p, enum pg_type type)
{
    if (!p->in_array) {
        next_param(p, types[type].oid);
        return;
    }
    INVARIANT(type == p->element);
    buf_append(&p->bytes, "\xff\xff\xff\xff", 4);
    p->elements++;
    p->has_null = true;
}

void pg_put_bool(struct pg_params *p, bool v)
{
    put_bytes(p, PG_BOOL, v ? "\1" : "\0", 1);
}

void pg_put_int2(struct pg_params *p, int16_t v)
{
    uint16_t be = htobe16((uint16_t)v);
    put_bytes(p, PG_INT2, &be, sizeof be);
}

void pg_put_int4(struct pg_params *p, int32_t v)
{
    uint32_t be = htobe32((uint32_t)v);
    put_bytes(p, PG_INT4, &be, sizeof be);
}

static void put_be64(struct pg_params *p, enum pg_type type, uint64_t v)
{
    v = htobe64(v);
    put_bytes(p, type, &v, sizeof v);
}

void pg_put_int8(struct pg_params *p, int64_t v)
{
    put_be64(p, PG_INT8, (uint64_t)v);
}

void pg_put_float8(struct pg_params *p, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_be64(p, PG_FLOAT8, bits);
}

void pg_put_text(struct pg_params *p, struct str s)
{
    put_bytes(p, PG_TEXT, s.p, s.n);
}

void pg_put_bytea(struct pg_params *p, struct str s)
{
    put_bytes(p, PG_BYTEA, s.p, s.n);
}

void pg_put_uuid(struct pg_params *p, struct uuid id)
{
    put_bytes(p, PG_UUID, id.b, sizeof id.b);
}

void pg_put_time(struct pg_params *p, wall_t t)
{
    put_be64(p, PG_TIMESTAMPTZ, (uint64_t)(t.us - PG_EPOCH_US));
}

void pg_put_uuid_or_null(struct pg_params *p, struct uuid id)
{
    if (uuid_is_zero(id))
        pg_put_null(p, PG_UUID);
    else
        pg_put_uuid(p, id);
}

void pg_put_time_or_null(struct pg_params *p, wall_t t)
{
    if (t.us == 0)
        pg_put_null(p, PG_TIMESTAMPTZ);
    else
        pg_put_time(p, t);
}

/* ---- arrays ---- */

void pg_array_begin(struct pg_params *p, enum pg_type element)
{
    INVARIANT(!p->in_array);
    if (!next_param(p, types[element].array_oid))
        return;
    p->in_array = true;
    p->element = element;
    p->elements = 0;
    p->has_null = false;
    if (buf_reserve(&p->bytes, ARRAY_HEADER_BYTES) != NULL)
        buf_commit(&p->bytes, ARRAY_HEADER_BYTES);
}

void pg_array_end(struct pg_params *p)
{
    p->in_array = false;
    if (p->failed || p->bytes.failed)
        return;
    size_t at = p->offsets[p->count - 1];
    char *header = p->bytes.data + at;
    put_be32(header, p->elements > 0 ? 1 : 0);
    put_be32(header + 4, p->has_null);
    put_be32(header + 8, types[p->element].oid);
    put_be32(header + 12, p->elements);
    put_be32(header + 16, 1);
    if (p->elements == 0)
        p->bytes.len = at + EMPTY_ARRAY_BYTES;
    p->lengths[p->count - 1] = (int)(p->bytes.len - at);
}
