/* sandpiper-executor: wiring only. */
#include <signal.h>
#include <stdlib.h>

#include "base/leaks.h"
#include "base/log.h"
#include "config/daemon.h"
#include "crash.h"
#include "crypto/crypto.h"
#include "drain.h"
#include "executor.h"
#include "intake.h"
#include "job.h"
#include "lease.h"
#include "metrics.h"
#include "mirror.h"
#include "recorder.h"
#include "secrets.h"
#include "store/clock_keep.h"
#include "store/schema_wait.h"
#include "transfers.h"
#include "versions.h"
#include "warm.h"
#include "will.h"

struct app {
    struct executor x;
    struct settings settings;
    struct spool_budget spool;
    struct metrics metrics;
    struct probes *probes;
    struct loop_signal *term, *intr;
    struct schema_wait *schema;
    struct clock_keep *clock;
    struct drain *drain; /* NULL until work is claimed */
    bool has_clock, has_provider;
    int status;
};

static const char *const build_streams[] = {"sp:q:build", NULL};

/* ---- connections' states ---- */

static void redis_state(void *arg, bool connected)
{
    struct app *app = arg;
    if (!connected) {
        log_warn("Redis is not available: running jobs go on, nothing is claimed");
        return;
    }
    log_info("connected to Redis");
    if (app->x.recorder == NULL)
        return; /* not started yet */
    lease_keeper_redis_up(app->x.leases);
    recorder_redis_up(app->x.recorder);
}

static void pg_state(void *arg, bool connected)
{
    (void)arg;
    if (connected)
        log_info("connected to PostgreSQL");
    else
        log_warn("PostgreSQL is not available: outcomes wait");
}

static void on_left(void *arg)
{
    struct app *app = arg;
    loop_stop(app->x.loop);
}

static void cannot_start(struct app *app)
{
    log_error("no memory to start");
    app->status = 1;
    loop_stop(app->x.loop);
}

/* Work is claimed once the schema is ours, the clock PostgreSQL's, and the sandbox service answers: jobs wait
 * in the queue, not here. */
static void claim_if_ready(struct app *app)
{
    char boot[UUID_TEXT_BYTES];
    if (!app->has_clock || !app->has_provider)
        return;
    uuid_format(app->x.boot, boot);
    app->drain = drain_new(&app->x, on_left, app);
    if (app->drain == NULL) {
        cannot_start(app);
        return;
    }
    intake_start(app->x.intake);
    intake_start(app->x.build_intake);
    warm_start(app->x.warm);
    log_info("claiming jobs", LF_STR("boot", boot), LF_INT("slots", app->settings.max_jobs));
}

static void on_clock(void *arg)
{
    struct app *app = arg;
    app->has_clock = true;
    claim_if_ready(app);
}

static void on_schema(void *arg, struct uuid deployment)
{
    struct app *app = arg;
    app->x.deployment = deployment;
    app->clock = clock_keep_new(app->x.loop, app->x.read, on_clock, app);
    if (app->clock == NULL)
        cannot_start(app);
}

static void provider_state(void *arg, const char *why)
{
    struct app *app = arg;
    if (why != NULL) {
        log_warn("waiting for the sandbox service", LF_STR("error", why));
        return;
    }
    app->has_provider = true;
    claim_if_ready(app);
}

static struct pg *connect_pg(struct app *app, int inflight, void (*on_state)(void *, bool), struct err *err)
{
    return pg_open(app->x.loop,
                   &(struct pg_options){.url = app->settings.database_url,
                                        .application = "sandpiper-executor",
                                        .max_inflight = inflight,
                                        .max_queued = 40000,
                                        .on_state = on_state,
                                        .arg = app},
                   err);
}

/* ---- starting ---- */

static int open_stores(struct app *app, struct err *err)
{
    struct executor *x = &app->x;
    const struct settings *s = &app->settings;
    const struct governor_limits limits = {.creates_per_sec = s->creates_per_sec, .live = s->live_limit};
    if ((x->read = connect_pg(app, 16, pg_state, err)) == NULL ||
        (x->write_small = connect_pg(app, 1, NULL, err)) == NULL ||
        (x->write_large = connect_pg(app, 4, NULL, err)) == NULL)
        return -1;
    x->redis =
        redis_open(x->loop,
                   &(struct redis_options){
                       .url = s->redis_url, .name = x->client_name, .on_state = redis_state, .arg = app},
                   err);
    if (x->redis == NULL)
        return -1;
    x->queue = queue_new(x->redis, (int)s->tenant_window);
    x->governor = governor_new(x->redis, x->boot, &limits);
    x->provider = provider_e2b_open(x->loop,
                                    &(struct provider_e2b_options){.api_url = s->e2b_api_url,
                                                                   .sandbox_url = s->e2b_sandbox_url,
                                                                   .domain = s->e2b_domain,
                                                                   .api_key = s->e2b_api_key,
                                                                   .max_concurrent = (int)s->max_jobs,
                                                                   .on_state = provider_state,
                                                                   .arg = app},
                                    err);
    if (x->queue == NULL || x->governor == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory to start");
    return x->provider != NULL ? 0 : -1;
}

static int open_modules(struct app *app, struct err *err)
{
    struct executor *x = &app->x;
    x->jobs = jobs_new(x);
    x->versions = versions_new(x);
    x->secrets = secrets_new(x, err);
    x->transfers = transfers_new(x->loop);
    x->recorder = recorder_new(x);
    x->warm = warm_new(x);
    x->will = will_new(x);
    x->mirror = mirror_new(x, err);
    x->leases = lease_keeper_new(x, err);
    x->crash = crash_new(x, err);
    x->intake = intake_new(x, ENTRY_INVOCATION, queue_streams, (int)app->settings.max_jobs, err);
    x->build_intake = intake_new(x, ENTRY_BUILD, build_streams, (int)app->settings.max_builds, err);
    if (x->jobs == NULL || x->versions == NULL || x->recorder == NULL || x->will == NULL || x->warm == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory to start");
    if (probes_open(x, &app->probes, err) != 0)
        return -1;
    return x->secrets != NULL && x->mirror != NULL && x->leases != NULL && x->crash != NULL &&
                   x->intake != NULL && x->build_intake != NULL
               ? 0
               : -1;
}

static void on_waiting(void *arg, const char *why)
{
    (void)arg;
    log_warn(why);
}

/* ---- stopping ---- */

static void on_signal(void *arg, int signum)
{
    struct app *app = arg;
    log_info("stopping", LF_INT("signal", signum));
    if (app->drain == NULL)
        loop_stop(app->x.loop); /* nothing was claimed yet */
    else
        drain_begin(app->drain);
}

static void app_close(struct app *app)
{
    struct executor *x = &app->x;
    drain_free(&app->drain);
    probes_close(&app->probes);
    warm_free(&x->warm);
    jobs_free(&x->jobs);
    mirror_free(&x->mirror);
    intake_free(&x->intake);
    intake_free(&x->build_intake);
    lease_keeper_free(&x->leases);
    recorder_free(&x->recorder);
    will_free(&x->will);
    crash_free(&x->crash);
    versions_free(&x->versions);
    secrets_free(&x->secrets);
    transfers_free(&x->transfers);
    provider_close(&x->provider);
    redis_close(&x->redis);
    pg_close(&x->read);
    pg_close(&x->write_small);
    pg_close(&x->write_large);
    governor_free(&x->governor);
    queue_free(&x->queue);
    schema_wait_free(&app->schema);
    clock_keep_free(&app->clock);
    loop_signal_free(&app->term);
    loop_signal_free(&app->intr);
    loop_free(&x->loop);
}

static int run(void *arg)
{
    struct app *app = arg;
    struct err err = ERR_INIT;
    struct executor *x = &app->x;
    x->settings = &app->settings;
    x->boot = uuid_new();
    queue_client_name(x->boot, x->client_name);
    app->spool = (struct spool_budget){.dir = app->settings.spool_dir, .max = app->settings.spool_bytes};
    x->spool = &app->spool;
    metrics_init(&app->metrics);
    x->metrics = &app->metrics;
    x->loop = loop_new();
    if (x->loop == NULL)
        return 1;
    app->term = loop_signal_new(x->loop, SIGTERM, on_signal, app);
    app->intr = loop_signal_new(x->loop, SIGINT, on_signal, app);
    if (crypto_init(&err) != 0 || spool_check(app->settings.spool_dir, &err) != 0 ||
        open_stores(app, &err) != 0 || open_modules(app, &err) != 0) {
        log_error("cannot start", LF_ERR(&err));
        app->status = 1;
    } else {
        app->schema = schema_wait_new(x->loop, x->read, on_schema, on_waiting, app);
        loop_run(x->loop);
        leaks_check();
    }
    app_close(app);
    return app->status;
}

int main(int argc, char **argv)
{
    static struct app app;
    return daemon_main(&settings_table, &app.settings, "executor", &app.settings.log_level, argc, argv, run,
                       &app);
}
