/* Versions that are not kept. */
#include "store/retire.h"

#include <stdlib.h>

#include "store/call.h"

/* The agents' rows are locked, as by every choice of the version that serves: none of those is retired. */
static const char sql_retire[] =
    "WITH c AS (SELECT v.agent, v.version, row_number() OVER (PARTITION BY v.agent ORDER BY v.version DESC) "
    "AS n "
    "FROM agent_versions v JOIN agents a ON a.id = v.agent WHERE v.status = 1 AND v.version <> a.serving AND "
    "NOT EXISTS (SELECT FROM schedules s WHERE s.tenant = a.tenant AND s.agent = a.slug AND s.version = "
    "v.version)), "
    "a AS (SELECT id, serving FROM agents WHERE id IN (SELECT agent FROM c WHERE n > $1) ORDER BY id FOR "
    "UPDATE), "
    "f AS (SELECT id, row_number() OVER (PARTITION BY agent ORDER BY version DESC) AS n FROM agent_versions "
    "WHERE status = 2), "
    "l AS (DELETE FROM build_logs l USING f WHERE f.n > $1 AND l.id = f.id) "
    "UPDATE agent_versions v SET status = 3, retired_at = now() FROM c, a WHERE c.n > $1 AND v.agent = "
    "c.agent "
    "AND v.version = c.version AND a.id = v.agent AND v.status = 1 AND v.version <> a.serving";

static void reply_retire(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    ((retire_fn *)c->fn)(c->arg, err == NULL ? (int)pg_affected(r) : 0, err);
    free(c);
}

int retire_versions(struct pg *pg, int keep, int64_t deadline_ms, retire_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL)
        pg_put_int8(p, keep);
    return store_query(pg, sql_retire, p, deadline_ms, reply_retire, (void (*)(void))fn, arg, NULL);
}

/* ---- what deleted agents leave ---- */

enum { LEFT_AT_ONCE = 100 };

static const char sql_left[] =
    "WITH v AS (SELECT v.id FROM agents a JOIN agent_versions v ON v.agent = a.id WHERE a.deleted_at IS NOT "
    "NULL AND v.status = 2 AND (EXISTS (SELECT FROM build_logs l WHERE l.id = v.id) OR EXISTS (SELECT FROM "
    "agent_files f WHERE f.id = v.id)) LIMIT $1), "
    "f AS (DELETE FROM agent_files f USING v WHERE f.id = v.id), "
    "l AS (DELETE FROM build_logs l USING v WHERE l.id = v.id), "
    "s AS (DELETE FROM agent_secrets s USING agents a WHERE a.id = s.agent AND a.deleted_at IS NOT NULL AND "
    "NOT EXISTS (SELECT FROM agent_versions o WHERE o.agent = a.id AND o.snapshot IS NOT NULL) RETURNING 1) "
    "SELECT (SELECT count(*) FROM v) + (SELECT count(*) FROM s)";

static void reply_left(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    ((retire_fn *)c->fn)(c->arg, err == NULL ? (int)pg_get_int8(r, 0, 0) : 0, err);
    free(c);
}

int retired_left(struct pg *pg, int64_t deadline_ms, retire_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL)
        pg_put_int8(p, LEFT_AT_ONCE);
    return store_query(pg, sql_left, p, deadline_ms, reply_left, (void (*)(void))fn, arg, NULL);
}

/* ---- those that still have their snapshot ---- */

static const char sql_list[] =
    "SELECT id, agent, version, snapshot FROM agent_versions WHERE status = 3 AND snapshot IS NOT NULL "
    "AND retired_at <= now() - $1 * interval '1 millisecond' ORDER BY retired_at, id LIMIT $2";

static void reply_list(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    struct retired *list = calloc(n + 1, sizeof *list);
    INVARIANT(list != NULL); /* bounded by LIMIT */
    for (size_t i = 0; i < n; i++)
        list[i] = (struct retired){.id = pg_get_uuid(r, (int)i, 0),
                                   .agent = pg_get_uuid(r, (int)i, 1),
                                   .version = pg_get_int4(r, (int)i, 2),
                                   .snapshot = pg_get_str(r, (int)i, 3)};
    ((retired_fn *)c->fn)(c->arg, list, n, err);
    free(list);
    free(c);
}

int retired_list(struct pg *pg, int64_t grace_ms, int limit, int64_t deadline_ms, retired_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL) {
        pg_put_int8(p, grace_ms);
        pg_put_int8(p, limit);
    }
    return store_query(pg, sql_list, p, deadline_ms, reply_list, (void (*)(void))fn, arg, NULL);
}

/* ---- what open invocations have ---- */

enum { PAGE_ROWS = 20000 };

/* One row a version that is used, and one of nulls when none is. */
static const char sql_used[] =
    "WITH w AS MATERIALIZED (SELECT id, agent, version FROM invocations WHERE id > $2 ORDER BY id LIMIT $3), "
    "hit AS (SELECT DISTINCT v.id FROM agent_versions v JOIN w ON w.agent = v.agent AND w.version = "
    "v.version "
    "WHERE v.id = ANY($1) AND NOT EXISTS (SELECT FROM results r WHERE r.id = w.id)) "
    "SELECT CASE WHEN (SELECT count(*) FROM w) = $3 THEN (SELECT id FROM w ORDER BY id DESC LIMIT 1) END, "
    "hit.id FROM (SELECT) one LEFT JOIN hit ON true";

static void reply_used(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t rows = err == NULL ? (size_t)pg_rows(r) : 0, n = 0;
    struct uuid *used = calloc(rows + 1, sizeof *used);
    INVARIANT(used != NULL); /* at most as many as were asked for */
    for (size_t i = 0; i < rows; i++)
        if (!pg_is_null(r, (int)i, 1))
            used[n++] = pg_get_uuid(r, (int)i, 1);
    bool more = rows > 0 && !pg_is_null(r, 0, 0);
    ((retired_used_fn *)c->fn)(c->arg, more ? pg_get_uuid(r, 0, 0) : (struct uuid){0}, used, n, err);
    free(used);
    free(c);
}

int retired_used(struct pg *pg, const struct uuid *versions, size_t n, struct uuid from, int64_t deadline_ms,
                 retired_used_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(n * 32 + 256);
    if (p != NULL) {
        pg_array_begin(p, PG_UUID);
        for (size_t i = 0; i < n; i++)
            pg_put_uuid(p, versions[i]);
        pg_array_end(p);
        pg_put_uuid(p, from);
        pg_put_int8(p, PAGE_ROWS);
    }
    return store_query(pg, sql_used, p, deadline_ms, reply_used, (void (*)(void))fn, arg, NULL);
}

/* ---- done away with ---- */

static const char sql_gone[] =
    "WITH v AS (UPDATE agent_versions SET snapshot = NULL WHERE id = $1 AND status = 3 RETURNING id), "
    "l AS (DELETE FROM build_logs l USING v WHERE l.id = v.id) "
    "DELETE FROM agent_files f USING v WHERE f.id = v.id";

int retired_gone(struct pg *pg, struct uuid version, int64_t deadline_ms, retire_done_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL)
        pg_put_uuid(p, version);
    return store_query(pg, sql_gone, p, deadline_ms, store_reply_done, (void (*)(void))fn, arg, NULL);
}

/* ---- snapshots that no version has ---- */

/* A build may have made one more than once; the version names the one that counts. */
static const char sql_orphaned[] =
    "SELECT NOT EXISTS (SELECT FROM agent_versions v WHERE v.id = s.id AND (v.status = 0 OR v.snapshot = "
    "s.name)) "
    "FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS s(id, name, n) ORDER BY s.n";

static void reply_orphaned(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    bool *orphaned = calloc(n + 1, sizeof *orphaned);
    INVARIANT(orphaned != NULL); /* as many as were asked about */
    for (size_t i = 0; i < n; i++)
        orphaned[i] = pg_get_bool(r, (int)i, 0);
    ((snapshots_orphaned_fn *)c->fn)(c->arg, orphaned, n, err);
    free(orphaned);
    free(c);
}

int snapshots_orphaned(struct pg *pg, const struct uuid *versions, const struct str *ids, size_t n,
                       int64_t deadline_ms, snapshots_orphaned_fn *fn, void *arg)
{
    size_t bytes = 256;
    for (size_t i = 0; i < n; i++)
        bytes += 64 + ids[i].n;
    struct pg_params *p = pg_params_new(bytes);
    if (p != NULL) {
        pg_array_begin(p, PG_UUID);
        for (size_t i = 0; i < n; i++)
            pg_put_uuid(p, versions[i]);
        pg_array_end(p);
        pg_array_begin(p, PG_TEXT);
        for (size_t i = 0; i < n; i++)
            pg_put_text(p, ids[i]);
        pg_array_end(p);
    }
    return store_query(pg, sql_orphaned, p, deadline_ms, reply_orphaned, (void (*)(void))fn, arg, NULL);
}
