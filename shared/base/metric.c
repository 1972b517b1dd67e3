/* Metrics. */
#include "base/metric.h"

#include <string.h>

const double metric_bounds[METRIC_BUCKETS] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                              0.5,    1,     2.5,    5,     10,   30,    60,   120, 130};

void metric_add(struct metric *m, double by)
{
    m->value += by;
}

void metric_set(struct metric *m, double value)
{
    m->value = value;
}

void metric_observe(struct metric *m, double seconds)
{
    size_t i = 0;
    while (i < METRIC_BUCKETS && seconds > metric_bounds[i])
        i++;
    m->buckets[i]++;
    m->count++;
    m->sum += seconds;
}

static void write_histogram(const struct metric *m, struct buf *out)
{
    uint64_t total = 0;
    for (size_t i = 0; i < METRIC_BUCKETS; i++) {
        total += m->buckets[i];
        buf_printf(out, "%s_bucket{le=\"%g\"} %llu\n", m->name, metric_bounds[i], (unsigned long long)total);
    }
    buf_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.9g\n%s_count %llu\n", m->name,
               (unsigned long long)m->count, m->name, m->sum, m->name, (unsigned long long)m->count);
}

void metric_write(const struct metric *table, size_t n, struct buf *out)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    for (size_t i = 0; i < n; i++) {
        const struct metric *m = &table[i];
        if (i == 0 || strcmp(table[i - 1].name, m->name) != 0)
            buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name, kinds[m->kind]);
        if (m->kind == METRIC_HISTOGRAM)
            write_histogram(m, out);
        else if (m->labels != NULL)
            buf_printf(out, "%s{%s} %.17g\n", m->name, m->labels, m->value);
        else
            buf_printf(out, "%s %.17g\n", m->name, m->value);
    }
}
