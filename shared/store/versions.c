/* Versions of an agent. */
#include "store/versions.h"

#include <stdio.h>
#include <stdlib.h>

#include "store/call.h"

/* ---- lists ---- */

/* An agent that has no version below yields one row of nulls: it is there. */
static const char sql_list[] =
    "SELECT v.version, v.status, v.version = coalesce(a.serving, 0), v.runtime, "
    "coalesce(v.source_sha256, CASE WHEN v.git_url IS NULL AND v.template IS NULL THEN v.archive_sha256 "
    "END), "
    "v.error_code, v.error_message, v.archive_bytes, v.created_at, v.finished_at, v.manifest, v.git_url, "
    "v.git_ref, v.git_commit, v.template "
    "FROM agents a "
    "LEFT JOIN agent_versions v ON v.agent = a.id AND v.version < $3 "
    "WHERE a.tenant = $1 AND a.slug = $2 ORDER BY v.version DESC LIMIT $4";

static void read_version(const struct pg_result *r, int i, struct version_record *out)
{
    *out = (struct version_record){.version = pg_get_int4(r, i, 0),
                                   .status = (enum agent_status)pg_get_int2(r, i, 1),
                                   .serving = pg_get_bool(r, i, 2),
                                   .runtime = pg_get_str(r, i, 3),
                                   .source_sha256 = pg_get_str(r, i, 4),
                                   .error_code = pg_get_str(r, i, 5),
                                   .error_message = pg_get_str(r, i, 6),
                                   .archive_bytes = pg_get_int8(r, i, 7),
                                   .created_at = pg_get_time(r, i, 8),
                                   .manifest = pg_get_str(r, i, 10),
                                   .origin = {.url = pg_get_str(r, i, 11),
                                              .ref = pg_get_str(r, i, 12),
                                              .commit = pg_get_str(r, i, 13),
                                              .template = pg_get_str(r, i, 14)}};
    if (!pg_is_null(r, i, 9))
        out->finished_at = pg_get_time(r, i, 9);
    snprintf(out->place, sizeof out->place, "%d", out->version);
}

static void reply_list(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    bool found = err == NULL && pg_rows(r) > 0;
    size_t n = found && !pg_is_null(r, 0, 0) ? (size_t)pg_rows(r) : 0;
    struct version_record *list = calloc(n + 1, sizeof *list);
    struct err none;
    if (list == NULL && err == NULL) {
        err_set(&none, ERR_NO_MEMORY, "no memory for versions");
        err = &none;
    }
    for (size_t i = 0; err == NULL && i < n; i++)
        read_version(r, (int)i, &list[i]);
    ((versions_fn *)c->fn)(c->arg, found, list, err == NULL ? n : 0, err);
    free(list);
    free(c);
}

int versions_get(struct pg *pg, int32_t tenant, struct str slug, int32_t below, int limit,
                 int64_t deadline_ms, versions_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(512);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_text(p, slug);
        pg_put_int4(p, below);
        pg_put_int8(p, limit);
    }
    return store_query(pg, sql_list, p, deadline_ms, reply_list, (void (*)(void))fn, arg, err);
}

/* ---- choosing ---- */

/* The agent's row is locked first, so choices, deploys and ends of builds come one after another; and the
 * version's, so that its status is not from before it was retired. */
static const char sql_choose[] =
    "WITH a AS (SELECT id, serving, rolled_back_from FROM agents WHERE tenant = $1 AND slug = $2 FOR "
    "UPDATE), "
    "t AS (SELECT v.version, v.status FROM a JOIN agent_versions v ON v.agent = a.id AND v.version = "
    "CASE WHEN $3 > 0 THEN $3 WHEN a.rolled_back_from IS NOT NULL THEN a.serving "
    "ELSE (SELECT max(o.version) FROM agent_versions o WHERE o.agent = a.id AND o.status = 1 "
    "AND o.version < a.serving) END FOR SHARE OF v), "
    "u AS (UPDATE agents g SET serving = t.version, serves_after = g.latest, rolled_back_from = "
    "CASE WHEN t.version < coalesce(g.rolled_back_from, g.serving) "
    "THEN coalesce(g.rolled_back_from, g.serving) END "
    "FROM a, t WHERE g.id = a.id AND t.status = 1) "
    "SELECT t.status FROM a LEFT JOIN t ON true";

struct choice {
    int32_t version;
    version_choose_fn *fn;
    void *arg;
};

static void reply_choose(void *arg, const struct pg_result *r, const struct err *err)
{
    struct choice *c = arg;
    enum version_chosen what = VERSION_NO_AGENT;
    if (err == NULL && pg_rows(r) == 1) {
        if (pg_is_null(r, 0, 0))
            what = c->version > 0 ? VERSION_NO_SUCH : VERSION_NO_OLDER;
        else
            what = pg_get_int2(r, 0, 0) == AGENT_READY     ? VERSION_SERVES
                   : pg_get_int2(r, 0, 0) == AGENT_RETIRED ? VERSION_RETIRED
                                                           : VERSION_NOT_READY;
    }
    c->fn(c->arg, what, err);
    free(c);
}

int version_choose(struct pg *pg, int32_t tenant, struct str slug, int32_t version, int64_t deadline_ms,
                   version_choose_fn *fn, void *arg, struct err *err)
{
    struct choice *c = malloc(sizeof *c);
    struct pg_params *p = c != NULL ? pg_params_new(512) : NULL;
    int rc = -1;
    if (p == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory for a version");
    } else {
        *c = (struct choice){.version = version, .fn = fn, .arg = arg};
        pg_put_int4(p, tenant);
        pg_put_text(p, slug);
        pg_put_int4(p, version);
        rc = pg_query(pg, sql_choose, p, deadline_ms, reply_choose, c, err) != NULL ? 0 : -1;
    }
    pg_params_free(&p);
    if (rc != 0)
        free(c);
    return rc;
}
