/* Two clocks, two types: durations and deadlines are monotonic, records are wall time. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

/* CLOCK_MONOTONIC, microseconds. */
typedef struct {
    int64_t us;
} mono_t;

/* CLOCK_REALTIME, microseconds since 1970-01-01T00:00:00Z. */
typedef struct {
    int64_t us;
} wall_t;

mono_t mono_now(void);

/* The host's clock; once it was set, that time and what the monotonic clock has added to it: steps of the
 * host's clock are not seen any more. */
wall_t wall_now(void);
/* It is that late now. The process's clock, not the host's. */
void wall_set(wall_t now);

static inline int64_t mono_ms_between(mono_t from, mono_t to)
{
    return (to.us - from.us) / 1000;
}

static inline mono_t mono_add_ms(mono_t t, int64_t ms)
{
    return (mono_t){.us = t.us + ms * 1000};
}

static inline bool mono_before(mono_t a, mono_t b)
{
    return a.us < b.us;
}

/* RFC 3339 in UTC with milliseconds, "2026-11-21T07:30:00.123Z", NUL-ended. */
#define WALL_TEXT_BYTES 32
void wall_format(wall_t t, char out[WALL_TEXT_BYTES]);

/* Parses RFC 3339 (any offset, up to nanoseconds, cut to microseconds). False when malformed. */
bool wall_parse(struct str s, wall_t *out);

#endif
