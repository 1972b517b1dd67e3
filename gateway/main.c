/* sandpiper-gateway: wiring only. */
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth.h"
#include "base/leaks.h"
#include "base/log.h"
#include "build_watch.h"
#include "config/daemon.h"
#include "crypto/crypto.h"
#include "docs.h"
#include "events.h"
#include "gateway.h"
#include "handoff.h"
#include "invocations.h"
#include "ratelimit.h"
#include "router.h"
#include "store/batches.h"
#include "store/keys.h"
#include "store/lists.h"
#include "store/schema_wait.h"
#include "store/sweep.h"
#include "targets.h"
#include "waiters.h"

enum {
    WRITE_BYTES = 256 * 1024 * 1024,
    LISTS_QUEUED = 256, /* lists that wait for their connection; beyond: 503 */
    LIST_STATEMENT_MS = 5000,
    LOAD_STATEMENT_MS =
        60000, /* with the deadline of loads: well below what follows ids (dispatcher/audit.c) */
    KEY_MS = 5000,
    AGAIN_MS = 1000,
    START_LOOK_MS = 20,
};

struct app {
    struct gateway g;
    struct settings settings;
    struct redis_sub *sub;
    struct loop_signal *term, *intr;
    struct schema_wait *schema;
    struct loop_timer *start, *drain, *key;
    char name[BOOT_NAME_BYTES];
    int status;
};

/* ---- connections' states ---- */

static void redis_state(void *arg, bool connected)
{
    struct app *app = arg;
    if (connected)
        log_info("connected to Redis");
    else
        log_warn("Redis is not available: jobs are accepted and wait");
    if (!connected)
        return;
    handoff_redis_up(app->g.handoff);
    streams_redis_up(app->g.streams);
}

static void sub_state(void *arg, bool connected)
{
    struct app *app = arg;
    if (connected)
        waiters_reread(app->g.waiters);
}

static void on_message(void *arg, struct str channel, struct str payload)
{
    struct app *app = arg;
    struct uuid id;
    if (!str_eq(channel, STR(KEYS_CHANNEL))) {
        waiters_done(app->g.waiters, payload);
    } else if (payload.n == sizeof id.b) {
        memcpy(id.b, payload.p, sizeof id.b);
        auth_forget(app->g.auth, id);
    }
}

static void write_small_state(void *arg, bool connected)
{
    struct app *app = arg;
    if (connected)
        handoff_pg_up(app->g.handoff, app->g.write_small);
    else
        log_warn("PostgreSQL is not available: submissions are refused until it is");
}

static void write_large_state(void *arg, bool connected)
{
    struct app *app = arg;
    if (connected)
        handoff_pg_up(app->g.handoff, app->g.write_large);
}

static void write_keyed_state(void *arg, bool connected)
{
    struct app *app = arg;
    if (connected)
        handoff_pg_up(app->g.handoff, app->g.write_keyed);
}

static void read_state(void *arg, bool connected)
{
    struct app *app = arg;
    if (connected)
        batch_session(app->g.read);
}

static void lists_state(void *arg, bool connected)
{
    struct app *app = arg;
    if (connected)
        list_session(app->g.lists);
}

static struct pg *connect_lists(struct app *app, struct err *err)
{
    return pg_open(app->g.loop,
                   &(struct pg_options){.url = app->settings.database_url,
                                        .application = app->name,
                                        .max_inflight = 1,
                                        .max_queued = LISTS_QUEUED,
                                        .statement_timeout_ms = LIST_STATEMENT_MS,
                                        .on_state = lists_state,
                                        .arg = app},
                   err);
}

static struct pg *connect_load(struct app *app, struct err *err)
{
    return pg_open(app->g.loop,
                   &(struct pg_options){.url = app->settings.database_url,
                                        .application = app->name,
                                        .max_inflight = 1,
                                        .statement_timeout_ms = LOAD_STATEMENT_MS},
                   err);
}

static struct pg *connect_pg(struct app *app, int inflight, void (*on_state)(void *, bool), struct err *err)
{
    return pg_open(app->g.loop,
                   &(struct pg_options){.url = app->settings.database_url,
                                        .application = app->name,
                                        .max_inflight = inflight,
                                        .max_queued = 20000,
                                        .on_state = on_state,
                                        .arg = app},
                   err);
}

/* ---- starting ---- */

static int open_stores(struct app *app, struct err *err)
{
    struct gateway *g = &app->g;
    const struct redis_options redis = {
        .url = app->settings.redis_url, .name = app->name, .on_state = redis_state, .arg = app};
    const struct redis_options sub = {
        .url = app->settings.redis_url, .name = app->name, .on_state = sub_state, .arg = app};
    static const char *const channels[] = {QUEUE_CHANNEL_DONE, KEYS_CHANNEL};
    boot_application(g->boot, app->name);
    if ((g->read = connect_pg(app, 16, read_state, err)) == NULL ||
        (g->write_small = connect_pg(app, 2, write_small_state, err)) == NULL ||
        (g->write_large = connect_pg(app, 2, write_large_state, err)) == NULL ||
        (g->write_keyed = connect_pg(app, 16, write_keyed_state, err)) == NULL ||
        (g->files = connect_pg(app, 4, NULL, err)) == NULL || (g->lists = connect_lists(app, err)) == NULL ||
        (g->load = connect_load(app, err)) == NULL)
        return -1;
    if ((g->redis = redis_open(g->loop, &redis, err)) == NULL ||
        (app->sub = redis_sub_open(g->loop, &sub, channels, 2, on_message, app, err)) == NULL)
        return -1;
    return 0;
}

static int open_modules(struct app *app, struct err *err)
{
    struct gateway *g = &app->g;
    g->contract = router_contract(err);
    g->docs = g->contract != NULL ? docs_new(g->contract, err) : NULL;
    if (g->docs == NULL)
        return -1;
    g->queue = queue_new(g->redis, (int)app->settings.tenant_window);
    g->auth = auth_new(g);
    g->ratelimit = ratelimit_new(app->settings.tenant_rate, app->settings.tenant_burst);
    g->targets = targets_new(g);
    g->handoff = handoff_new(g);
    g->waiters = waiters_new(g);
    g->build_watch = build_watch_new(g);
    g->pool = work_pool_new(g->loop, 2, 64);
    g->submitter = submitter_new(g->loop, g->write_small, g->write_large, g->write_keyed,
                                 invocation_committed, g, WRITE_BYTES);
    g->settler = settler_new(g->loop, g->files, g->files, invocation_settled, g, WRITE_BYTES);
    if (g->queue == NULL || g->auth == NULL || g->ratelimit == NULL || g->targets == NULL ||
        g->handoff == NULL || g->waiters == NULL || g->build_watch == NULL || g->pool == NULL ||
        g->submitter == NULL || g->settler == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory to start");
    g->streams = streams_new(g, err);
    return g->streams != NULL ? 0 : -1;
}

static int open_server(struct app *app, struct err *err)
{
    struct gateway *g = &app->g;
    g->server = http_server_open(
        g->loop,
        &(struct http_server_options){
            .listen = app->settings.listen,
            .app = {.on_request = router_request, .on_gone = router_gone, .error_body = router_error_body},
            .arg = g,
            .max_connections = (int)app->settings.max_connections,
            .max_body_bytes = (size_t)app->settings.max_body_bytes,
            .reuse_port = app->settings.reuse_port},
        err);
    if (g->server == NULL)
        return -1;
    char boot[UUID_TEXT_BYTES];
    uuid_format(g->boot, boot);
    if (http_server_max_connections(g->server) < app->settings.max_connections)
        log_warn("fewer connections than configured: raise the limit on open files (ulimit -Hn)",
                 LF_INT("connections", http_server_max_connections(g->server)),
                 LF_INT("configured", app->settings.max_connections));
    log_info("listening", LF_STR("listen", app->settings.listen), LF_INT("port", http_server_port(g->server)),
             LF_STR("boot", boot));
    return 0;
}

/* Nothing is served before submissions can be accepted: behind a shared port this process would refuse what
 * another could take. A clock that is off is told to callers. */
static void start_serving(void *arg)
{
    struct app *app = arg;
    struct err err = ERR_INIT;
    if (!handoff_ready(app->g.handoff, &err) && err.code != ERR_CLOCK_SKEW) {
        loop_timer_start(app->start, START_LOOK_MS);
        return;
    }
    if (open_server(app, &err) == 0)
        return;
    log_error("cannot listen", LF_ERR(&err));
    app->status = 1;
    loop_stop(app->g.loop);
}

static void on_key(void *arg, struct str key, const struct err *err)
{
    struct app *app = arg;
    if (err != NULL || key.n != CURSOR_KEY_BYTES) {
        log_warn("the deployment's key for cursors cannot be read; trying again");
        loop_timer_start(app->key, AGAIN_MS);
        return;
    }
    memcpy(app->g.cursor_key.b, key.p, key.n);
    start_serving(app);
}

static void read_key(void *arg)
{
    struct app *app = arg;
    if (list_key_get(app->g.lists, KEY_MS, on_key, app, NULL) != 0)
        loop_timer_start(app->key, AGAIN_MS);
}

/* The schema must be ours, and the deployment's key be known, before anything is served. */
static void on_schema(void *arg, struct uuid deployment)
{
    (void)deployment;
    read_key(arg);
}

static void on_waiting(void *arg, const char *why)
{
    (void)arg;
    log_warn(why);
}

/* ---- stopping ---- */

static void on_finished(void *arg)
{
    struct app *app = arg;
    loop_stop(app->g.loop);
}

static void drained(void *arg)
{
    struct app *app = arg;
    static int waited_ms = 0;
    waited_ms += 50;
    if (http_server_connections(app->g.server) > 0 && waited_ms < app->settings.drain_ms) {
        loop_timer_start(app->drain, 50);
        return;
    }
    http_server_close(&app->g.server);
    handoff_finish(app->g.handoff, on_finished, app);
}

static void on_signal(void *arg, int signum)
{
    struct app *app = arg;
    log_info("stopping", LF_INT("signal", signum));
    if (app->g.server == NULL || loop_timer_active(app->drain)) {
        loop_stop(app->g.loop);
        return;
    }
    http_server_drain(app->g.server);
    waiters_drain(app->g.waiters);
    app->g.draining = true;
    loop_timer_start(app->drain, 0);
}

static void app_close(struct app *app)
{
    struct gateway *g = &app->g;
    http_server_close(&g->server);
    redis_sub_close(&app->sub);
    submitter_free(&g->submitter);
    settler_free(&g->settler);
    streams_free(&g->streams);
    waiters_free(&g->waiters);
    build_watch_free(&g->build_watch);
    work_pool_free(&g->pool);
    redis_close(&g->redis);
    pg_close(&g->read);
    pg_close(&g->write_small);
    pg_close(&g->write_large);
    pg_close(&g->write_keyed);
    pg_close(&g->files);
    pg_close(&g->lists);
    pg_close(&g->load);
    handoff_free(&g->handoff);
    targets_free(&g->targets);
    docs_free(&g->docs);
    contract_free(&g->contract);
    ratelimit_free(&g->ratelimit);
    auth_free(&g->auth);
    queue_free(&g->queue);
    schema_wait_free(&app->schema);
    loop_timer_free(&app->start);
    loop_timer_free(&app->drain);
    loop_timer_free(&app->key);
    loop_signal_free(&app->term);
    loop_signal_free(&app->intr);
    loop_free(&g->loop);
}

static int run(void *arg)
{
    struct app *app = arg;
    struct err err = ERR_INIT;
    struct gateway *g = &app->g;
    g->settings = &app->settings;
    g->boot = uuid_new();
    metrics_init(&g->metrics);
    g->loop = loop_new();
    if (g->loop == NULL)
        return 1;
    app->term = loop_signal_new(g->loop, SIGTERM, on_signal, app);
    app->intr = loop_signal_new(g->loop, SIGINT, on_signal, app);
    app->start = loop_timer_new(g->loop, start_serving, app);
    app->drain = loop_timer_new(g->loop, drained, app);
    app->key = loop_timer_new(g->loop, read_key, app);
    if (crypto_init(&err) != 0 || webhook_rules_init(&g->webhook_rules, g->settings, &err) != 0 ||
        env_rules_init(&g->env_rules, g->settings, &err) != 0 || open_stores(app, &err) != 0 ||
        open_modules(app, &err) != 0) {
        log_error("cannot start", LF_ERR(&err));
        app->status = 1;
    } else {
        app->schema = schema_wait_new(g->loop, g->read, on_schema, on_waiting, app);
        loop_run(g->loop);
        leaks_check();
    }
    app_close(app);
    return app->status;
}

int main(int argc, char **argv)
{
    static struct app app;
    setlocale(LC_CTYPE, "C.UTF-8"); /* names in archives are UTF-8: libarchive converts by locale */
    return daemon_main(&settings_table, &app.settings, "gateway", &app.settings.log_level, argc, argv, run,
                       &app);
}
