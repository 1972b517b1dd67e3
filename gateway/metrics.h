/* The gateway's metrics, one row each. */
#ifndef GATEWAY_METRICS_H
#define GATEWAY_METRICS_H

#include "base/metric.h"

enum gateway_metric {
    M_BUILD_INFO,
    M_REQUESTS_2XX,
    M_REQUESTS_4XX,
    M_REQUESTS_5XX,
    M_SUBMITTED,
    M_REPLAYED,
    M_HANDED,
    M_LEFT_WAITING,
    M_HANDOFF_FAILED,
    M_WAITERS,
    M_WAIT_TOLD,
    M_WAIT_REREAD,
    M_STREAMS,
    M_STREAM_GAPS,
    M_CONNECTIONS,
    M_EVICTED,
    M_BODY_BYTES,
    M_COMMIT_SECONDS,
    M_COUNT,
};

struct metrics {
    struct metric row[M_COUNT];
};

void metrics_init(struct metrics *m);

#endif
