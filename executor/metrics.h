/* The executor's metrics, one row each, and where they are read. */
#ifndef EXECUTOR_METRICS_H
#define EXECUTOR_METRICS_H

#include "base/metric.h"
#include "executor.h"

enum executor_metric {
    M_BUILD_INFO,
    M_JOBS,
    M_BUILDS,
    M_DESTROYING,
    M_SPOOL_BYTES,
    M_START_SECONDS,
    M_WARM_READY,
    M_WARM_OLDEST,
    M_WARM_HITS,
    M_WARM_MISSES,
    M_WARM_AGED,
    M_WARM_YIELDED,
    M_WARM_FAILED,
    M_WARM_IDLE_SECONDS,
    M_WARM_AGE,
    M_COUNT,
};

struct metrics {
    struct metric row[M_COUNT];
};

void metrics_init(struct metrics *m);

/* Serves /metrics and /healthz at SANDPIPER_EXECUTOR_LISTEN; *out stays NULL when that is not set. */
struct probes;
int probes_open(struct executor *x, struct probes **out, struct err *err);
void probes_close(struct probes **p);

#endif
