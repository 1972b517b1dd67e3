/* The executor's metrics. */
#include "metrics.h"

#include <stdlib.h>

#include "base/log.h"
#include "http/server.h"
#include "job.h"
#include "spool.h"
#include "warm.h"

static const struct metric table[M_COUNT] = {
    [M_BUILD_INFO] = {.name = "sandpiper_build_info",
                      .help = "The build.",
                      .kind = METRIC_GAUGE,
                      .labels = "version=\"" SP_VERSION "\"",
                      .value = 1},
    [M_JOBS] = {.name = "sandpiper_executor_jobs",
                .help = "Claimed and not released yet, by kind.",
                .kind = METRIC_GAUGE,
                .labels = "kind=\"invocation\""},
    [M_BUILDS] = {.name = "sandpiper_executor_jobs", .kind = METRIC_GAUGE, .labels = "kind=\"build\""},
    [M_DESTROYING] = {.name = "sandpiper_sandboxes_destroying",
                      .help = "Sandboxes whose destruction is under way.",
                      .kind = METRIC_GAUGE},
    [M_SPOOL_BYTES] = {.name = "sandpiper_spool_bytes",
                       .help = "Output that waits in files of its own.",
                       .kind = METRIC_GAUGE},
    [M_START_SECONDS] = {.name = "sandpiper_sandbox_start_seconds",
                         .help = "From an attempt's claim to its program's start.",
                         .kind = METRIC_HISTOGRAM},
    [M_WARM_READY] = {.name = "sandpiper_warm_sandboxes",
                      .help = "Sandboxes that were made ahead and wait.",
                      .kind = METRIC_GAUGE},
    [M_WARM_OLDEST] = {.name = "sandpiper_warm_oldest_age_seconds",
                       .help = "How long the oldest of them has waited.",
                       .kind = METRIC_GAUGE},
    [M_WARM_HITS] = {.name = "sandpiper_warm_hits_total",
                     .help = "Attempts that got one.",
                     .kind = METRIC_COUNTER},
    [M_WARM_MISSES] = {.name = "sandpiper_warm_misses_total",
                       .help = "Attempts of agents with a warm pool that found none.",
                       .kind = METRIC_COUNTER},
    [M_WARM_AGED] = {.name = "sandpiper_warm_aged_total",
                     .help = "Destroyed because they had waited too long.",
                     .kind = METRIC_COUNTER},
    [M_WARM_YIELDED] = {.name = "sandpiper_warm_yielded_total",
                        .help = "Destroyed because jobs waited for the provider's quota.",
                        .kind = METRIC_COUNTER},
    [M_WARM_FAILED] = {.name = "sandpiper_warm_failures_total",
                       .help = "Creates ahead that failed.",
                       .kind = METRIC_COUNTER},
    [M_WARM_IDLE_SECONDS] = {.name = "sandpiper_warm_idle_seconds_total",
                             .help = "Sandbox-seconds spent waiting: what the pools cost.",
                             .kind = METRIC_COUNTER},
    [M_WARM_AGE] = {.name = "sandpiper_warm_age_seconds",
                    .help = "How long those that attempts got had waited.",
                    .kind = METRIC_HISTOGRAM},
};

void metrics_init(struct metrics *m)
{
    for (int i = 0; i < M_COUNT; i++)
        m->row[i] = table[i];
}

struct probes {
    struct executor *x;
    struct http_server *server;
};

static void reply_metrics(struct executor *x, struct http_request *req)
{
    struct metric *row = x->metrics->row;
    struct buf body;
    metric_set(&row[M_JOBS], jobs_count(x->jobs, ENTRY_INVOCATION));
    metric_set(&row[M_BUILDS], jobs_count(x->jobs, ENTRY_BUILD));
    metric_set(&row[M_DESTROYING], jobs_destroying(x->jobs));
    metric_set(&row[M_SPOOL_BYTES], (double)x->spool->used);
    metric_set(&row[M_WARM_READY], warm_ready(x->warm));
    buf_init(&body, 256 * 1024);
    metric_write(row, M_COUNT, &body);
    http_reply(req, 200, "text/plain; version=0.0.4; charset=utf-8", buf_view(&body));
    buf_deinit(&body);
}

static void on_request(void *arg, struct http_request *req)
{
    struct probes *p = arg;
    struct str path = http_path(req);
    if (http_method_of(req) != HTTP_M_GET)
        http_reply(req, 405, "text/plain", STR("only GET\n"));
    else if (str_eq_c(path, "/metrics"))
        reply_metrics(p->x, req);
    else if (str_eq_c(path, "/healthz"))
        http_reply(req, 200, "text/plain", STR("ok\n"));
    else
        http_reply(req, 404, "text/plain", STR("there are /metrics and /healthz\n"));
}

int probes_open(struct executor *x, struct probes **out, struct err *err)
{
    if (x->settings->listen == NULL || x->settings->listen[0] == '\0')
        return 0;
    struct probes *p = calloc(1, sizeof *p);
    if (p == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory to start");
    p->x = x;
    p->server = http_server_open(x->loop,
                                 &(struct http_server_options){.listen = x->settings->listen,
                                                               .app = {.on_request = on_request},
                                                               .arg = p,
                                                               .max_connections = 64},
                                 err);
    if (p->server == NULL) {
        free(p);
        return -1;
    }
    log_info("metrics are served", LF_INT("port", http_server_port(p->server)));
    *out = p;
    return 0;
}

void probes_close(struct probes **p)
{
    if (p == NULL || *p == NULL)
        return;
    http_server_close(&(*p)->server);
    free(*p);
    *p = NULL;
}
