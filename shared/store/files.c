/* Files.
 *
 * A set's row in file_sets is its lock: chunks and lists are taken only while it stands and is not dropped,
 * under a share lock, so that nothing can slip in behind a drop. A drop marks it first and deletes in a
 * statement of its own, which therefore sees all that was taken before. */
#include "store/files.h"

#include <stdlib.h>
#include <string.h>

#include "model/invocation.h"
#include "store/call.h"

#define SET_TAKES                                                                                      \
    "WITH s AS (SELECT id, attempt FROM file_sets WHERE id = $1 AND attempt = $2 AND NOT dropped FOR " \
    "SHARE), "

static const char sql_open[] = "INSERT INTO file_sets (id, attempt) VALUES ($1, $2) ON CONFLICT DO NOTHING";
static const char sql_put[] =
    SET_TAKES "b AS (INSERT INTO blobs (id, kind, attempt, chunk, data) SELECT s.id, 4, s.attempt, c.chunk, "
              "c.data FROM s, unnest($3::int4[], $4::bytea[]) AS c (chunk, data) ON CONFLICT DO NOTHING) "
              "SELECT EXISTS (SELECT FROM s)";
static const char sql_list[] = SET_TAKES
    "f AS (INSERT INTO files (id, attempt, path, bytes, sha256, mode, chunk) SELECT s.id, s.attempt, f.* "
    "FROM s, unnest($3::text[], $4::int8[], $5::bytea[], $6::int2[], $7::int4[]) AS f (path, bytes, sha256, "
    "mode, chunk) ON CONFLICT DO NOTHING) SELECT EXISTS (SELECT FROM s)";
static const char sql_chunks_drop[] = "DELETE FROM blobs WHERE id = $1 AND kind = 4 AND attempt = $2 AND "
                                      "chunk >= $3 AND chunk < $4";
static const char sql_keep[] = "DELETE FROM file_sets WHERE id = $1 AND attempt = $2 AND NOT dropped";

/* Whether a row refers to the set s. */
#define REFERRED                                                                                          \
    "(CASE WHEN s.attempt = 0 THEN EXISTS (SELECT FROM invocations i WHERE i.files = s.id) ELSE EXISTS (" \
    "SELECT FROM results r WHERE r.id = s.id AND r.attempt = s.attempt AND r.artifacts > 0) END)"
static const char sql_mark[] =
    "UPDATE file_sets s SET dropped = true WHERE s.id = $1 AND s.attempt = $2 AND NOT " REFERRED;
static const char sql_drop[] =
    "WITH s AS (SELECT FROM file_sets WHERE id = $1 AND attempt = $2 AND dropped), "
    "b AS (DELETE FROM blobs WHERE id = $1 AND kind = 4 AND attempt = $2 AND EXISTS (SELECT FROM s)), "
    "f AS (DELETE FROM files WHERE id = $1 AND attempt = $2 AND EXISTS (SELECT FROM s)) "
    "DELETE FROM file_sets WHERE id = $1 AND attempt = $2 AND dropped";

/* An upload ends within a day (a body's least rate sees to it); an attempt's set has its time until another
 * attempt was allocated, or the invocation has ended without it. */
static const char sql_sweep_keep[] = "DELETE FROM file_sets s WHERE NOT s.dropped AND " REFERRED;
static const char sql_sweep_mark[] =
    "UPDATE file_sets s SET dropped = true WHERE NOT s.dropped AND NOT " REFERRED
    " AND CASE WHEN s.attempt = 0 THEN s.created_at < now() - interval '1 day' ELSE "
    "EXISTS (SELECT FROM results r WHERE r.id = s.id) OR "
    "EXISTS (SELECT FROM attempts a WHERE a.id = s.id AND a.attempt > s.attempt) END";
static const char sql_sweep_drop[] =
    "WITH s AS MATERIALIZED (SELECT id, attempt FROM file_sets WHERE dropped ORDER BY id LIMIT 10), "
    "b AS (DELETE FROM blobs b USING s WHERE b.id = s.id AND b.kind = 4 AND b.attempt = s.attempt), "
    "f AS (DELETE FROM files f USING s WHERE f.id = s.id AND f.attempt = s.attempt) "
    "DELETE FROM file_sets t USING s WHERE t.id = s.id AND t.attempt = s.attempt";

static const char sql_files[] =
    "SELECT path, bytes, sha256, mode, chunk FROM files WHERE id = $1 AND attempt = $2 ORDER BY path";
static const char sql_chunk[] =
    "SELECT data FROM blobs WHERE id = $1 AND kind = 4 AND attempt = $2 AND chunk = $3";
static const char sql_artifact[] =
    "SELECT f.path, f.bytes, f.sha256, f.mode, f.chunk, coalesce(r.attempt, 0::int2) "
    "FROM invocations i LEFT JOIN results r ON r.id = i.id AND r.id = $1 "
    "LEFT JOIN files f ON f.id = i.id AND f.id = $1 AND f.attempt = r.attempt AND r.artifacts > 0 "
    "AND f.path = $3 WHERE i.id = $1 AND i.tenant = $2";

static struct pg_params *set_params(struct file_set set, size_t extra)
{
    struct pg_params *p = pg_params_new(extra + 256);
    if (p != NULL) {
        pg_put_uuid(p, set.id);
        pg_put_int2(p, set.attempt);
    }
    return p;
}

int file_set_open(struct pg *pg, struct file_set set, int64_t deadline_ms, file_done_fn *fn, void *arg,
                  struct err *err)
{
    return store_query(pg, sql_open, set_params(set, 0), deadline_ms, store_reply_done, (void (*)(void))fn,
                       arg, err);
}

/* Of a statement that begins with SET_TAKES. */
static void reply_taken(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    struct err gone;
    if (err == NULL && !pg_get_bool(r, 0, 0)) {
        err_set(&gone, ERR_CONFLICT, "the files were given up meanwhile");
        err = &gone;
    }
    ((file_done_fn *)c->fn)(c->arg, err);
    free(c);
}

int file_chunks_put(struct pg *pg, struct file_set set, int32_t first, struct str data,
                    const uint32_t *lengths, int n, int64_t deadline_ms, file_done_fn *fn, void *arg,
                    struct err *err)
{
    struct pg_params *p = set_params(set, data.n + (size_t)n * 16 + 256);
    size_t at = 0;
    if (p != NULL) {
        pg_array_begin(p, PG_INT4);
        for (int i = 0; i < n; i++)
            pg_put_int4(p, first + i);
        pg_array_end(p);
        pg_array_begin(p, PG_BYTEA);
        for (int i = 0; i < n; at += lengths[i], i++)
            pg_put_bytea(p, str_make(data.p + at, lengths[i]));
        pg_array_end(p);
    }
    return store_query(pg, sql_put, p, deadline_ms, reply_taken, (void (*)(void))fn, arg, err);
}

#define COLUMN(type, put)                           \
    do {                                            \
        pg_array_begin(p, type);                    \
        for (size_t i = 0; i < n; i++) {            \
            const struct file_entry *f = &files[i]; \
            put;                                    \
        }                                           \
        pg_array_end(p);                            \
    } while (0)

int file_set_list(struct pg *pg, struct file_set set, const struct file_entry *files, size_t n,
                  int64_t deadline_ms, file_done_fn *fn, void *arg, struct err *err)
{
    size_t names = 0;
    for (size_t i = 0; i < n; i++)
        names += files[i].path.n;
    struct pg_params *p = set_params(set, names + n * 128 + 512);
    if (p != NULL) {
        COLUMN(PG_TEXT, pg_put_text(p, f->path));
        COLUMN(PG_INT8, pg_put_int8(p, f->bytes));
        COLUMN(PG_BYTEA, pg_put_bytea(p, str_make((const char *)f->sha256, sizeof f->sha256)));
        COLUMN(PG_INT2, pg_put_int2(p, f->mode));
        COLUMN(PG_INT4, pg_put_int4(p, f->chunk));
    }
    return store_query(pg, sql_list, p, deadline_ms, reply_taken, (void (*)(void))fn, arg, err);
}

int file_chunks_drop(struct pg *pg, struct file_set set, int32_t from, int32_t to, int64_t deadline_ms)
{
    struct pg_params *p = set_params(set, 0);
    if (p != NULL) {
        pg_put_int4(p, from);
        pg_put_int4(p, to);
    }
    return store_query(pg, sql_chunks_drop, p, deadline_ms, store_reply_done, NULL, NULL, NULL);
}

int file_set_keep(struct pg *pg, struct file_set set, int64_t deadline_ms)
{
    return store_query(pg, sql_keep, set_params(set, 0), deadline_ms, store_reply_done, NULL, NULL, NULL);
}

/* One connection runs its statements in order. */
int file_set_drop(struct pg *pg, struct file_set set, int64_t deadline_ms)
{
    if (store_query(pg, sql_mark, set_params(set, 0), deadline_ms, store_reply_done, NULL, NULL, NULL) != 0)
        return -1;
    return store_query(pg, sql_drop, set_params(set, 0), deadline_ms, store_reply_done, NULL, NULL, NULL);
}

/* ---- reading ---- */

static void read_entry(const struct pg_result *r, int row, struct file_entry *out)
{
    *out = (struct file_entry){.path = pg_get_str(r, row, 0),
                               .bytes = pg_get_int8(r, row, 1),
                               .mode = pg_get_int2(r, row, 3),
                               .chunk = pg_get_int4(r, row, 4)};
    struct str sha256 = pg_get_str(r, row, 2);
    if (sha256.n == sizeof out->sha256)
        memcpy(out->sha256, sha256.p, sha256.n);
}

static void reply_files(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    struct file_entry *files = calloc(n + 1, sizeof *files);
    struct err none;
    if (files == NULL && err == NULL) {
        err_set(&none, ERR_NO_MEMORY, "no memory for a list of files");
        err = &none;
    }
    for (size_t i = 0; err == NULL && i < n; i++)
        read_entry(r, (int)i, &files[i]);
    ((files_fn *)c->fn)(c->arg, files, err == NULL ? n : 0, err);
    free(files);
    free(c);
}

int files_get(struct pg *pg, struct file_set set, int64_t deadline_ms, files_fn *fn, void *arg,
              struct err *err)
{
    return store_query(pg, sql_files, set_params(set, 0), deadline_ms, reply_files, (void (*)(void))fn, arg,
                       err);
}

static void reply_chunk(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    bool found = err == NULL && pg_rows(r) == 1;
    ((file_chunk_fn *)c->fn)(c->arg, found ? pg_get_str(r, 0, 0) : str_of(NULL), err);
    free(c);
}

int file_chunk_get(struct pg *pg, struct file_set set, int32_t chunk, int64_t deadline_ms, file_chunk_fn *fn,
                   void *arg, struct err *err)
{
    struct pg_params *p = set_params(set, 0);
    if (p != NULL)
        pg_put_int4(p, chunk);
    return store_query(pg, sql_chunk, p, deadline_ms, reply_chunk, (void (*)(void))fn, arg, err);
}

struct artifact_call {
    struct uuid invocation;
    artifact_fn *fn;
    void *arg;
};

static void reply_artifact(void *arg, const struct pg_result *r, const struct err *err)
{
    struct artifact_call *c = arg;
    struct artifact_found a = {.found = err == NULL && pg_rows(r) == 1};
    struct file_entry file;
    if (a.found)
        a.set = (struct file_set){.id = c->invocation, .attempt = pg_get_int2(r, 0, 5)};
    if (a.found && !pg_is_null(r, 0, 0)) {
        read_entry(r, 0, &file);
        a.file = &file;
    }
    c->fn(c->arg, &a, err);
    free(c);
}

int artifact_get(struct pg *pg, struct uuid invocation, int32_t tenant, struct str path, int64_t deadline_ms,
                 artifact_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(path.n + 256);
    struct artifact_call *c = p != NULL ? malloc(sizeof *c) : NULL;
    int rc = c != NULL ? -1 : err_set(err, ERR_NO_MEMORY, "no memory for a query");
    if (c != NULL) {
        *c = (struct artifact_call){.invocation = invocation, .fn = fn, .arg = arg};
        pg_put_uuid(p, invocation);
        pg_put_int4(p, tenant);
        pg_put_text(p, path);
        if (pg_query(pg, sql_artifact, p, deadline_ms, reply_artifact, c, err) != NULL)
            rc = 0;
        else
            free(c);
    }
    pg_params_free(&p);
    return rc;
}

/* ---- the sweep ---- */

int file_sets_sweep(struct pg *pg, int64_t deadline_ms, file_done_fn *fn, void *arg)
{
    store_query(pg, sql_sweep_keep, pg_params_new(64), deadline_ms, store_reply_done, NULL, NULL, NULL);
    store_query(pg, sql_sweep_mark, pg_params_new(64), deadline_ms, store_reply_done, NULL, NULL, NULL);
    return store_query(pg, sql_sweep_drop, pg_params_new(64), deadline_ms, store_reply_done,
                       (void (*)(void))fn, arg, NULL);
}
