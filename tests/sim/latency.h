/* How long things take, and the dice that all chance in the simulator comes from. */
#ifndef SIM_LATENCY_H
#define SIM_LATENCY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

/* A seed's numbers, by (stream, turn): the n-th create meets the same chance in every run of a seed, however
 * many other calls came in between. */
struct dice {
    uint64_t seed;
};

uint64_t dice_number(const struct dice *d, unsigned stream, uint64_t turn);
double dice_unit(const struct dice *d, unsigned stream, uint64_t turn); /* 0 <= u < 1 */
int64_t dice_range(const struct dice *d, unsigned stream, uint64_t turn, int64_t min, int64_t max);

/* Evenly from min to max; or, with a p50, lognormal by its median and 99th percentile: half of all are below
 * the one, one in a hundred is above the other. */
struct span {
    int64_t min_ms, max_ms;
    int64_t p50_ms, p99_ms;
};

/* "20", "20ms", "1s", "10..50", "100ms..2s" or "p50=150ms,p99=2s"; up to an hour. */
bool span_parse(struct str text, struct span *out);
int64_t span_draw(const struct span *s, const struct dice *d, unsigned stream, uint64_t turn);

#endif
