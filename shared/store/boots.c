/* Gateways' boots: what a gateway leaves behind so that its death between a commit and its XADD loses
 * nothing.
 *
 * Order of proof: (1) the row says which ids may not have reached Redis; (2) once its backends are terminated
 * and its session lock can be had, none of its transactions can still commit; (3) so every open row at or
 * above the mark is visible, and is handed to the feeder before the row is deleted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/call.h"
#include "store/sweep.h"

static const char sql_keep[] = "INSERT INTO gateway_boots (boot, low, lock_key) VALUES ($1, $2, $3) "
                               "ON CONFLICT (boot) DO UPDATE SET low = excluded.low, seen_at = now()";
static const char sql_end[] = "DELETE FROM gateway_boots WHERE boot = $1";
static const char sql_lock[] = "SELECT pg_advisory_lock_shared($1)";
static const char sql_dead[] =
    "WITH b AS (SELECT boot, low, lock_key FROM gateway_boots WHERE seen_at < now() - $1 * interval '1 "
    "millisecond' "
    "ORDER BY seen_at LIMIT 1), "
    "k AS MATERIALIZED (SELECT count(pg_terminate_backend(a.pid)) AS n FROM pg_stat_activity a, b "
    "WHERE a.application_name = 'sandpiper-gateway ' || b.boot) "
    "SELECT b.boot, b.low, k.n = 0 AND pg_try_advisory_xact_lock(b.lock_key) FROM b, k";

/* The key of a boot's lock: its random half. */
static int64_t lock_key(struct uuid boot)
{
    int64_t key;
    memcpy(&key, boot.b + 8, sizeof key);
    return key;
}

void boot_application(struct uuid boot, char out[BOOT_NAME_BYTES])
{
    char text[UUID_TEXT_BYTES];
    uuid_format(boot, text);
    snprintf(out, BOOT_NAME_BYTES, "sandpiper-gateway %s", text);
}

int boot_keep(struct pg *pg, struct uuid boot, struct uuid low, int64_t deadline_ms, sweep_done_fn *fn,
              void *arg)
{
    struct pg_params *p = pg_params_new(128);
    if (p != NULL) {
        pg_put_uuid(p, boot);
        pg_put_uuid(p, low);
        pg_put_int8(p, lock_key(boot));
    }
    return store_query(pg, sql_keep, p, deadline_ms, store_reply_done, (void (*)(void))fn, arg, NULL);
}

int boot_end(struct pg *pg, struct uuid boot, int64_t deadline_ms, sweep_done_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL)
        pg_put_uuid(p, boot);
    return store_query(pg, sql_end, p, deadline_ms, store_reply_done, (void (*)(void))fn, arg, NULL);
}

int boot_lock(struct pg *pg, struct uuid boot, int64_t deadline_ms, sweep_done_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL)
        pg_put_int8(p, lock_key(boot));
    return store_query(pg, sql_lock, p, deadline_ms, store_reply_done, (void (*)(void))fn, arg, NULL);
}

static void reply_dead(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    bool found = err == NULL && pg_rows(r) == 1;
    ((boot_dead_fn *)c->fn)(c->arg, found, found ? pg_get_uuid(r, 0, 0) : (struct uuid){0},
                            found ? pg_get_uuid(r, 0, 1) : (struct uuid){0}, found && pg_get_bool(r, 0, 2),
                            err);
    free(c);
}

int boot_find_dead(struct pg *pg, int64_t dead_ms, int64_t deadline_ms, boot_dead_fn *fn, void *arg)
{
    struct pg_params *p = pg_params_new(64);
    if (p != NULL)
        pg_put_float8(p, (double)dead_ms);
    return store_query(pg, sql_dead, p, deadline_ms, reply_dead, (void (*)(void))fn, arg, NULL);
}

static const char sql_clock[] = "SELECT clock_timestamp()";

static void reply_clock(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    ((clock_fn *)c->fn)(c->arg, err == NULL ? pg_get_time(r, 0, 0) : (wall_t){0}, err);
    free(c);
}

int clock_get(struct pg *pg, int64_t deadline_ms, clock_fn *fn, void *arg)
{
    return store_query(pg, sql_clock, pg_params_new(64), deadline_ms, reply_clock, (void (*)(void))fn, arg,
                       NULL);
}
