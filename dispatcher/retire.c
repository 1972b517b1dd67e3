/* Retiring (retire.h). A pass:
 *
 *   what deleted agents have left dropped as far as nothing needs it -> what is too many retired -> the
 * retired ones that still have a snapshot, when the grace is over -> a walk over the invocations since the
 * oldest of them, page by page, that strikes off those which an open one has
 * -> snapshots deleted -> archives dropped
 *
 * There is no index of invocations by version: every submission would pay for it. So the walk, which happens
 * only when there is something to do away with. The grace is what a submission may take from the look at the
 * version to its commit. A pass that breaks off anywhere is begun again by the next. */
#include "retire.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "lead.h"
#include "store/retire.h"

enum {
    PASS_MAX_MS = 60000,
    PASS_MIN_MS = 200,
    AT_ONCE = 20,
    SNAPSHOT_BYTES = 128,
    DELETE_MS = 60000,
    LIST_MS = 60000,
    ORPHANS_AT_ONCE = 100,
    ORPHANS_GRACES = 6,   /* an hour by default */
    SKEW_MS = 120 * 1000, /* clocks of gateways are within a minute of PostgreSQL's */
};

struct candidate {
    struct uuid id;
    char snapshot[SNAPSHOT_BYTES];
};

struct retire {
    struct dispatcher *d;
    struct loop_timer *timer, *orphans;
    bool running, unlisted; /* the service has no list of snapshots: said once */
    struct candidate list[AT_ONCE];
    size_t n;
    size_t orphans_from; /* of our snapshots, as they are listed: where the next look begins */
};

/* ---- the end of one ---- */

struct deletion {
    struct retire *r;
    struct uuid version;
};

static void on_gone(void *arg, const struct err *err)
{
    (void)arg;
    if (err != NULL)
        log_warn("a retired version could not be struck off; the next pass will", LF_ERR(err));
}

static void on_deleted(void *arg, const struct sandbox_failure *failure)
{
    struct deletion *x = arg;
    char id[UUID_TEXT_BYTES];
    uuid_format(x->version, id);
    if (failure != NULL)
        log_warn("a snapshot could not be deleted; the next pass will", LF_STR("version", id),
                 LF_ERR(&failure->err));
    else if (!uuid_is_zero(x->version))
        retired_gone(x->r->d->pg, x->version, DB_MS, on_gone, NULL);
    free(x);
}

/* version zero: no version has it. */
static void delete_snapshot(struct retire *r, const char *snapshot, struct uuid version)
{
    struct deletion *x = malloc(sizeof *x);
    if (x == NULL)
        return;
    *x = (struct deletion){.r = r, .version = version};
    log_info("deleting a snapshot", LF_STR("snapshot", snapshot));
    if (sandbox_snapshot_delete(r->d->provider, snapshot, DELETE_MS, on_deleted, x) == NULL)
        free(x);
}

/* ---- a pass ---- */

static void pass_end(struct retire *r)
{
    r->running = false;
    r->n = 0;
}

static void walk(struct retire *r, struct uuid from);

static void strike_off(struct retire *r, struct uuid version)
{
    for (size_t i = 0; i < r->n; i++)
        if (uuid_eq(r->list[i].id, version))
            r->list[i] = r->list[--r->n];
}

static void on_used(void *arg, struct uuid next, const struct uuid *used, size_t n, const struct err *err)
{
    struct retire *r = arg;
    if (err != NULL || !leading(r->d->lead)) {
        pass_end(r);
        return;
    }
    for (size_t i = 0; i < n; i++)
        strike_off(r, used[i]);
    if (!uuid_is_zero(next) && r->n > 0) {
        walk(r, next);
        return;
    }
    for (size_t i = 0; i < r->n; i++)
        delete_snapshot(r, r->list[i].snapshot, r->list[i].id);
    pass_end(r);
}

static void walk(struct retire *r, struct uuid from)
{
    struct uuid ids[AT_ONCE];
    for (size_t i = 0; i < r->n; i++)
        ids[i] = r->list[i].id;
    if (retired_used(r->d->pg, ids, r->n, from, DB_MS, on_used, r) != 0)
        pass_end(r);
}

/* A version's invocations are younger than its own id. */
static void on_list(void *arg, const struct retired *list, size_t n, const struct err *err)
{
    struct retire *r = arg;
    struct uuid oldest = {{0}};
    (void)err;
    for (size_t i = 0; i < n && i < AT_ONCE; i++) {
        struct candidate *c = &r->list[r->n];
        if (!str_copy(list[i].snapshot, c->snapshot, sizeof c->snapshot))
            continue;
        c->id = list[i].id;
        if (r->n++ == 0 || uuid_cmp(c->id, oldest) < 0)
            oldest = c->id;
    }
    if (r->n == 0)
        pass_end(r);
    else
        walk(r, uuid_floor((wall_t){.us = uuid_time(oldest).us - SKEW_MS * 1000LL}));
}

static void on_retired(void *arg, int count, const struct err *err)
{
    struct retire *r = arg;
    if (err != NULL)
        log_warn("retiring old versions failed; the next pass will", LF_ERR(err));
    if (count > 0)
        log_info("old versions of agents are retired", LF_INT("versions", count));
    if (retired_list(r->d->pg, r->d->settings->retire_grace_ms, AT_ONCE, DB_MS, on_list, r) != 0)
        pass_end(r);
}

static void on_left(void *arg, int count, const struct err *err)
{
    (void)arg;
    if (err != NULL)
        log_warn("dropping what deleted agents left failed; the next pass will", LF_ERR(err));
    if (count > 0)
        log_info("what deleted agents left is dropped", LF_INT("secrets_and_builds", count));
}

static void pass(void *arg)
{
    struct retire *r = arg;
    if (r->running || !leading(r->d->lead))
        return;
    r->running = true;
    retired_left(r->d->pg, DB_MS, on_left, NULL);
    if (retire_versions(r->d->pg, (int)r->d->settings->keep_versions, DB_MS, on_retired, r) != 0)
        pass_end(r);
}

/* ---- snapshots that no version has ---- */

struct look {
    struct retire *r;
    size_t n;
    struct uuid versions[ORPHANS_AT_ONCE];
    struct str ids[ORPHANS_AT_ONCE];
    char texts[ORPHANS_AT_ONCE][SNAPSHOT_BYTES];
};

static void on_orphaned(void *arg, const bool *orphaned, size_t n, const struct err *err)
{
    struct look *l = arg;
    for (size_t i = 0; err == NULL && i < n && leading(l->r->d->lead); i++)
        if (orphaned[i])
            delete_snapshot(l->r, l->texts[i], (struct uuid){{0}});
    free(l);
}

/* "<deployment>-<version>". */
static bool is_ours(const struct retire *r, const char *name, struct uuid *version_out)
{
    struct str text = str_of(name);
    struct uuid deployment;
    enum { ID = UUID_TEXT_BYTES - 1 };
    return text.n == 2 * ID + 1 && text.p[ID] == '-' && uuid_parse(str_make(text.p, ID), &deployment) &&
           uuid_eq(deployment, r->d->deployment) && uuid_parse(str_make(text.p + ID + 1, ID), version_out);
}

static void on_snapshots(void *arg, const struct snapshot_listed *items, size_t count,
                         const struct sandbox_failure *failure)
{
    struct retire *r = arg;
    if (failure != NULL && !r->unlisted)
        log_warn("listing snapshots failed: those that no version has stay", LF_ERR(&failure->err));
    r->unlisted = failure != NULL;
    struct look *l = failure == NULL ? calloc(1, sizeof *l) : NULL;
    if (l == NULL)
        return;
    l->r = r;
    size_t ours = 0;
    for (size_t i = 0; i < count && l->n < ORPHANS_AT_ONCE; i++) {
        if (!is_ours(r, items[i].name, &l->versions[l->n]) || ours++ < r->orphans_from ||
            !str_copy(str_of(items[i].id), l->texts[l->n], sizeof l->texts[0]))
            continue;
        l->ids[l->n] = str_of(l->texts[l->n]);
        l->n++;
    }
    r->orphans_from = l->n == ORPHANS_AT_ONCE ? r->orphans_from + ORPHANS_AT_ONCE : 0;
    if (l->n == 0 || snapshots_orphaned(r->d->pg, l->versions, l->ids, l->n, DB_MS, on_orphaned, l) != 0)
        free(l);
}

static void look_for_orphans(void *arg)
{
    struct retire *r = arg;
    if (leading(r->d->lead))
        sandbox_snapshots(r->d->provider, LIST_MS, on_snapshots, r);
}

/* ---- life ---- */

static int64_t pass_ms(const struct dispatcher *d)
{
    int64_t ms = d->settings->retire_grace_ms / 10;
    return ms < PASS_MIN_MS ? PASS_MIN_MS : ms > PASS_MAX_MS ? PASS_MAX_MS : ms;
}

struct retire *retire_new(struct dispatcher *d)
{
    struct retire *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    r->d = d;
    r->timer = loop_timer_new(d->loop, pass, r);
    r->orphans = loop_timer_new(d->loop, look_for_orphans, r);
    if (r->timer == NULL || r->orphans == NULL) {
        retire_free(&r);
        return NULL;
    }
    loop_timer_every(r->timer, pass_ms(d));
    loop_timer_every(r->orphans, d->settings->retire_grace_ms * ORPHANS_GRACES);
    return r;
}

void retire_free(struct retire **r)
{
    if (r == NULL || *r == NULL)
        return;
    loop_timer_free(&(*r)->timer);
    loop_timer_free(&(*r)->orphans);
    free(*r);
    *r = NULL;
}
