/* The bar. */
#include "progress.h"

#include <stdio.h>
#include <unistd.h>

enum { WIDTH = 24, DRAW_MS = 100, BYTES_MIN = 4 * 1000 * 1000 };

/* What was done a second, between the oldest look that is kept and this one. */
static double rate_of(struct progress *p, int64_t done, mono_t now)
{
    int oldest = p->looks < PROGRESS_LOOKS ? 0 : p->looks % PROGRESS_LOOKS;
    double seconds = p->looks > 0 ? (double)(now.us - p->at[oldest].us) / 1e6 : 0;
    double rate = seconds > 0 ? (double)(done - p->done[oldest]) / seconds : 0;
    p->done[p->looks % PROGRESS_LOOKS] = done;
    p->at[p->looks % PROGRESS_LOOKS] = now;
    p->looks++;
    return rate;
}

static bool is_too_soon(const struct progress *p, int64_t done, int64_t total, mono_t now)
{
    mono_t last = p->looks > 0 ? p->at[(p->looks - 1) % PROGRESS_LOOKS] : (mono_t){0};
    return p->looks > 0 && done < total && mono_ms_between(last, now) < DRAW_MS;
}

static void make_bar(int64_t done, int64_t total, char bar[WIDTH + 1])
{
    int full = total > 0 ? (int)(done * WIDTH / total) : 0;
    for (int i = 0; i < WIDTH; i++)
        bar[i] = i < full ? '#' : '.';
    bar[WIDTH] = '\0';
}

void progress_draw_bytes(struct progress *p, const char *what, int64_t done, int64_t total)
{
    mono_t now = mono_now();
    char bar[WIDTH + 1];
    if (is_too_soon(p, done, total, now))
        return;
    double rate = rate_of(p, done, now);
    make_bar(done, total, bar);
    fprintf(stderr, "\r\033[K%s [%s] %.1f of %.1f MB", what, bar, (double)done / 1e6, (double)total / 1e6);
    if (rate > 0)
        fprintf(stderr, ", %.1f MB/s, %.0f s left", rate / 1e6, (double)(total - done) / rate);
}

bool progress_is_due(int64_t total)
{
    return total >= BYTES_MIN && isatty(STDERR_FILENO) != 0;
}

void progress_draw(struct progress *p, int64_t done, int64_t total, int64_t failed)
{
    mono_t now = mono_now();
    char bar[WIDTH + 1];
    if (is_too_soon(p, done, total, now))
        return;
    double rate = rate_of(p, done, now);
    make_bar(done, total, bar);
    fprintf(stderr, "\r\033[K[%s] %lld of %lld done, %lld failed", bar, (long long)done, (long long)total,
            (long long)failed);
    if (rate > 0)
        fprintf(stderr, ", %.*f/s, %.0f s left", rate < 10 ? 1 : 0, rate, (double)(total - done) / rate);
}
