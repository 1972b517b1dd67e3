/* Keeping PostgreSQL's clock. */
#include "store/clock_keep.h"

#include <stdlib.h>

#include "base/log.h"
#include "store/sweep.h"

enum {
    LOOK_MS = 10000,
    AGAIN_MS = 200,
    ASK_MS = 5000,
    SLACK_US = 50000, /* not worth a correction: less than answers may be late */
    SAY_US = 1000000,
};

struct clock_keep {
    struct loop *loop;
    struct pg *pg;
    struct loop_timer *timer;
    mono_t asked;
    bool is_set;
    void (*ready)(void *arg);
    void *arg;
};

static int64_t magnitude(int64_t v)
{
    return v < 0 ? -v : v;
}

/* Theirs is of some moment while the question was under way. */
static void correct(struct clock_keep *k, wall_t theirs)
{
    int64_t took_us = mono_now().us - k->asked.us;
    wall_t now = {.us = theirs.us + took_us / 2};
    int64_t off_us = wall_now().us - now.us;
    if (magnitude(off_us) > SAY_US)
        log_warn("this clock is off PostgreSQL's: going by that", LF_INT("ms", off_us / 1000));
    if (!k->is_set || magnitude(off_us) > SLACK_US + took_us)
        wall_set(now);
}

static void on_clock(void *arg, wall_t theirs, const struct err *err)
{
    struct clock_keep *k = arg;
    loop_timer_start(k->timer, err == NULL ? LOOK_MS : AGAIN_MS);
    if (err != NULL)
        return;
    correct(k, theirs);
    bool first = !k->is_set;
    k->is_set = true;
    if (first)
        k->ready(k->arg);
}

static void look(void *arg)
{
    struct clock_keep *k = arg;
    k->asked = mono_now();
    if (clock_get(k->pg, ASK_MS, on_clock, k) != 0)
        loop_timer_start(k->timer, AGAIN_MS);
}

struct clock_keep *clock_keep_new(struct loop *loop, struct pg *pg, void (*ready)(void *arg), void *arg)
{
    struct clock_keep *k = calloc(1, sizeof *k);
    if (k == NULL)
        return NULL;
    *k = (struct clock_keep){.loop = loop, .pg = pg, .ready = ready, .arg = arg};
    k->timer = loop_timer_new(loop, look, k);
    if (k->timer == NULL)
        clock_keep_free(&k);
    else
        loop_timer_start(k->timer, 0);
    return k;
}

void clock_keep_free(struct clock_keep **k)
{
    if (k == NULL || *k == NULL)
        return;
    loop_timer_free(&(*k)->timer);
    free(*k);
    *k = NULL;
}
