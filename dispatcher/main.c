/* sandpiper-dispatcher: wiring only. */
#include <signal.h>
#include <stdlib.h>

#include "audit.h"
#include "base/leaks.h"
#include "base/log.h"
#include "batches.h"
#include "boots.h"
#include "config/daemon.h"
#include "crypto/crypto.h"
#include "deadlines.h"
#include "dispatcher.h"
#include "feeder.h"
#include "housekeeping.h"
#include "lead.h"
#include "reaper.h"
#include "reclaim.h"
#include "retire.h"
#include "retries.h"
#include "schedules.h"
#include "store/batches.h"
#include "store/clock_keep.h"
#include "store/schema_wait.h"
#include "sums.h"
#include "verdicts.h"
#include "watch.h"
#include "webhooks.h"

struct app {
    struct dispatcher d;
    struct settings settings;
    struct loop_signal *term, *intr;
    struct schema_wait *schema;
    struct clock_keep *clock;
    struct redis_sub *sub;
    bool stopping;
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

/* What was missed meanwhile is found by the next look. */
static void sub_state(void *arg, bool connected)
{
    (void)arg, (void)connected;
}

static void on_message(void *arg, struct str channel, struct str payload)
{
    (void)channel;
    struct app *app = arg;
    if (app->d.webhooks != NULL && queue_done_is_hooked(payload))
        webhooks_wake(app->d.webhooks);
}

static void pg_state(void *arg, bool connected)
{
    struct app *app = arg;
    if (connected)
        batch_session(app->d.pg);
    if (connected)
        log_info("connected to PostgreSQL");
    else
        log_warn("PostgreSQL is not available: waiting for it");
}

/* Nothing but the reaper needs it. */
static void provider_state(void *arg, const char *why)
{
    (void)arg;
    if (why != NULL)
        log_warn("the sandbox service cannot be used yet: orphaned sandboxes wait", LF_STR("error", why));
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
    static const char *const channels[] = {QUEUE_CHANNEL_DONE};
    if (d->redis == NULL)
        return -1;
    app->sub = redis_sub_open(
        d->loop,
        &(struct redis_options){
            .url = s->redis_url, .name = "sandpiper-dispatcher", .on_state = sub_state, .arg = app},
        channels, 1, on_message, app, err);
    if (app->sub == NULL)
        return -1;
    d->queue = queue_new(d->redis, (int)s->tenant_window);
    d->governor = governor_new(d->redis, d->boot, &none);
    d->provider = provider_e2b_open(d->loop,
                                    &(struct provider_e2b_options){.api_url = s->e2b_api_url,
                                                                   .sandbox_url = s->e2b_sandbox_url,
                                                                   .domain = s->e2b_domain,
                                                                   .api_key = s->e2b_api_key,
                                                                   .on_state = provider_state},
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
    d->batches = batches_new(d);
    d->audit = audit_new(d);
    d->watch = watch_new(d);
    d->retries = retries_new(d);
    d->deadlines = deadlines_new(d);
    d->reclaim = reclaim_new(d);
    d->reaper = reaper_new(d);
    d->boots = boots_new(d);
    d->schedules = schedules_new(d);
    d->housekeeping = housekeeping_new(d);
    d->sums = sums_new(d);
    d->retire = retire_new(d);
    if (d->lead == NULL || d->verdicts == NULL || d->feeder == NULL || d->audit == NULL || d->watch == NULL ||
        d->retries == NULL || d->deadlines == NULL || d->reclaim == NULL || d->reaper == NULL ||
        d->boots == NULL || d->housekeeping == NULL || d->retire == NULL || d->batches == NULL ||
        d->schedules == NULL || d->sums == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory to start");
    d->webhooks = webhooks_new(d, err);
    return d->webhooks != NULL ? 0 : -1;
}

/* Duties begin once the schema is ours and the clock PostgreSQL's. */
static void on_clock(void *arg)
{
    struct app *app = arg;
    struct err err = ERR_INIT;
    if (open_duties(app, &err) == 0)
        return;
    log_error("cannot start", LF_ERR(&err));
    app->status = 1;
    loop_stop(app->d.loop);
}

static void on_schema(void *arg, struct uuid deployment)
{
    struct app *app = arg;
    app->d.deployment = deployment;
    app->clock = clock_keep_new(app->d.loop, app->d.pg, on_clock, app);
    if (app->clock != NULL)
        return;
    log_error("no memory to start");
    app->status = 1;
    loop_stop(app->d.loop);
}

static void on_waiting(void *arg, const char *why)
{
    (void)arg;
    log_warn(why);
}

static void on_webhooks_left(void *arg)
{
    struct app *app = arg;
    loop_stop(app->d.loop);
}

static void on_left(void *arg)
{
    struct app *app = arg;
    if (app->d.webhooks != NULL)
        webhooks_leave(app->d.webhooks, on_webhooks_left, app);
    else
        loop_stop(app->d.loop);
}

/* Nothing is held in memory that another dispatcher does not find again: the lead is given up, and webhooks
 * in hand are given back, so that nobody waits for their leases. */
static void on_signal(void *arg, int signum)
{
    struct app *app = arg;
    log_info("stopping", LF_INT("signal", signum));
    if (app->stopping || app->d.lead == NULL)
        loop_stop(app->d.loop);
    else
        lead_leave(app->d.lead, on_left, app);
    app->stopping = true;
}

static void app_close(struct app *app)
{
    struct dispatcher *d = &app->d;
    redis_sub_close(&app->sub);
    webhooks_free(&d->webhooks);
    retire_free(&d->retire);
    sums_free(&d->sums);
    housekeeping_free(&d->housekeeping);
    schedules_free(&d->schedules);
    boots_free(&d->boots);
    reaper_free(&d->reaper);
    reclaim_free(&d->reclaim);
    deadlines_free(&d->deadlines);
    retries_free(&d->retries);
    watch_free(&d->watch);
    audit_free(&d->audit);
    batches_free(&d->batches);
    feeder_free(&d->feeder);
    verdicts_free(&d->verdicts);
    provider_close(&d->provider);
    redis_close(&d->redis);
    pg_close(&d->pg);
    pg_close(&d->settle_pg);
    lead_free(&d->lead);
    governor_free(&d->governor);
    queue_free(&d->queue);
    schema_wait_free(&app->schema);
    clock_keep_free(&app->clock);
    loop_signal_free(&app->term);
    loop_signal_free(&app->intr);
    loop_free(&d->loop);
}

static int run(void *arg)
{
    struct app *app = arg;
    struct err err = ERR_INIT;
    struct dispatcher *d = &app->d;
    d->settings = &app->settings;
    d->boot = uuid_new();
    d->loop = loop_new();
    if (d->loop == NULL)
        return 1;
    app->term = loop_signal_new(d->loop, SIGTERM, on_signal, app);
    app->intr = loop_signal_new(d->loop, SIGINT, on_signal, app);
    if (crypto_init(&err) != 0 || open_stores(app, &err) != 0) {
        log_error("cannot start", LF_ERR(&err));
        app->status = 1;
    } else {
        app->schema = schema_wait_new(d->loop, d->pg, on_schema, on_waiting, app);
        loop_run(d->loop);
        leaks_check();
    }
    app_close(app);
    return app->status;
}

int main(int argc, char **argv)
{
    static struct app app;
    return daemon_main(&settings_table, &app.settings, "dispatcher", &app.settings.log_level, argc, argv, run,
                       &app);
}
