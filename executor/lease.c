/* Keeping leases. */
#include "lease.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/log.h"
#include "intake.h"
#include "job.h"
#include "warm.h"
#include "will.h"

enum {
    BEAT_MS = 500, /* DESIGN section 4: each 0.5 to 1 s */
    GAP_MS = 1500, /* this long without a beat: somebody may have thought us dead */
    STARTED_MAX = 256,
};

struct lease_keeper {
    struct executor *x;
    struct loop_timer *timer;
    struct redis_sub *sub;
    char channel[64];
    char epoch[40];
    mono_t last; /* the last answered beat */
    bool beating, asserting;
    bool must_assert;
    struct uuid started[STARTED_MAX]; /* jobs whose start is to be told */
    size_t started_n;
    struct loop_task tell;
};

static void on_cancel_message(void *arg, struct str channel, struct str payload)
{
    (void)channel;
    struct lease_keeper *k = arg;
    struct uuid id;
    if (payload.n != sizeof id.b)
        return;
    memcpy(id.b, payload.p, sizeof id.b);
    struct job *j = jobs_find(k->x->jobs, id);
    if (j != NULL)
        job_cancel(j);
}

/* ---- asserting ---- */

struct assertion {
    struct lease_keeper *k;
    size_t n;
    struct uuid ids[QUEUE_BATCH];
};

static void on_asserted(void *arg, const int8_t *verdicts, size_t n, const struct err *err)
{
    struct assertion *a = arg;
    struct executor *x = a->k->x;
    a->k->asserting = false;
    if (err != NULL)
        a->k->must_assert = true;
    for (size_t i = 0; err == NULL && i < n; i++) {
        struct job *j = verdicts[i] == 0 ? jobs_find(x->jobs, a->ids[i]) : NULL;
        if (j == NULL)
            continue;
        char id[ID_TEXT_BYTES];
        id_format("inv", a->ids[i], id);
        log_warn("a lease was lost: somebody else runs this job", LF_STR("invocation", id));
        job_fence(j);
    }
    free(a);
}

/* All jobs in batches; a batch at a time is enough: QUEUE_BATCH jobs each half second. */
static void assert_page(struct lease_keeper *k, struct job *from)
{
    struct assertion *a = calloc(1, sizeof *a);
    struct queue_assert_item *items = calloc(QUEUE_BATCH, sizeof *items);
    INVARIANT(a != NULL && items != NULL);
    a->k = k;
    struct job *j = from;
    for (; j != NULL && a->n < QUEUE_BATCH; j = j->next) {
        items[a->n] = (struct queue_assert_item){.lease = &j->lease, .running = j->phase >= JOB_RUNNING};
        a->ids[a->n++] = j->lease.id;
    }
    bool sent = a->n > 0 && queue_assert(k->x->queue, k->x->boot, items, a->n, on_asserted, a) == 0;
    free(items);
    if (!sent) {
        k->must_assert = k->must_assert || a->n > 0;
        free(a);
        return;
    }
    k->asserting = true;
    if (j != NULL)
        assert_page(k, j);
}

static void assert_all(struct lease_keeper *k)
{
    if (k->asserting)
        return;
    k->must_assert = false;
    assert_page(k, jobs_first(k->x->jobs));
}

/* ---- starts ---- */

static void tell_started(void *arg)
{
    struct lease_keeper *k = arg;
    const struct lease *leases[STARTED_MAX];
    size_t n = 0;
    for (size_t i = 0; i < k->started_n; i++) {
        struct job *j = jobs_find(k->x->jobs, k->started[i]);
        if (j != NULL && j->phase == JOB_RUNNING)
            leases[n++] = &j->lease;
    }
    k->started_n = 0;
    if (n > 0)
        queue_progress(k->x->queue, k->x->boot, leases, n);
}

void lease_started(struct lease_keeper *k, struct uuid id)
{
    k->started[k->started_n++] = id;
    if (k->started_n == STARTED_MAX)
        tell_started(k);
    else
        loop_task_post(k->x->loop, &k->tell, tell_started, k);
}

/* ---- beating ---- */

/* What of the governor's permits is ours: Redis may have lost or kept what it should not. */
static void tell_permits(const struct executor *x)
{
    governor_set(x->governor, jobs_permits(x->jobs) + intake_permits(x->intake) +
                                  intake_permits(x->build_intake) + warm_permits(x->warm));
}

static void on_beat(void *arg, struct str epoch, bool was_missing, const struct uuid *cancels, size_t n,
                    const struct err *err)
{
    struct lease_keeper *k = arg;
    mono_t now = loop_now(k->x->loop);
    k->beating = false;
    if (err != NULL)
        return;
    bool gap = k->last.us != 0 && mono_ms_between(k->last, now) > GAP_MS;
    bool epoch_changed = !str_eq_c(epoch, k->epoch);
    k->last = now;
    str_copy(epoch, k->epoch, sizeof k->epoch);
    if (was_missing || gap || (epoch_changed && epoch.n > 0)) {
        k->must_assert = true;
        tell_permits(k->x);
        will_forgotten(k->x->will);
        warm_forgotten(k->x->warm);
    }
    if (k->must_assert)
        assert_all(k);
    for (size_t i = 0; i < n; i++) {
        struct job *j = jobs_find(k->x->jobs, cancels[i]);
        if (j != NULL)
            job_cancel(j);
    }
}

static void beat(void *arg)
{
    struct lease_keeper *k = arg;
    int running = jobs_count(k->x->jobs, ENTRY_INVOCATION) + jobs_count(k->x->jobs, ENTRY_BUILD);
    if (!k->beating && redis_connected(k->x->redis))
        k->beating = queue_beat(k->x->queue, k->x->boot, running, on_beat, k) == 0;
}

void lease_keeper_redis_up(struct lease_keeper *k)
{
    k->must_assert = true;
    k->beating = false;
    tell_permits(k->x);
    if (loop_timer_active(k->timer))
        beat(k);
}

struct lease_keeper *lease_keeper_new(struct executor *x, struct err *err)
{
    struct lease_keeper *k = calloc(1, sizeof *k);
    if (k == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory");
        return NULL;
    }
    char boot[UUID_TEXT_BYTES];
    uuid_format(x->boot, boot);
    k->x = x;
    snprintf(k->channel, sizeof k->channel, QUEUE_CHANNEL_CTL "%s", boot);
    const char *const channels[] = {k->channel};
    k->timer = loop_timer_new(x->loop, beat, k);
    k->sub = redis_sub_open(x->loop,
                            &(struct redis_options){.url = x->settings->redis_url, .name = x->client_name},
                            channels, 1, on_cancel_message, k, err);
    if (k->timer == NULL || k->sub == NULL) {
        lease_keeper_free(&k);
        return NULL;
    }
    loop_timer_every(k->timer, BEAT_MS);
    return k;
}

void lease_keeper_stop(struct lease_keeper *k)
{
    loop_timer_stop(k->timer);
}

void lease_keeper_free(struct lease_keeper **k)
{
    if (k == NULL || *k == NULL)
        return;
    redis_sub_close(&(*k)->sub);
    loop_task_cancel((*k)->x->loop, &(*k)->tell);
    loop_timer_free(&(*k)->timer);
    free(*k);
    *k = NULL;
}
