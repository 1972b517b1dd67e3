/* The bar. */
#include "progress.h"

#include <stdio.h>

enum { WIDTH = 24, DRAW_MS = 100 };

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

void progress_draw(struct progress *p, int64_t done, int64_t total, int64_t failed)
{
    mono_t now = mono_now();
    mono_t last = p->looks > 0 ? p->at[(p->looks - 1) % PROGRESS_LOOKS] : (mono_t){0};
    if (p->looks > 0 && done < total && mono_ms_between(last, now) < DRAW_MS)
        return;
    double rate = rate_of(p, done, now);
    char bar[WIDTH + 1];
    int full = total > 0 ? (int)(done * WIDTH / total) : 0;
    for (int i = 0; i < WIDTH; i++)
        bar[i] = i < full ? '#' : '.';
    bar[WIDTH] = '\0';
    fprintf(stderr, "\r\033[K[%s] %lld of %lld done, %lld failed", bar, (long long)done, (long long)total,
            (long long)failed);
    if (rate > 0)
        fprintf(stderr, ", %.*f/s, %.0f s left", rate < 10 ? 1 : 0, rate, (double)(total - done) / rate);
}
