/* Agents and their versions. */
#include "store/agents.h"

#include <stdlib.h>

#include "store/call.h"

/* ---- resolving ---- */

static const char sql_resolve[] = "SELECT a.id, coalesce(v.version, 0), coalesce(v.status, 0::int2), "
                                  "v.timeout_ms, coalesce(v.max_attempts, 0::int2), "
                                  "coalesce(v.retry_on, 0::int2) FROM agents a "
                                  "LEFT JOIN agent_versions v ON v.agent = a.id AND v.version = "
                                  "CASE WHEN $3 > 0 THEN $3 ELSE coalesce(a.serving, a.latest) END "
                                  "WHERE a.tenant = $1 AND a.slug = $2 AND a.deleted_at IS NULL";

static void reply_resolve(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    struct agent_target t = {0};
    if (err == NULL && pg_rows(r) == 1)
        t = (struct agent_target){.found = pg_get_int4(r, 0, 1) > 0,
                                  .ready = pg_get_int2(r, 0, 2) == AGENT_READY,
                                  .retired = pg_get_int2(r, 0, 2) == AGENT_RETIRED,
                                  .agent = pg_get_uuid(r, 0, 0),
                                  .version = pg_get_int4(r, 0, 1),
                                  .timeout_ms = pg_get_int4(r, 0, 3),
                                  .max_attempts = pg_get_int2(r, 0, 4),
                                  .retry_on = pg_get_int2(r, 0, 5)};
    ((agent_resolve_fn *)c->fn)(c->arg, &t, err);
    free(c);
}

int agent_resolve(struct pg *pg, int32_t tenant, struct str slug, int32_t version, int64_t deadline_ms,
                  agent_resolve_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(512);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_text(p, slug);
        pg_put_int4(p, version);
    }
    return store_query(pg, sql_resolve, p, deadline_ms, reply_resolve, (void (*)(void))fn, arg, err);
}

/* ---- reading ---- */

static const char sql_agents[] =
    "SELECT a.id, a.slug, coalesce(a.serving, 0), a.created_at, v.version, v.status, v.runtime, v.entry, "
    "v.install, "
    "v.error_code, v.error_message, v.build_log, v.archive_bytes, v.created_at, v.finished_at, "
    "coalesce(a.rolled_back_from, 0), CASE WHEN $2 <> '' THEN v.manifest ELSE '' END, "
    "v.git_url, v.git_ref, v.git_commit, v.template FROM agents a JOIN "
    "agent_versions v ON v.agent = a.id AND v.version = "
    "a.latest "
    "WHERE a.tenant = $1 AND ($2 = '' OR a.slug = $2) AND a.slug > $3 AND a.deleted_at IS NULL "
    "ORDER BY a.slug LIMIT $4";

static void read_agent(const struct pg_result *r, int i, struct agent_record *out)
{
    *out = (struct agent_record){.id = pg_get_uuid(r, i, 0),
                                 .slug = pg_get_str(r, i, 1),
                                 .serving = pg_get_int4(r, i, 2),
                                 .rolled_back_from = pg_get_int4(r, i, 15),
                                 .created_at = pg_get_time(r, i, 3)};
    out->latest = (struct agent_build){.version = pg_get_int4(r, i, 4),
                                       .status = (enum agent_status)pg_get_int2(r, i, 5),
                                       .runtime = pg_get_str(r, i, 6),
                                       .entry = pg_get_str(r, i, 7),
                                       .install = pg_get_str(r, i, 8),
                                       .error_code = pg_get_str(r, i, 9),
                                       .error_message = pg_get_str(r, i, 10),
                                       .log = pg_get_str(r, i, 11),
                                       .archive_bytes = pg_get_int8(r, i, 12),
                                       .created_at = pg_get_time(r, i, 13),
                                       .manifest = pg_get_str(r, i, 16),
                                       .origin = {.url = pg_get_str(r, i, 17),
                                                  .ref = pg_get_str(r, i, 18),
                                                  .commit = pg_get_str(r, i, 19),
                                                  .template = pg_get_str(r, i, 20)}};
    if (!pg_is_null(r, i, 14))
        out->latest.finished_at = pg_get_time(r, i, 14);
    out->status = out->serving > 0 ? AGENT_READY : out->latest.status;
}

static void reply_agents(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    size_t n = err == NULL ? (size_t)pg_rows(r) : 0;
    struct agent_record *list = calloc(n + 1, sizeof *list);
    struct err none;
    if (list == NULL && err == NULL) {
        err_set(&none, ERR_NO_MEMORY, "no memory for agents");
        err = &none;
    }
    for (size_t i = 0; err == NULL && i < n; i++)
        read_agent(r, (int)i, &list[i]);
    ((agents_fn *)c->fn)(c->arg, list, err == NULL ? n : 0, err);
    free(list);
    free(c);
}

int agents_get(struct pg *pg, int32_t tenant, struct str slug, struct str after, int limit,
               int64_t deadline_ms, agents_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(512);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_text(p, slug);
        pg_put_text(p, after);
        pg_put_int8(p, limit);
    }
    return store_query(pg, sql_agents, p, deadline_ms, reply_agents, (void (*)(void))fn, arg, err);
}

/* ---- deploying ---- */

static const char sql_file_put[] =
    "INSERT INTO agent_files (id, chunk, data) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
static const char sql_file_drop[] =
    "DELETE FROM agent_files WHERE id = $1 AND NOT EXISTS (SELECT FROM agent_versions v WHERE v.id = $1)";
static const char sql_deploy[] =
    "WITH a AS (INSERT INTO agents AS o (id, tenant, slug, latest) VALUES ($3, $4, $5, 1) "
    "ON CONFLICT (tenant, slug) DO UPDATE SET latest = o.latest + 1 RETURNING id, latest) "
    "INSERT INTO agent_versions (agent, version, id, tenant, runtime, entry, install, timeout_ms, "
    "max_attempts, retry_on, archive_bytes, archive_sha256, manifest, source_sha256, warm_min, warm_max, "
    "git_url, git_ref, template) "
    "SELECT a.id, a.latest, $6, $4, $7, $8, $9, nullif($10, 0), $11, $12, $13, $14, $1, $2, $15, $16, "
    "nullif($17, ''), CASE WHEN $17 <> '' THEN $18 END, nullif($19, '') FROM a "
    "RETURNING agent, version";

int agent_file_put(struct pg *pg, struct uuid version_id, int32_t chunk, struct str data, int64_t deadline_ms,
                   agent_done_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(data.n + 256);
    if (p != NULL) {
        pg_put_uuid(p, version_id);
        pg_put_int4(p, chunk);
        pg_put_bytea(p, data);
    }
    return store_query(pg, sql_file_put, p, deadline_ms, store_reply_done, (void (*)(void))fn, arg, err);
}

int agent_file_drop(struct pg *pg, struct uuid version_id, int64_t deadline_ms)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL)
        pg_put_uuid(p, version_id);
    return store_query(pg, sql_file_drop, p, deadline_ms, store_reply_done, NULL, NULL, NULL);
}

static void reply_deploy(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    bool ok = err == NULL && pg_rows(r) == 1;
    ((agent_deploy_fn *)c->fn)(c->arg, ok ? pg_get_uuid(r, 0, 0) : (struct uuid){0},
                               ok ? pg_get_int4(r, 0, 1) : 0, err);
    free(c);
}

/* With the manifest as the first parameter. NULL and *err. */
static struct pg_params *manifest_params(const struct manifest *m, struct err *err)
{
    struct pg_params *p = pg_params_new(MANIFEST_JSON_BYTES + 8192);
    struct buf json;
    buf_init(&json, MANIFEST_JSON_BYTES);
    struct json_writer w = json_writer(&json);
    if (m != NULL)
        manifest_write(m, &w);
    if (p != NULL && !json.failed) {
        pg_put_text(p, buf_view(&json));
    } else {
        pg_params_free(&p);
        err_set(err, ERR_NO_MEMORY, "no memory for a manifest");
    }
    buf_deinit(&json);
    return p;
}

static struct pg_params *source_params(const struct agent_source *source, struct err *err)
{
    struct pg_params *p = manifest_params(source->git == NULL ? source->manifest : NULL, err);
    if (p != NULL && source->git == NULL && !source->template)
        pg_put_bytea(p, str_make((const char *)source->source_sha256, SHA256_BYTES));
    else if (p != NULL)
        pg_put_null(p, PG_BYTEA);
    return p;
}

int agent_deploy(struct pg *pg, int32_t tenant, struct str slug, struct uuid version_id,
                 const struct agent_source *source, int64_t deadline_ms, agent_deploy_fn *fn, void *arg,
                 struct err *err)
{
    static const struct manifest unknown;
    const struct manifest *m = source->git == NULL ? source->manifest : &unknown;
    struct pg_params *p = source_params(source, err);
    if (p == NULL)
        return -1;
    pg_put_uuid(p, uuid_new());
    pg_put_int4(p, tenant);
    pg_put_text(p, slug);
    pg_put_uuid(p, version_id);
    pg_put_text(p, str_of(m->runtime));
    pg_put_text(p, str_of(m->entry));
    pg_put_text(p, str_of(m->install));
    pg_put_int4(p, m->timeout_ms);
    pg_put_int2(p, m->max_attempts);
    pg_put_int2(p, m->retry_on);
    pg_put_int8(p, source->archive_bytes);
    pg_put_bytea(p, str_make((const char *)source->archive_sha256, SHA256_BYTES));
    pg_put_int4(p, m->warm_pool.automatic ? 0 : m->warm_pool.min);
    pg_put_int4(p, m->warm_pool.automatic ? MANIFEST_POOL_AUTO : m->warm_pool.max);
    pg_put_text(p, str_of(source->git != NULL ? source->git->url : ""));
    pg_put_text(p, str_of(source->git != NULL ? source->git->ref : ""));
    pg_put_text(p, str_of(source->template ? m->template : ""));
    return store_query(pg, sql_deploy, p, deadline_ms, reply_deploy, (void (*)(void))fn, arg, err);
}

/* The agent's row is locked first, as by every other choice of the version that serves. */
static const char sql_same[] =
    "WITH a AS (SELECT id FROM agents WHERE tenant = $3 AND slug = $4 FOR UPDATE), "
    "t AS (SELECT v.version, v.status, v.manifest, v.source_sha256 FROM a JOIN agent_versions v ON v.agent = "
    "a.id "
    "AND v.status IN (0, 1) ORDER BY v.version DESC LIMIT 1 FOR SHARE OF v), "
    "m AS (SELECT version, status FROM t WHERE manifest = $1 AND source_sha256 = $2), "
    "ready AS (UPDATE agents g SET serving = m.version, serves_after = g.latest, rolled_back_from = NULL "
    "FROM a, m WHERE g.id = a.id AND m.status = 1 AND g.serving IS DISTINCT FROM m.version), "
    "building AS (UPDATE agents g SET serves_after = m.version - 1 "
    "FROM a, m WHERE g.id = a.id AND m.status = 0 AND g.serves_after >= m.version) "
    "SELECT version, status FROM m";

static void reply_same(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    bool found = err == NULL && pg_rows(r) == 1;
    ((agent_same_fn *)c->fn)(c->arg, found ? pg_get_int4(r, 0, 0) : 0,
                             found ? (enum agent_status)pg_get_int2(r, 0, 1) : AGENT_FAILED, err);
    free(c);
}

int agent_same(struct pg *pg, int32_t tenant, struct str slug, const struct agent_source *source,
               int64_t deadline_ms, agent_same_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = source_params(source, err);
    if (p == NULL)
        return -1;
    pg_put_int4(p, tenant);
    pg_put_text(p, slug);
    return store_query(pg, sql_same, p, deadline_ms, reply_same, (void (*)(void))fn, arg, err);
}

/* ---- for executors ---- */

static const char sql_version[] =
    "SELECT v.id, v.agent, v.tenant, v.version, v.status, a.name, v.runtime, v.entry, v.install, v.snapshot, "
    "v.archive_bytes, v.manifest, v.git_url, v.git_ref, v.template IS NOT NULL FROM agent_versions v JOIN "
    "agents a ON a.id = v.agent "
    "WHERE v.agent = $1 "
    "AND v.version "
    "= $2";
static const char sql_file_get[] = "SELECT data FROM agent_files WHERE id = $1 AND chunk = $2";
/* The agent's row is locked first, as by every other choice of the version that serves. */
static const char sql_finish[] =
    "WITH g AS (SELECT id FROM agents WHERE id = (SELECT agent FROM agent_versions WHERE id = $1) FOR "
    "UPDATE), "
    "v AS (UPDATE agent_versions u SET status = $2, snapshot = nullif($3, ''), error_code = nullif($4, "
    "''), "
    "error_message = nullif($5, ''), build_log = $6, finished_at = now() FROM g WHERE u.id = $1 AND u.agent "
    "= g.id AND u.status = 0 "
    "AND ($7 = 0 OR EXISTS (SELECT FROM build_logs l WHERE l.id = $1 AND l.try = $7)) "
    "RETURNING u.id, u.agent, u.version, u.status), "
    "dropped AS (DELETE FROM agent_files f USING v WHERE f.id = v.id AND v.status = 2) "
    "UPDATE agents a SET serving = v.version, rolled_back_from = NULL FROM v "
    "WHERE a.id = v.agent AND v.status = 1 AND greatest(a.serving, a.serves_after) < v.version";

static void reply_version(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    struct agent_version v = {0};
    bool found = err == NULL && pg_rows(r) == 1;
    if (found)
        v = (struct agent_version){.id = pg_get_uuid(r, 0, 0),
                                   .agent = pg_get_uuid(r, 0, 1),
                                   .tenant = pg_get_int4(r, 0, 2),
                                   .version = pg_get_int4(r, 0, 3),
                                   .status = (enum agent_status)pg_get_int2(r, 0, 4),
                                   .slug = pg_get_str(r, 0, 5),
                                   .runtime = pg_get_str(r, 0, 6),
                                   .entry = pg_get_str(r, 0, 7),
                                   .install = pg_get_str(r, 0, 8),
                                   .snapshot = pg_get_str(r, 0, 9),
                                   .archive_bytes = pg_get_int8(r, 0, 10),
                                   .manifest = pg_get_str(r, 0, 11),
                                   .git_url = pg_get_str(r, 0, 12),
                                   .git_ref = pg_get_str(r, 0, 13),
                                   .from_template = pg_get_bool(r, 0, 14)};
    ((agent_version_fn *)c->fn)(c->arg, found, &v, err);
    free(c);
}

int agent_version_get(struct pg *pg, struct uuid agent, int32_t version, int64_t deadline_ms,
                      agent_version_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(256);
    if (p != NULL) {
        pg_put_uuid(p, agent);
        pg_put_int4(p, version);
    }
    return store_query(pg, sql_version, p, deadline_ms, reply_version, (void (*)(void))fn, arg, err);
}

static void reply_chunk(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    bool found = err == NULL && pg_rows(r) == 1;
    ((agent_chunk_fn *)c->fn)(c->arg, found ? pg_get_str(r, 0, 0) : str_of(NULL), err);
    free(c);
}

int agent_file_get(struct pg *pg, struct uuid version_id, int32_t chunk, int64_t deadline_ms,
                   agent_chunk_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(256);
    if (p != NULL) {
        pg_put_uuid(p, version_id);
        pg_put_int4(p, chunk);
    }
    return store_query(pg, sql_file_get, p, deadline_ms, reply_chunk, (void (*)(void))fn, arg, err);
}

static const char sql_describe[] =
    "UPDATE agent_versions SET manifest = $1, git_commit = $3, runtime = $4, entry = $5, install = $6, "
    "timeout_ms = nullif($7, 0), max_attempts = $8, retry_on = $9, warm_min = $10, warm_max = $11 "
    "WHERE id = $2 AND status = 0";

int agent_describe(struct pg *pg, struct uuid version_id, const struct manifest *m, struct str commit,
                   int64_t deadline_ms, agent_done_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = manifest_params(m, err);
    if (p == NULL)
        return -1;
    pg_put_uuid(p, version_id);
    pg_put_text(p, commit);
    pg_put_text(p, str_of(m->runtime));
    pg_put_text(p, str_of(m->entry));
    pg_put_text(p, str_of(m->install));
    pg_put_int4(p, m->timeout_ms);
    pg_put_int2(p, m->max_attempts);
    pg_put_int2(p, m->retry_on);
    pg_put_int4(p, m->warm_pool.automatic ? 0 : m->warm_pool.min);
    pg_put_int4(p, m->warm_pool.automatic ? MANIFEST_POOL_AUTO : m->warm_pool.max);
    return store_query(pg, sql_describe, p, deadline_ms, store_reply_done, (void (*)(void))fn, arg, err);
}

int agent_build_finish(struct pg *pg, const struct agent_built *b, int64_t deadline_ms, agent_done_fn *fn,
                       void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(b->log.n + b->error_message.n + 1024);
    if (p != NULL) {
        pg_put_uuid(p, b->id);
        pg_put_int2(p, b->ready ? AGENT_READY : AGENT_FAILED);
        pg_put_text(p, b->snapshot);
        pg_put_text(p, str_of(b->error != ERR_NONE ? err_code_name(b->error) : NULL));
        pg_put_text(p, b->error_message);
        pg_put_text(p, b->log);
        pg_put_int4(p, b->try);
    }
    return store_query(pg, sql_finish, p, deadline_ms, store_reply_done, (void (*)(void))fn, arg, err);
}
