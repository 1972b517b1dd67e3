/* Migrations. One connection, one statement at a time: lock, read what is applied, apply the rest in order.
 * The lock goes with the connection. */
#include "store/migrate.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "store/call.h"

extern const char migration_0001[], migration_0002[], migration_0003[], migration_0004[], migration_0005[],
    migration_0006[], migration_0007[], migration_0009[], migration_0010[], migration_0011[],
    migration_0012[], migration_0013[], migration_0014[], migration_0015[], migration_0016[],
    migration_0017[], migration_0018[], migration_0019[], migration_0020[], migration_0021[],
    migration_0022[], migration_0023[];

const struct migration migrations[] = {
    {1, "init", migration_0001},         {2, "cursor_key", migration_0002},
    {3, "queue_limits", migration_0003}, {4, "batches", migration_0004},
    {5, "schedules", migration_0005},    {6, "webhooks", migration_0006},
    {7, "traces", migration_0007},       {9, "attempts", migration_0009},
    {10, "batch_items", migration_0010}, {11, "rollback", migration_0011},
    {12, "warm_pools", migration_0012},  {13, "secrets", migration_0013},
    {14, "manifest", migration_0014},    {15, "source", migration_0015},
    {16, "retired", migration_0016},     {17, "git", migration_0017},
    {18, "files", migration_0018},       {19, "keys", migration_0019},
    {20, "templates", migration_0020},   {21, "usage_sums", migration_0021},
    {22, "build_logs", migration_0022},  {23, "deleted", migration_0023},
};
const int migration_count = sizeof migrations / sizeof *migrations;

enum { STEP_MS = 120000, LOCK_MS = 60000 };

struct migrator {
    struct loop *loop;
    struct pg *pg;
    migrate_step_fn *step;
    migrate_done_fn *done;
    void *arg;
    int at; /* the next migration to look at */
    struct err err;
    struct loop_task end;
};

static const char sql_begin[] =
    "SELECT pg_advisory_lock(7305141026570189); "
    "CREATE TABLE IF NOT EXISTS schema_migrations (version int4 PRIMARY KEY, name text NOT NULL, "
    "applied_at timestamptz NOT NULL DEFAULT now());";
static const char sql_newest[] = "SELECT coalesce(max(version), 0) FROM schema_migrations";

static void finish(void *arg)
{
    struct migrator *m = arg;
    pg_close(&m->pg);
    m->done(m->arg, m->err.code != ERR_NONE ? &m->err : NULL);
    free(m);
}

static void end(struct migrator *m, const struct err *err)
{
    if (err != NULL)
        m->err = *err;
    loop_task_post(m->loop, &m->end, finish, m);
}

static void on_applied(void *arg, const struct pg_result *r, const struct err *err);

static void apply_next(struct migrator *m)
{
    if (m->at == migration_count) {
        end(m, NULL);
        return;
    }
    const struct migration *next = &migrations[m->at];
    struct buf script;
    buf_init(&script, 1 << 20);
    buf_printf(&script,
               "BEGIN;\n%s\nINSERT INTO schema_migrations (version, name) VALUES (%d, '%s');\nCOMMIT;",
               next->sql, next->version, next->name);
    if (script.failed || pg_script(m->pg, buf_view(&script), STEP_MS, on_applied, m, &m->err) == NULL)
        end(m, NULL);
    buf_deinit(&script);
}

static void on_applied(void *arg, const struct pg_result *r, const struct err *err)
{
    (void)r;
    struct migrator *m = arg;
    if (err != NULL) {
        end(m, err);
        return;
    }
    if (m->step != NULL)
        m->step(m->arg, &migrations[m->at]);
    m->at++;
    apply_next(m);
}

static void on_newest(void *arg, const struct pg_result *r, const struct err *err)
{
    struct migrator *m = arg;
    if (err != NULL) {
        end(m, err);
        return;
    }
    int newest = pg_get_int4(r, 0, 0);
    while (m->at < migration_count && migrations[m->at].version <= newest)
        m->at++;
    apply_next(m);
}

static void on_locked(void *arg, const struct pg_result *r, const struct err *err)
{
    (void)r;
    struct migrator *m = arg;
    if (err != NULL || pg_query(m->pg, sql_newest, NULL, STEP_MS, on_newest, m, &m->err) == NULL)
        end(m, err);
}

int migrate_run(struct loop *loop, const char *url, migrate_step_fn *step, migrate_done_fn *done, void *arg,
                struct err *err)
{
    struct migrator *m = calloc(1, sizeof *m);
    if (m == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory");
    *m = (struct migrator){.loop = loop, .step = step, .done = done, .arg = arg};
    m->pg = pg_open(loop,
                    &(struct pg_options){.url = url,
                                         .application = "sandpiper-migrate",
                                         .max_inflight = 1,
                                         .statement_timeout_ms = STEP_MS},
                    err);
    if (m->pg == NULL || pg_script(m->pg, str_of(sql_begin), LOCK_MS, on_locked, m, err) == NULL) {
        pg_close(&m->pg);
        free(m);
        return -1;
    }
    return 0;
}

/* ---- checking ---- */

static const char sql_exists[] = "SELECT to_regclass('schema_migrations') IS NOT NULL";
static const char sql_check[] =
    "SELECT (SELECT coalesce(max(version), 0) FROM schema_migrations), (SELECT id FROM deployment)";

struct check {
    struct pg *pg;
    schema_check_fn *fn;
    void *arg;
    int64_t deadline_ms;
};

static void check_end(struct check *c, int found, struct uuid deployment, const struct err *err)
{
    c->fn(c->arg, found, migrations[migration_count - 1].version, deployment, err);
    free(c);
}

static void on_checked(void *arg, const struct pg_result *r, const struct err *err)
{
    check_end(arg, err == NULL ? pg_get_int4(r, 0, 0) : 0,
              err == NULL ? pg_get_uuid(r, 0, 1) : (struct uuid){0}, err);
}

static void on_exists(void *arg, const struct pg_result *r, const struct err *err)
{
    struct check *c = arg;
    struct err refused = ERR_INIT;
    if (err == NULL && pg_get_bool(r, 0, 0)) {
        if (pg_query(c->pg, sql_check, NULL, c->deadline_ms, on_checked, c, &refused) != NULL)
            return;
        err = &refused;
    }
    check_end(c, 0, (struct uuid){0}, err);
}

int schema_check(struct pg *pg, int64_t deadline_ms, schema_check_fn *fn, void *arg, struct err *err)
{
    struct check *c = malloc(sizeof *c);
    if (c == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory");
    *c = (struct check){.pg = pg, .fn = fn, .arg = arg, .deadline_ms = deadline_ms};
    if (pg_query(pg, sql_exists, NULL, deadline_ms, on_exists, c, err) != NULL)
        return 0;
    free(c);
    return -1;
}
