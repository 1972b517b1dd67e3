/* Metrics in Prometheus's text format. A daemon owns a static table of them; single-threaded. */
#ifndef BASE_METRIC_H
#define BASE_METRIC_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum { METRIC_BUCKETS = 18 };

/* Upper bounds in seconds, 0.5 ms to 130 s; the last bucket is +Inf. */
extern const double metric_bounds[METRIC_BUCKETS];

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metric {
    const char *name; /* base units: _seconds, _bytes, _total */
    const char *help;
    enum metric_kind kind;
    const char *labels; /* "code=\"x\"" or NULL; rows of one name stand together */
    double value;
    uint64_t buckets[METRIC_BUCKETS + 1], count;
    double sum;
};

void metric_add(struct metric *m, double by);
void metric_set(struct metric *m, double value);
void metric_observe(struct metric *m, double seconds);

/* Appends the table. */
void metric_write(const struct metric *table, size_t n, struct buf *out);

#endif
