/* sandpiper-dispatcher: wiring only. */
#include <signal.h>
#include <stdlib.h>

#include "audit.h"
#include "base/leaks.h"
#include "base/log.h"
#include "boots.h"
#include "crypto/crypto.h"
#include "dispatcher.h"
#include "feeder.h"
#include "housekeeping.h"
#include "lead.h"
#include "reaper.h"
#include "reclaim.h"
#include "retries.h"
#include "store/migrate.h"
#include "verdicts.h"
#include "watch.h"

enum { RETRY_MS = 1000 };

struct app {
    struct dispatcher d;
    struct settings settings;
    struct loop_signal *term, *intr;
    struct loop_timer *schema;
    bool said_waiting;
    int status;
};

static void redis_state(void *arg, bool connected)
{
    struct app *app = arg;
    if (connected)
        log_info("connected to Redis");
    else
        log_warn("Redis is not available: waiting for it");
    if (app->d.lead != NULL)
        lead_redis_state(app->d.lead, connected);
}

static void pg_state(void *arg, bool connected)
{
    (void)arg;
    if (connected)
        log_info("connected to PostgreSQL");
    else
        log_warn("PostgreSQL is not available: waiting for it");
}

static struct pg *connect_pg(struct app *app, int inflight, void (*on_state)(void *, bool), struct err *err)
{
    return pg_open(app->d.loop,
                   &(struct pg_options){.url = app->settings.database_url,
                                        .application = "sandpiper-dispatcher",
                                        .max_inflight = inflight,
                                        .statement_timeout_ms = 120000,
                                        .on_state = on_state,
                                        .arg = app},
                   err);
}

static int open_stores(struct app *app, struct err *err)
{
    struct dispatcher *d = &app->d;
    const struct settings *s = &app->settings;
    static const struct governor_limits none;
    if ((d->pg = connect_pg(app, 8, pg_state, err)) == NULL ||
        (d->settle_pg = connect_pg(app, 1, NULL, err)) == NULL)
        return -1;
    d->redis = redis_open(
        d->loop,
        &(struct redis_options){
            .url = s->redis_url, .name = "sandpiper-dispatcher", .on_state = redis_state, .arg = app},
        err);
    if (d->redis == NULL)
        return -1;
    d->queue = queue_new(d->redis, (int)s->tenant_window);
    d->governor = governor_new(d->redis, d->boot, &none);
    d->provider = provider_e2b_open(d->loop,
                                    &(struct provider_e2b_options){.api_url = s->e2b_api_url,
                                                                   .sandbox_url = s->e2b_sandbox_url,
                                                                   .domain = s->e2b_domain,
                                                                   .api_key = s->e2b_api_key},
                                    err);
    if (d->queue == NULL || d->governor == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory to start");
    return d->provider != NULL ? 0 : -1;
}

static int open_duties(struct app *app, struct err *err)
{
    struct dispatcher *d = &app->d;
    d->lead = lead_new(d);
    d->verdicts = verdicts_new(d);
    d->feeder = feeder_new(d);
    d->audit = audit_new(d);
    d->watch = watch_new(d);
    d->retries = retries_new(d);
    d->reclaim = reclaim_new(d);
    d->reaper = reaper_new(d);
    d->boots = boots_new(d);
    d->housekeeping = housekeeping_new(d);
    if (d->lead == NULL || d->verdicts == NULL || d->feeder == NULL || d->audit == NULL || d->watch == NULL ||
        d->retries == NULL || d->reclaim == NULL || d->reaper == NULL || d->boots == NULL ||
        d->housekeeping == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory to start");
    return 0;
}

/* Duties begin once the schema is ours; until then the daemon waits, saying so once. */
static void on_schema(void *arg, int found, int wanted, struct uuid deployment, const struct err *err)
{
    struct app *app = arg;
    struct err bad = ERR_INIT;
    if (err == NULL && found == wanted) {
        app->d.deployment = deployment;
        if (open_duties(app, &bad) != 0) {
            log_error("cannot start", LF_ERR(&bad));
            app->status = 1;
            loop_stop(app->d.loop);
        }
        return;
    }
    if (!app->said_waiting && err != NULL)
        log_warn("waiting for PostgreSQL", LF_ERR(err));
    else if (!app->said_waiting)
        log_warn("waiting for the schema: run `sandpiper migrate`", LF_INT("found", found),
                 LF_INT("wanted", wanted));
    app->said_waiting = true;
    loop_timer_start(app->schema, RETRY_MS);
}

static void check_schema(void *arg)
{
    struct app *app = arg;
    if (schema_check(app->d.pg, 5000, on_schema, app, NULL) != 0)
        loop_timer_start(app->schema, RETRY_MS);
}

/* Nothing is held in memory that another dispatcher does not find again. */
static void on_signal(void *arg, int signum)
{
    struct app *app = arg;
    log_info("stopping", LF_INT("signal", signum));
    loop_stop(app->d.loop);
}

static void app_close(struct app *app)
{
    struct dispatcher *d = &app->d;
    housekeeping_free(&d->housekeeping);
    boots_free(&d->boots);
    reaper_free(&d->reaper);
    reclaim_free(&d->reclaim);
    retries_free(&d->retries);
    watch_free(&d->watch);
    audit_free(&d->audit);
    feeder_free(&d->feeder);
    verdicts_free(&d->verdicts);
    provider_close(&d->provider);
    redis_close(&d->redis);
    pg_close(&d->pg);
    pg_close(&d->settle_pg);
    lead_free(&d->lead);
    governor_free(&d->governor);
    queue_free(&d->queue);
    loop_timer_free(&app->schema);
    loop_signal_free(&app->term);
    loop_signal_free(&app->intr);
    loop_free(&d->loop);
}

static int run(struct app *app)
{
    struct err err = ERR_INIT;
    struct dispatcher *d = &app->d;
    d->settings = &app->settings;
    d->boot = uuid_new();
    d->loop = loop_new();
    if (d->loop == NULL)
        return 1;
    app->term = loop_signal_new(d->loop, SIGTERM, on_signal, app);
    app->intr = loop_signal_new(d->loop, SIGINT, on_signal, app);
    app->schema = loop_timer_new(d->loop, check_schema, app);
    if (crypto_init(&err) != 0 || open_stores(app, &err) != 0) {
        log_error("cannot start", LF_ERR(&err));
        app->status = 1;
    } else {
        loop_timer_start(app->schema, 0);
        loop_run(d->loop);
        leaks_check();
    }
    app_close(app);
    return app->status;
}

int main(int argc, char **argv)
{
    static struct app app;
    enum log_level level = LOG_INFO;
    switch (config_load(&settings_table, argc, argv, &app.settings)) {
    case CONFIG_EXIT_OK:
        return 0;
    case CONFIG_EXIT_BAD:
        return 2;
    case CONFIG_RUN:
        break;
    }
    log_level_parse(str_of(app.settings.log_level), &level);
    log_setup("dispatcher", level);
    signal(SIGPIPE, SIG_IGN);
    int status = run(&app);
    config_unload(&settings_table, &app.settings);
    return status;
}
