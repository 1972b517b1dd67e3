/* Migrations: the numbered scripts of deploy/migrations, embedded at build time. */
#ifndef STORE_MIGRATE_H
#define STORE_MIGRATE_H

#include "base/err.h"
#include "base/id.h"
#include "loop/loop.h"
#include "postgres/pg.h"

struct migration {
    int version;
    const char *name;
    const char *sql;
};
extern const struct migration migrations[];
extern const int migration_count;

/* Called for each migration that was applied. */
typedef void migrate_step_fn(void *arg, const struct migration *m);
typedef void migrate_done_fn(void *arg, const struct err *err);

struct migrator;
/* Brings the database of url up to date: twice and concurrently safe (a session advisory lock; each script is
 * one transaction with its own row in schema_migrations). Frees itself after done, from the loop. */
int migrate_run(struct loop *loop, const char *url, migrate_step_fn *step, migrate_done_fn *done, void *arg,
                struct err *err);

/* Whether the schema is the one this build wants. found: the newest applied version; 0: no schema at all. */
typedef void schema_check_fn(void *arg, int found, int wanted, struct uuid deployment, const struct err *err);
int schema_check(struct pg *pg, int64_t deadline_ms, schema_check_fn *fn, void *arg, struct err *err);

#endif
