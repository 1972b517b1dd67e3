/* Distributions of time, drawn from a seed. */
#include "latency.h"

#include <math.h>

enum { SPAN_MAX_MS = 3600 * 1000 };

/* splitmix64's finalizer (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): a
 * counter goes in, so that a draw depends on its place alone and not on what was drawn before. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t dice_number(const struct dice *d, unsigned stream, uint64_t turn)
{
    const uint64_t golden = 0x9e3779b97f4a7c15u;
    return mix(mix(d->seed + golden * (stream + 1)) + golden * (turn + 1));
}

double dice_unit(const struct dice *d, unsigned stream, uint64_t turn)
{
    return (double)(dice_number(d, stream, turn) >> 11) * 0x1p-53;
}

int64_t dice_range(const struct dice *d, unsigned stream, uint64_t turn, int64_t min, int64_t max)
{
    return min + (int64_t)(dice_unit(d, stream, turn) * (double)(max - min + 1));
}

static bool duration_parse(struct str s, int64_t *ms)
{
    uint64_t n;
    int64_t unit = 1;
    s = str_trim(s);
    if (s.n > 2 && str_eq_c(str_make(s.p + s.n - 2, 2), "ms")) {
        s.n -= 2;
    } else if (s.n > 1 && s.p[s.n - 1] == 's') {
        s.n--;
        unit = 1000;
    }
    if (!str_to_u64(s, &n) || n > SPAN_MAX_MS / (uint64_t)unit)
        return false;
    *ms = (int64_t)n * unit;
    return true;
}

static bool percentile_parse(struct str s, const char *name, int64_t *ms)
{
    struct str n = str_of(name);
    s = str_trim(s);
    return str_starts(s, n) && duration_parse(str_make(s.p + n.n, s.n - n.n), ms);
}

static bool tail_parse(struct str text, struct span *out)
{
    struct str median;
    str_split(&text, ',', &median);
    return percentile_parse(median, "p50=", &out->p50_ms) && percentile_parse(text, "p99=", &out->p99_ms) &&
           out->p50_ms > 0 && out->p50_ms <= out->p99_ms;
}

bool span_parse(struct str text, struct span *out)
{
    *out = (struct span){0};
    if (str_starts(str_trim(text), STR("p50=")))
        return tail_parse(text, out);
    for (size_t i = 0; i + 1 < text.n; i++)
        if (text.p[i] == '.' && text.p[i + 1] == '.')
            return duration_parse(str_make(text.p, i), &out->min_ms) &&
                   duration_parse(str_make(text.p + i + 2, text.n - i - 2), &out->max_ms) &&
                   out->min_ms <= out->max_ms;
    if (!duration_parse(text, &out->min_ms))
        return false;
    out->max_ms = out->min_ms;
    return true;
}

/* Box and Muller's normal variate, from two draws of one turn. */
static double normal(const struct dice *d, unsigned stream, uint64_t turn)
{
    double u = 1 - dice_unit(d, stream, 2 * turn), v = dice_unit(d, stream, 2 * turn + 1);
    return sqrt(-2 * log(u)) * cos(2 * 3.14159265358979323846 * v);
}

static int64_t tail_draw(const struct span *s, const struct dice *d, unsigned stream, uint64_t turn)
{
    const double z99 = 2.3263478740408408; /* the normal distribution's 99th percentile */
    double sigma = log((double)s->p99_ms / (double)s->p50_ms) / z99;
    double ms = (double)s->p50_ms * exp(sigma * normal(d, stream, turn));
    return ms < SPAN_MAX_MS ? (int64_t)ms : SPAN_MAX_MS;
}

int64_t span_draw(const struct span *s, const struct dice *d, unsigned stream, uint64_t turn)
{
    if (s->p50_ms > 0)
        return tail_draw(s, d, stream, turn);
    return s->min_ms == s->max_ms ? s->min_ms : dice_range(d, stream, turn, s->min_ms, s->max_ms);
}
