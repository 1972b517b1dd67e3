/* The gateway's metrics. */
#include "metrics.h"

static const struct metric table[M_COUNT] = {
    [M_BUILD_INFO] = {"sandpiper_build_info", "The build.", METRIC_GAUGE, "version=\"" SP_VERSION "\"",
                      .value = 1},
    [M_REQUESTS_2XX] = {"sandpiper_http_requests_total", "Answers by class.", METRIC_COUNTER,
                        "class=\"2xx\""},
    [M_REQUESTS_4XX] = {"sandpiper_http_requests_total", "Answers by class.", METRIC_COUNTER,
                        "class=\"4xx\""},
    [M_REQUESTS_5XX] = {"sandpiper_http_requests_total", "Answers by class.", METRIC_COUNTER,
                        "class=\"5xx\""},
    [M_SUBMITTED] = {"sandpiper_invocations_accepted_total", "Invocations committed.", METRIC_COUNTER},
    [M_REPLAYED] = {"sandpiper_invocations_replayed_total",
                    "Submissions answered from their Idempotency-Key.", METRIC_COUNTER},
    [M_HANDED] = {"sandpiper_invocations_enqueued_total", "Invocations put on a stream at once.",
                  METRIC_COUNTER},
    [M_LEFT_WAITING] = {"sandpiper_invocations_deferred_total",
                        "Invocations left to the dispatcher's feeder.", METRIC_COUNTER},
    [M_HANDOFF_FAILED] = {"sandpiper_enqueue_failures_total", "Invocations whose first XADD failed.",
                          METRIC_COUNTER},
    [M_WAITERS] = {"sandpiper_waiters", "Callers waiting for an outcome.", METRIC_GAUGE},
    [M_WAIT_TOLD] = {"sandpiper_waiters_told_total", "Waiting callers told by pub/sub.", METRIC_COUNTER},
    [M_WAIT_REREAD] = {"sandpiper_waiters_reread_total", "Waiting callers told by a re-read.",
                       METRIC_COUNTER},
    [M_CONNECTIONS] = {"sandpiper_http_connections", "Open client connections.", METRIC_GAUGE},
    [M_COMMIT_SECONDS] = {"sandpiper_commit_seconds", "From a submission's arrival to its commit.",
                          METRIC_HISTOGRAM},
};

void metrics_init(struct metrics *m)
{
    for (int i = 0; i < M_COUNT; i++)
        m->row[i] = table[i];
}
