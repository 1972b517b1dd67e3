/* Logs of builds. The row of build_logs is locked by whoever appends, so pieces of one log come one after
 * another, and the try that stands there is compared under that lock. */
#include "store/build_logs.h"

#include <stdlib.h>

#include "store/call.h"

/* ---- writing ---- */

static const char sql_begin[] =
    "INSERT INTO build_logs AS l (id, try) SELECT id, 1 FROM agent_versions WHERE id = $1 AND status = 0 "
    "ON CONFLICT (id) DO UPDATE SET try = l.try + 1 RETURNING try, bytes, open";

static void reply_begin(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    struct build_log_begun b = {0};
    if (err == NULL && pg_rows(r) == 1)
        b = (struct build_log_begun){.building = true,
                                     .try = pg_get_int4(r, 0, 0),
                                     .bytes = pg_get_int8(r, 0, 1),
                                     .open = pg_get_bool(r, 0, 2)};
    ((build_log_begin_fn *)c->fn)(c->arg, &b, err);
    free(c);
}

int build_log_begin(struct pg *pg, struct uuid version, int64_t deadline_ms, build_log_begin_fn *fn,
                    void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL)
        pg_put_uuid(p, version);
    return store_query(pg, sql_begin, p, deadline_ms, reply_begin, (void (*)(void))fn, arg, err);
}

static const char sql_append[] =
    "WITH l AS (UPDATE build_logs SET bytes = $3 + length($4::bytea), open = NOT $5 "
    "WHERE id = $1 AND try = $2 AND bytes IN ($3, $3 + length($4::bytea)) "
    "AND EXISTS (SELECT FROM agent_versions v WHERE v.id = $1 AND v.status = 0) RETURNING id), "
    "p AS (INSERT INTO build_log_pieces (id, at, data) SELECT id, $3, $4 FROM l WHERE length($4::bytea) > 0 "
    "ON CONFLICT DO NOTHING) SELECT 1 FROM l";

static void reply_append(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    ((build_log_append_fn *)c->fn)(c->arg, err == NULL && pg_rows(r) == 1, err);
    free(c);
}

int build_log_append(struct pg *pg, const struct build_log_piece *piece, int64_t deadline_ms,
                     build_log_append_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(piece->data.n + 256);
    if (p != NULL) {
        pg_put_uuid(p, piece->version);
        pg_put_int4(p, piece->try);
        pg_put_int8(p, piece->at);
        pg_put_bytea(p, piece->data);
        pg_put_bool(p, piece->last);
    }
    return store_query(pg, sql_append, p, deadline_ms, reply_append, (void (*)(void))fn, arg, err);
}

/* ---- reading ---- */

static const char sql_find[] =
    "SELECT v.id, v.status, l.id IS NOT NULL, coalesce(l.bytes, 0::int8), CASE WHEN l.id IS NULL THEN "
    "v.build_log ELSE '' END FROM agents a JOIN agent_versions v ON v.agent = a.id AND v.version = $3 "
    "LEFT JOIN build_logs l ON l.id = v.id WHERE a.tenant = $1 AND a.slug = $2";

static void reply_find(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    struct build_log_place place = {0};
    if (err == NULL && pg_rows(r) == 1)
        place = (struct build_log_place){.found = true,
                                         .version = pg_get_uuid(r, 0, 0),
                                         .status = (enum agent_status)pg_get_int2(r, 0, 1),
                                         .pieces = pg_get_bool(r, 0, 2),
                                         .bytes = pg_get_int8(r, 0, 3),
                                         .kept = pg_get_str(r, 0, 4)};
    if (place.found && !place.pieces)
        place.bytes = (int64_t)place.kept.n;
    ((build_log_find_fn *)c->fn)(c->arg, &place, err);
    free(c);
}

int build_log_find(struct pg *pg, int32_t tenant, struct str slug, int32_t version, int64_t deadline_ms,
                   build_log_find_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(512);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_text(p, slug);
        pg_put_int4(p, version);
    }
    return store_query(pg, sql_find, p, deadline_ms, reply_find, (void (*)(void))fn, arg, err);
}

/* From the last piece that begins at or before the offset: one step down the primary key. */
static const char sql_read[] =
    "SELECT at, data FROM build_log_pieces WHERE id = $1 AND at >= coalesce((SELECT at FROM build_log_pieces "
    "WHERE id = $1 AND at <= $2 ORDER BY at DESC LIMIT 1), 0) ORDER BY at LIMIT $3";

struct reading {
    int64_t at;
    build_log_read_fn *fn;
    void *arg;
};

/* Pieces follow each other without a gap; one that does not is not given. */
static void reply_read(void *arg, const struct pg_result *r, const struct err *err)
{
    struct reading *c = arg;
    struct str pieces[BUILD_LOG_READ_PIECES];
    size_t n = 0;
    int64_t at = c->at;
    for (int i = 0; err == NULL && i < pg_rows(r) && i < BUILD_LOG_READ_PIECES; i++) {
        struct str data = pg_get_str(r, i, 1);
        int64_t skip = at - pg_get_int8(r, i, 0);
        if (skip < 0 || skip >= (int64_t)data.n)
            break;
        pieces[n++] = str_make(data.p + skip, data.n - (size_t)skip);
        at += (int64_t)data.n - skip;
    }
    c->fn(c->arg, pieces, n, err);
    free(c);
}

int build_log_read(struct pg *pg, struct uuid version, int64_t at, int64_t deadline_ms, build_log_read_fn *fn,
                   void *arg, struct err *err)
{
    struct reading *c = malloc(sizeof *c);
    struct pg_params *p = c != NULL ? pg_params_new(128) : NULL;
    int rc = -1;
    if (p == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory for a query");
    } else {
        *c = (struct reading){.at = at, .fn = fn, .arg = arg};
        pg_put_uuid(p, version);
        pg_put_int8(p, at);
        pg_put_int8(p, BUILD_LOG_READ_PIECES);
        rc = pg_query(pg, sql_read, p, deadline_ms, reply_read, c, err) != NULL ? 0 : -1;
    }
    pg_params_free(&p);
    if (rc != 0)
        free(c);
    return rc;
}

static const char sql_sizes[] =
    "SELECT v.id, coalesce(l.bytes, 0::int8), v.status = 0 FROM agent_versions v LEFT JOIN build_logs l ON "
    "l.id = v.id WHERE v.id = ANY($1)";

static void reply_sizes(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    struct build_log_size *sizes = calloc(n + 1, sizeof *sizes);
    INVARIANT(sizes != NULL); /* as many as were asked for */
    for (size_t i = 0; i < n; i++)
        sizes[i] = (struct build_log_size){.version = pg_get_uuid(r, (int)i, 0),
                                           .bytes = pg_get_int8(r, (int)i, 1),
                                           .building = pg_get_bool(r, (int)i, 2)};
    ((build_log_sizes_fn *)c->fn)(c->arg, sizes, n, err);
    free(sizes);
    free(c);
}

int build_log_sizes(struct pg *pg, const struct uuid *versions, size_t n, int64_t deadline_ms,
                    build_log_sizes_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(n * 32 + 256);
    if (p != NULL) {
        pg_array_begin(p, PG_UUID);
        for (size_t i = 0; i < n; i++)
            pg_put_uuid(p, versions[i]);
        pg_array_end(p);
    }
    return store_query(pg, sql_sizes, p, deadline_ms, reply_sizes, (void (*)(void))fn, arg, err);
}
