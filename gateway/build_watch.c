/* Watched logs. A look is one query about the versions that are watched when it begins; its answer is held
 * against those that watch when it comes. While PostgreSQL is away nothing is told: its watchers go on
 * waiting, until their time is up. */
#include "build_watch.h"

#include <stdlib.h>
#include <utlist.h>

#include "base/log.h"
#include "store/build_logs.h"

enum { LOOK_MS = 300, STORE_MS = 5000 };

struct build_watch {
    struct gateway *g;
    struct build_watcher *list;
    struct loop_timer *timer;
    bool looking, failing;
};

static void look(void *arg);

struct build_watch *build_watch_new(struct gateway *g)
{
    struct build_watch *w = calloc(1, sizeof *w);
    if (w == NULL)
        return NULL;
    w->g = g;
    w->timer = loop_timer_new(g->loop, look, w);
    if (w->timer == NULL)
        build_watch_free(&w);
    return w;
}

void build_watch_free(struct build_watch **w)
{
    if (w == NULL || *w == NULL)
        return;
    loop_timer_free(&(*w)->timer);
    free(*w);
    *w = NULL;
}

void build_watch_add(struct build_watch *w, struct build_watcher *watcher)
{
    INVARIANT(!watcher->watching);
    watcher->watching = true;
    DL_APPEND(w->list, watcher);
    if (!w->looking && !loop_timer_active(w->timer))
        loop_timer_start(w->timer, LOOK_MS);
}

void build_watch_remove(struct build_watch *w, struct build_watcher *watcher)
{
    if (!watcher->watching)
        return;
    watcher->watching = false;
    DL_DELETE(w->list, watcher);
}

static void tell(struct build_watch *w, struct build_watcher *watcher, const struct build_news *news)
{
    build_watch_remove(w, watcher);
    watcher->fn(watcher->arg, news);
}

static void tell_those_whose_time_is_up(struct build_watch *w)
{
    struct build_watcher *watcher, *next;
    DL_FOREACH_SAFE(w->list, watcher, next)
    {
        if (w->g->draining || !mono_before(loop_now(w->g->loop), watcher->until))
            tell(w, watcher, &(struct build_news){.over = true});
    }
}

static int compare(const void *a, const void *b)
{
    return uuid_cmp(*(const struct uuid *)a, *(const struct uuid *)b);
}

/* The watched versions, each once, in order. */
static size_t collect(const struct build_watch *w, struct uuid versions[BUILD_LOG_SIZES_MAX])
{
    size_t all = 0, n = 0;
    const struct build_watcher *watcher;
    DL_FOREACH(w->list, watcher)
    {
        if (all == BUILD_LOG_SIZES_MAX) /* followers are fewer (build_log.c) */
            break;
        versions[all++] = watcher->version;
    }
    qsort(versions, all, sizeof *versions, compare);
    for (size_t i = 0; i < all; i++)
        if (n == 0 || !uuid_eq(versions[n - 1], versions[i]))
            versions[n++] = versions[i];
    return n;
}

static const struct build_log_size *find(const struct build_log_size *sizes, size_t n, struct uuid version)
{
    for (size_t i = 0; i < n; i++)
        if (uuid_eq(sizes[i].version, version))
            return &sizes[i];
    return NULL;
}

static void on_sizes(void *arg, const struct build_log_size *sizes, size_t n, const struct err *err)
{
    struct build_watch *w = arg;
    struct build_watcher *watcher, *next;
    w->looking = false;
    if (err != NULL && !w->failing)
        log_warn("logs of builds that are watched cannot be looked at; trying again", LF_ERR(err));
    w->failing = err != NULL;
    DL_FOREACH_SAFE(w->list, watcher, next)
    {
        const struct build_log_size *s = err == NULL ? find(sizes, n, watcher->version) : NULL;
        if (s != NULL && (s->bytes > watcher->seen || !s->building))
            tell(w, watcher, &(struct build_news){.bytes = s->bytes, .building = s->building});
    }
    if (w->list != NULL)
        loop_timer_start(w->timer, LOOK_MS);
}

static void look(void *arg)
{
    struct build_watch *w = arg;
    struct uuid versions[BUILD_LOG_SIZES_MAX];
    tell_those_whose_time_is_up(w);
    size_t n = collect(w, versions);
    if (n == 0)
        return;
    w->looking = true;
    if (build_log_sizes(w->g->read, versions, n, STORE_MS, on_sizes, w, NULL) == 0)
        return;
    w->looking = false;
    loop_timer_start(w->timer, LOOK_MS);
}
