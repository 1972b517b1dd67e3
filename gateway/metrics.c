/* The gateway's metrics. */
#include "metrics.h"

static const struct metric table[M_COUNT] = {
    [M_BUILD_INFO] = {.name = "sandpiper_build_info",
                      .help = "The build.",
                      .kind = METRIC_GAUGE,
                      .labels = "version=\"" SP_VERSION "\"",
                      .value = 1},
    [M_REQUESTS_2XX] = {.name = "sandpiper_http_requests_total",
                        .help = "Answers by class.",
                        .kind = METRIC_COUNTER,
                        .labels = "class=\"2xx\""},
    [M_REQUESTS_4XX] = {.name = "sandpiper_http_requests_total",
                        .help = "Answers by class.",
                        .kind = METRIC_COUNTER,
                        .labels = "class=\"4xx\""},
    [M_REQUESTS_5XX] = {.name = "sandpiper_http_requests_total",
                        .help = "Answers by class.",
                        .kind = METRIC_COUNTER,
                        .labels = "class=\"5xx\""},
    [M_SUBMITTED] = {.name = "sandpiper_invocations_accepted_total",
                     .help = "Invocations committed.",
                     .kind = METRIC_COUNTER},
    [M_REPLAYED] = {.name = "sandpiper_invocations_replayed_total",
                    .help = "Submissions answered from their Idempotency-Key.",
                    .kind = METRIC_COUNTER},
    [M_HANDED] = {.name = "sandpiper_invocations_enqueued_total",
                  .help = "Invocations put on a stream at once.",
                  .kind = METRIC_COUNTER},
    [M_LEFT_WAITING] = {.name = "sandpiper_invocations_deferred_total",
                        .help = "Invocations left to the dispatcher's feeder.",
                        .kind = METRIC_COUNTER},
    [M_HANDOFF_FAILED] = {.name = "sandpiper_enqueue_failures_total",
                          .help = "Invocations whose first XADD failed.",
                          .kind = METRIC_COUNTER},
    [M_WAITERS] = {.name = "sandpiper_waiters",
                   .help = "Callers waiting for an outcome.",
                   .kind = METRIC_GAUGE},
    [M_WAIT_TOLD] = {.name = "sandpiper_waiters_told_total",
                     .help = "Waiting callers told by pub/sub.",
                     .kind = METRIC_COUNTER},
    [M_WAIT_REREAD] = {.name = "sandpiper_waiters_reread_total",
                       .help = "Waiting callers told by a re-read.",
                       .kind = METRIC_COUNTER},
    [M_CONNECTIONS] = {.name = "sandpiper_http_connections",
                       .help = "Open client connections.",
                       .kind = METRIC_GAUGE},
    [M_COMMIT_SECONDS] = {.name = "sandpiper_commit_seconds",
                          .help = "From a submission's arrival to its commit.",
                          .kind = METRIC_HISTOGRAM},
};

void metrics_init(struct metrics *m)
{
    for (int i = 0; i < M_COUNT; i++)
        m->row[i] = table[i];
}
