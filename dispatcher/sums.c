/* Sums of usage. Readers add up what is folded and what is not, so a fold that is late costs reading, never
 * truth. A step takes CHUNK deltas at most and is one statement; after a full one the next begins at once, so
 * a backlog goes in steps whose size does not grow with it. */
#include "sums.h"

#include <stdlib.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "store/usage.h"

enum { PASS_MS = 1000, CHUNK = 5000 };

struct sums {
    struct dispatcher *d;
    struct loop_timer *timer;
};

static void on_folded(void *arg, int64_t folded, const struct err *err)
{
    struct sums *s = arg;
    if (folded > 0)
        FAILPOINT(dispatcher_summed);
    if (err != NULL)
        log_warn("adding up usage failed; trying again", LF_ERR(err));
    loop_timer_start(s->timer, folded == CHUNK ? 0 : PASS_MS);
}

static void fold(void *arg)
{
    struct sums *s = arg;
    if (usage_fold(s->d->pg, CHUNK, DB_MS, on_folded, s) != 0)
        loop_timer_start(s->timer, PASS_MS);
    else
        FAILPOINT(dispatcher_sum);
}

struct sums *sums_new(struct dispatcher *d)
{
    struct sums *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->d = d;
    s->timer = loop_timer_new(d->loop, fold, s);
    if (s->timer == NULL)
        sums_free(&s);
    else
        loop_timer_start(s->timer, PASS_MS);
    return s;
}

void sums_free(struct sums **s)
{
    if (s == NULL || *s == NULL)
        return;
    loop_timer_free(&(*s)->timer);
    free(*s);
    *s = NULL;
}
