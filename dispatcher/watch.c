/* Watching Redis. One machine:
 *
 *   UNSURE -> (identity as known) -> WHOLE -> (identity changed) -> RESETTING -> HOLDING -> MARKING -> WHOLE
 *
 * Of several dispatchers that see a loss one resets (reset.lua compares the epoch); the others go through
 * UNSURE. A rebuild whose dispatcher died before it had marked the tenants is finished by whoever sees
 * `unmarked`. */
#include "watch.h"

#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "lead.h"
#include "store/sweep.h"

enum { LOOK_MS = 500, RETRY_MS = 300 };

enum watch_state { WATCH_UNSURE, WATCH_WHOLE, WATCH_RESETTING, WATCH_HOLDING, WATCH_MARKING };

struct watch {
    struct dispatcher *d;
    enum watch_state state;
    struct loop_timer *timer;
    bool asking;
    mono_t lost_at;
};

static void look(void *arg);
static void mark(struct watch *w);

static void enter(struct watch *w, enum watch_state state)
{
    w->state = state;
    lead_set_whole(w->d->lead, state == WATCH_WHOLE);
}

static void on_reset(void *arg, bool done, const struct err *err)
{
    struct watch *w = arg;
    if (err != NULL || !done) {
        if (err != NULL)
            log_warn("resetting Redis failed", LF_ERR(err));
        enter(w, WATCH_UNSURE); /* another did: it is followed */
        return;
    }
    FAILPOINT(dispatcher_rebuild);
    lead_disturbed(w->d->lead);
    enter(w, WATCH_HOLDING);
}

static void lost(struct watch *w, const struct queue_identity *id)
{
    struct uuid epoch = uuid_new();
    if (id->known[0] == '\0' && w->state == WATCH_UNSURE)
        log_info("Redis is empty: making the streams, then feeding what PostgreSQL has");
    else
        log_warn("Redis has lost its memory: rebuilding from PostgreSQL", LF_STR("identity", id->now));
    FAILPOINT(dispatcher_reset);
    w->lost_at = loop_now(w->d->loop);
    enter(w, WATCH_RESETTING);
    if (queue_reset(w->d->queue, epoch, id, on_reset, w) != 0)
        enter(w, WATCH_UNSURE);
}

static void on_marked(void *arg, const struct err *err)
{
    struct watch *w = arg;
    if (err != NULL) {
        enter(w, WATCH_HOLDING);
        return;
    }
    if (w->lost_at.us != 0)
        log_info("rebuild: the feeder takes over",
                 LF_INT("ms", mono_ms_between(w->lost_at, loop_now(w->d->loop))));
    w->lost_at.us = 0;
    enter(w, WATCH_WHOLE);
}

/* Marks are made; only now may the rebuild count as done: who dies before leaves it to another. */
static void on_marks(void *arg, const struct err *err)
{
    struct watch *w = arg;
    FAILPOINT(dispatcher_rebuilt);
    if (err != NULL || queue_marked(w->d->queue, on_marked, w) != 0)
        enter(w, WATCH_HOLDING);
}

static void on_open(void *arg, const struct sweep_open *tenants, size_t n, const struct err *err)
{
    struct watch *w = arg;
    struct queue_mark *marks = err == NULL ? calloc(n + 1, sizeof *marks) : NULL;
    if (marks == NULL) {
        enter(w, WATCH_HOLDING);
        return;
    }
    for (size_t i = 0; i < n; i++)
        marks[i] = (struct queue_mark){.tenant = tenants[i].tenant, .low = tenants[i].oldest};
    if (n == 0)
        on_marks(w, NULL);
    else if (queue_mark(w->d->queue, marks, n, on_marks, w) != 0)
        enter(w, WATCH_HOLDING);
    free(marks);
}

static void mark(struct watch *w)
{
    enter(w, WATCH_MARKING);
    if (sweep_open_tenants(w->d->pg, audit_low(w->d->audit), DB_MS, on_open, w) != 0)
        enter(w, WATCH_HOLDING);
}

static void on_identity(void *arg, const struct queue_identity *id, const struct err *err)
{
    struct watch *w = arg;
    w->asking = false;
    if (err != NULL)
        return;
    bool same = id->epoch[0] != '\0' && !id->torn && strcmp(id->now, id->known) == 0;
    if (!same && (w->state == WATCH_UNSURE || w->state == WATCH_WHOLE || w->state == WATCH_HOLDING))
        lost(w, id);
    else if (w->state != WATCH_WHOLE && !id->hold && id->unmarked)
        mark(w);
    else if (w->state != WATCH_WHOLE && !id->hold)
        enter(w, WATCH_WHOLE);
}

static void look(void *arg)
{
    struct watch *w = arg;
    bool busy = w->state == WATCH_RESETTING || w->state == WATCH_MARKING;
    if (!w->asking && !busy && redis_connected(w->d->redis))
        w->asking = queue_identity(w->d->queue, on_identity, w) == 0;
}

struct watch *watch_new(struct dispatcher *d)
{
    struct watch *w = calloc(1, sizeof *w);
    if (w == NULL)
        return NULL;
    w->d = d;
    w->timer = loop_timer_new(d->loop, look, w);
    if (w->timer == NULL)
        watch_free(&w);
    else
        loop_timer_every(w->timer, LOOK_MS);
    return w;
}

void watch_free(struct watch **w)
{
    if (w == NULL || *w == NULL)
        return;
    loop_timer_free(&(*w)->timer);
    free(*w);
    *w = NULL;
}
