/* Warm pools. */
#include "warm.h"

#include <stdlib.h>
#include <utlist.h>
#include <uthash.h>

#include "base/culprit.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "intake.h"
#include "metrics.h"
#include "run.h"
#include "store/queue_will.h"
#include "store/warm.h"
#include "warm_size.h"

enum {
    LOOK_MS = 2000, /* at what is wanted, and at who lives */
    TICK_MS = 500,  /* ages, and what could not be made before */
    STORE_MS = 10000,
    POOLS_MAX = 256,
    MAKING_MAX = 16, /* at once in this process */
    REFUSED_MS = 250,
    YIELD_MS = 5000, /* after jobs waited for permits */
    FAILED_MS = 1000,
    FAILED_MAX_MS = 60000,
    DEFAULT_LIMIT_MS = 120000,
    SLACK_MS = 60000,
    FIRST_CREATE_MS = 500, /* until one was measured */
};

struct idle {
    struct idle *prev, *next;
    struct sandbox sandbox;
    mono_t made, until; /* its TTL's end */
    bool permit;
};

struct pool {
    struct uuid version;
    char snapshot[VERSION_SNAPSHOT_BYTES];
    int64_t limit_ms;  /* what a job may take by default */
    bool no_internet;  /* its egress policy */
    int min, max;      /* this executor's share */
    bool wanted;       /* by the last look */
    struct idle *idle; /* the oldest first */
    int idle_n, making_n;
    struct warm_rate rate;
    double create_sec;
    int failures;
    mono_t not_before; /* after a failure or a refusal */
    UT_hash_handle hh;
};

/* One on its way: a permit, then the sandbox. Its pool may be gone by then: looked up again. */
struct making {
    struct making *prev, *next;
    struct warm *w;
    struct uuid version;
    bool permit;
    mono_t asked;
    int64_t ttl_ms;
    struct sandbox_request *request;
};

struct warm {
    struct executor *x;
    struct loop_timer *look, *tick;
    struct loop_task fill;
    struct pool *pools; /* in the order of the last look */
    struct making *making;
    int ready, making_n;
    bool running, asking;
    mono_t rest_until;
    struct uuid *boots; /* as of the last look */
    size_t boots_n;
};

static void on_look(void *arg);
static void on_tick(void *arg);
static void on_fill(void *arg);

static void metric(struct warm *w, enum executor_metric m, double by)
{
    metric_add(&w->x->metrics->row[m], by);
}

struct warm *warm_new(struct executor *x)
{
    struct warm *w = calloc(1, sizeof *w);
    if (w == NULL)
        return NULL;
    w->x = x;
    w->look = loop_timer_new(x->loop, on_look, w);
    w->tick = loop_timer_new(x->loop, on_tick, w);
    if (w->look == NULL || w->tick == NULL)
        warm_free(&w);
    return w;
}

static struct pool *pool_find(struct warm *w, struct uuid version)
{
    struct pool *p;
    HASH_FIND(hh, w->pools, &version, sizeof version, p);
    return p;
}

static int64_t age_ms(const struct warm *w, const struct idle *i)
{
    return mono_ms_between(i->made, loop_now(w->x->loop));
}

/* Takes it out of its pool; its waiting is over, and counted. */
static struct idle unlink_idle(struct warm *w, struct pool *p, struct idle *i)
{
    struct idle was = *i;
    DL_DELETE(p->idle, i);
    p->idle_n--;
    w->ready--;
    metric(w, M_WARM_IDLE_SECONDS, (double)age_ms(w, i) / 1000);
    free(i);
    return was;
}

static void destroy_idle(struct warm *w, struct pool *p, struct idle *i)
{
    struct idle was = unlink_idle(w, p, i);
    jobs_destroy(w->x->jobs, was.sandbox.id, was.permit);
}

static void pool_empty(struct warm *w, struct pool *p)
{
    while (p->idle != NULL)
        destroy_idle(w, p, p->idle);
}

static void pool_drop(struct warm *w, struct pool *p)
{
    pool_empty(w, p);
    HASH_DEL(w->pools, p);
    free(p);
}

void warm_free(struct warm **pw)
{
    if (pw == NULL || *pw == NULL)
        return;
    struct warm *w = *pw;
    struct making *m, *next;
    DL_FOREACH_SAFE(w->making, m, next)
    {
        sandbox_cancel(&m->request);
        free(m);
    }
    while (w->pools != NULL) {
        while (w->pools->idle != NULL)
            unlink_idle(w, w->pools, w->pools->idle);
        pool_drop(w, w->pools);
    }
    loop_task_cancel(w->x->loop, &w->fill);
    loop_timer_free(&w->look);
    loop_timer_free(&w->tick);
    free(w->boots);
    free(w);
    *pw = NULL;
}

/* ---- making ---- */

static void fill_soon(struct warm *w)
{
    if (w->running)
        loop_task_post(w->x->loop, &w->fill, on_fill, w);
}

static void making_end(struct making *m)
{
    struct pool *p = pool_find(m->w, m->version);
    if (p != NULL)
        p->making_n--;
    DL_DELETE(m->w->making, m);
    m->w->making_n--;
    free(m);
}

static void pause_pool(struct warm *w, struct uuid version, int64_t ms)
{
    struct pool *p = pool_find(w, version);
    if (p != NULL)
        p->not_before = mono_add_ms(loop_now(w->x->loop), ms);
}

static void create_failed(struct making *m, const struct sandbox_failure *f)
{
    struct warm *w = m->w;
    struct pool *p = pool_find(w, m->version);
    int64_t ms = FAILED_MS;
    metric(w, M_WARM_FAILED, 1);
    if (f->quota) {
        ms = f->retry_after_ms > 0 ? f->retry_after_ms : FAILED_MS;
        governor_pause(w->x->governor, ms);
    } else if (p != NULL) {
        ms = p->failures < 6 ? (int64_t)FAILED_MS << p->failures : FAILED_MAX_MS;
        p->failures++;
    }
    log_warn("a sandbox could not be made ahead", LF_INT("again_ms", ms), LF_ERR(&f->err));
    pause_pool(w, m->version, ms);
    if (m->permit)
        governor_give(w->x->governor, 1);
    making_end(m);
}

static void on_created(void *arg, const struct sandbox *sandbox, const struct sandbox_failure *f)
{
    struct making *m = arg;
    struct warm *w = m->w;
    struct pool *p = pool_find(w, m->version);
    m->request = NULL;
    FAILPOINT(executor_warmed);
    if (f != NULL) {
        create_failed(m, f);
        return;
    }
    mono_t now = loop_now(w->x->loop);
    struct idle *i = p != NULL && w->running ? calloc(1, sizeof *i) : NULL;
    if (i == NULL) {
        jobs_destroy(w->x->jobs, sandbox->id, m->permit);
    } else {
        *i = (struct idle){.sandbox = *sandbox, .made = now, .permit = m->permit};
        i->until = mono_add_ms(m->asked, m->ttl_ms);
        p->failures = 0;
        p->create_sec = (p->create_sec * 7 + (double)mono_ms_between(m->asked, now) / 1000) / 8;
        DL_APPEND(p->idle, i);
        p->idle_n++;
        w->ready++;
    }
    making_end(m);
    fill_soon(w);
    intake_wake(w->x->intake); /* what waits for a permit may have this one */
}

static void create(struct making *m)
{
    struct warm *w = m->w;
    const struct settings *s = w->x->settings;
    const struct pool *p = pool_find(w, m->version);
    m->asked = loop_now(w->x->loop);
    if (p != NULL) {
        m->ttl_ms = s->warm_age_ms + s->create_deadline_ms + 2 * s->start_deadline_ms + p->limit_ms +
                    RUN_FILES_MAX_MS + SLACK_MS;
        const struct sandbox_create spec = {.template_id = p->snapshot,
                                            .ttl_ms = m->ttl_ms,
                                            .deployment = w->x->deployment,
                                            .executor_boot = w->x->boot,
                                            .nonce = uuid_new(),
                                            .no_internet = p->no_internet,
                                            .deadline_ms = s->create_deadline_ms};
        FAILPOINT(executor_warm);
        m->request = sandbox_create(w->x->provider, &spec, on_created, m);
    }
    if (m->request != NULL)
        return;
    if (m->permit)
        governor_return(w->x->governor, 1);
    making_end(m);
}

static void on_permit(void *arg, int granted, int64_t wait_ms, const struct err *err)
{
    struct making *m = arg;
    struct warm *w = m->w;
    w->asking = false;
    m->permit = granted > 0;
    if (m->permit && w->running) {
        create(m);
        fill_soon(w);
        return;
    }
    if (m->permit)
        governor_return(w->x->governor, granted);
    else if (err == NULL)
        pause_pool(w, m->version, wait_ms > REFUSED_MS ? wait_ms : REFUSED_MS);
    making_end(m);
}

/* Begins one; false when none can be begun now. */
static bool make(struct warm *w, struct pool *p)
{
    bool governed = !governor_unlimited(w->x->governor);
    struct making *m = governed && w->asking ? NULL : calloc(1, sizeof *m);
    if (m == NULL)
        return false;
    *m = (struct making){.w = w, .version = p->version};
    DL_APPEND(w->making, m);
    w->making_n++;
    p->making_n++;
    if (!governed) {
        create(m);
        return true;
    }
    w->asking = governor_take(w->x->governor, 1, GOVERNOR_ANY, on_permit, m) == 0;
    if (!w->asking)
        making_end(m);
    return w->asking;
}

static int lacks(const struct warm *w, const struct pool *p)
{
    mono_t now = loop_now(w->x->loop);
    if (!p->wanted || mono_before(now, p->not_before))
        return 0;
    return warm_wanted(warm_rate_now(&p->rate, now), p->create_sec, p->min, p->max) - p->idle_n - p->making_n;
}

/* One for each pool, then another, while there is room. */
static void on_fill(void *arg)
{
    struct warm *w = arg;
    bool any = w->running && !mono_before(loop_now(w->x->loop), w->rest_until);
    while (any) {
        any = false;
        struct pool *p, *next;
        HASH_ITER(hh, w->pools, p, next)
        {
            bool room = w->making_n < MAKING_MAX && w->ready + w->making_n < w->x->settings->warm_max;
            if (room && lacks(w, p) > 0)
                any = make(w, p) || any;
        }
    }
}

/* ---- ages ---- */

static void age_pool(struct warm *w, struct pool *p)
{
    int wanted = warm_wanted(warm_rate_now(&p->rate, loop_now(w->x->loop)), p->create_sec, p->min, p->max);
    while (p->idle != NULL && age_ms(w, p->idle) > w->x->settings->warm_age_ms) {
        metric(w, M_WARM_AGED, 1);
        destroy_idle(w, p, p->idle);
    }
    while (p->idle_n > wanted) /* the arrivals have ceased, or the share is smaller */
        destroy_idle(w, p, p->idle);
}

static void on_tick(void *arg)
{
    struct warm *w = arg;
    int64_t oldest = 0;
    struct pool *p, *next;
    HASH_ITER(hh, w->pools, p, next)
    {
        age_pool(w, p);
        if (p->idle != NULL && age_ms(w, p->idle) > oldest)
            oldest = age_ms(w, p->idle);
    }
    metric_set(&w->x->metrics->row[M_WARM_OLDEST], (double)oldest / 1000);
    on_fill(w);
}

/* ---- what is wanted ---- */

static void want(struct warm *w, const struct warm_version *v)
{
    struct pool *p = pool_find(w, v->id);
    if (p == NULL && (p = calloc(1, sizeof *p)) != NULL) {
        p->version = v->id;
        p->create_sec = FIRST_CREATE_MS / 1000.0;
        if (!str_copy(v->snapshot, p->snapshot, sizeof p->snapshot)) {
            free(p);
            return;
        }
        HASH_ADD(hh, w->pools, version, sizeof p->version, p);
    }
    if (p == NULL)
        return;
    p->wanted = true;
    p->no_internet = v->no_internet;
    p->limit_ms = v->timeout_ms > 0 ? v->timeout_ms : DEFAULT_LIMIT_MS;
    p->min = warm_share(v->min, w->boots, w->boots_n, w->x->boot, v->id);
    p->max = warm_share(v->max, w->boots, w->boots_n, w->x->boot, v->id);
}

static void on_versions(void *arg, const struct warm_version *list, size_t n, const struct err *err)
{
    struct warm *w = arg;
    struct pool *p, *next;
    if (!w->running)
        return;
    loop_timer_start(w->look, LOOK_MS);
    if (err != NULL)
        return; /* as before */
    HASH_ITER(hh, w->pools, p, next)
    p->wanted = false;
    for (size_t i = 0; i < n; i++)
        want(w, &list[i]);
    HASH_ITER(hh, w->pools, p, next)
    {
        if (!p->wanted)
            pool_drop(w, p);
    }
    on_tick(w);
}

static void ask_versions(struct warm *w)
{
    if (warm_versions_get(w->x->read, POOLS_MAX, STORE_MS, on_versions, w, NULL) != 0)
        loop_timer_start(w->look, LOOK_MS);
}

static void on_register(void *arg, const struct uuid *boots, const bool *alive, size_t n,
                        const struct err *err)
{
    struct warm *w = arg;
    struct uuid *living = err == NULL ? calloc(n + 1, sizeof *living) : NULL;
    size_t living_n = 0;
    for (size_t i = 0; living != NULL && i < n; i++)
        if (alive[i])
            living[living_n++] = boots[i];
    if (living != NULL) {
        free(w->boots);
        w->boots = living;
        w->boots_n = living_n;
    }
    if (w->running)
        ask_versions(w);
}

static void on_look(void *arg)
{
    struct warm *w = arg;
    if (!redis_connected(w->x->redis) || queue_executors(w->x->queue, on_register, w) != 0)
        ask_versions(w);
}

/* ---- beginning and end ---- */

void warm_start(struct warm *w)
{
    if (w->x->settings->warm_max == 0)
        return;
    w->running = true;
    loop_timer_start(w->look, 0);
    loop_timer_every(w->tick, TICK_MS);
}

void warm_stop(struct warm *w)
{
    w->running = false;
    loop_timer_stop(w->look);
    loop_timer_stop(w->tick);
    while (w->pools != NULL)
        pool_drop(w, w->pools);
}

bool warm_quiet(const struct warm *w)
{
    return w->making == NULL;
}

/* ---- use ---- */

struct note {
    struct executor *x;
    struct uuid id;
    int16_t attempt;
    warm_noted_fn *noted;
};

static void on_noted(void *arg, const struct err *err)
{
    struct note *n = arg;
    FAILPOINT(executor_noted);
    if (n->noted != NULL)
        n->noted(n->x, n->id, n->attempt, err);
    free(n);
}

static bool note(struct job *j, warm_noted_fn *noted)
{
    struct queue_usage held = {.id = j->lease.id,
                               .agent = j->entry.agent,
                               .tenant = j->lease.tenant,
                               .attempt = j->lease.attempt,
                               .held_since = j->held_since,
                               .cpu_ms = -1,
                               .peak_memory_bytes = -1};
    struct note *n = malloc(sizeof *n);
    if (n == NULL || !str_copy(str_of(j->sandbox.id), held.sandbox, sizeof held.sandbox)) {
        free(n);
        return false;
    }
    *n = (struct note){.x = j->x, .id = j->lease.id, .attempt = j->lease.attempt, .noted = noted};
    if (queue_will_put(j->x->queue, j->x->boot, &held, on_noted, n) != 0) {
        free(n);
        return false;
    }
    j->noted = true;
    return true;
}

void warm_forgotten(struct warm *w)
{
    for (struct job *j = jobs_first(w->x->jobs); j != NULL; j = j->next)
        if (j->warm && j->phase < JOB_RECORDING)
            note(j, NULL);
}

/* The oldest that lives as long as the job may take. */
static struct idle *pick(struct warm *w, struct pool *p, const struct job *j)
{
    mono_t needed = mono_add_ms(loop_now(w->x->loop), run_hold_ms(j));
    struct idle *i;
    DL_FOREACH(p->idle, i)
    {
        if (!mono_before(i->until, needed))
            return i;
    }
    return NULL;
}

bool warm_take(struct warm *w, struct job *j, warm_noted_fn *noted)
{
    struct pool *p = pool_find(w, j->version.id);
    if (p == NULL)
        return false;
    warm_rate_arrival(&p->rate, loop_now(w->x->loop));
    struct idle *i = redis_connected(w->x->redis) ? pick(w, p, j) : NULL;
    if (i == NULL) {
        metric(w, M_WARM_MISSES, 1);
        fill_soon(w);
        return false;
    }
    metric_observe(&w->x->metrics->row[M_WARM_AGE], (double)age_ms(w, i) / 1000);
    struct idle was = unlink_idle(w, p, i);
    if (j->holds_permit)
        governor_return(w->x->governor, 1);
    j->holds_permit = was.permit;
    j->create_sent = true;
    j->sandbox = was.sandbox;
    j->has_sandbox = j->warm = true;
    j->sandbox_at = loop_now(w->x->loop);
    j->held_since = wall_now();
    fill_soon(w);
    metric(w, M_WARM_HITS, 1);
    if (note(j, noted))
        return true;
    job_disown(j);
    return false;
}

void warm_doubt(struct warm *w)
{
    struct pool *p, *next;
    log_warn("a sandbox made ahead was gone: the others are given up", LF_INT("ready", w->ready));
    HASH_ITER(hh, w->pools, p, next)
    pool_empty(w, p);
    fill_soon(w);
}

void warm_yield(struct warm *w)
{
    struct pool *p, *next, *of = NULL;
    w->rest_until = mono_add_ms(loop_now(w->x->loop), YIELD_MS);
    HASH_ITER(hh, w->pools, p, next)
    {
        if (p->idle != NULL && (of == NULL || mono_before(p->idle->made, of->idle->made)))
            of = p;
    }
    if (of == NULL)
        return;
    metric(w, M_WARM_YIELDED, 1);
    destroy_idle(w, of, of->idle);
}

int warm_ready(const struct warm *w)
{
    return w->ready;
}

int warm_permits(const struct warm *w)
{
    int n = 0;
    if (governor_unlimited(w->x->governor))
        return 0;
    for (const struct making *m = w->making; m != NULL; m = m->next)
        n += m->permit;
    return n + w->ready;
}
