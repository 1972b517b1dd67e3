/* Housekeeping. */
#include "housekeeping.h"

#include <stdlib.h>

#include "base/log.h"
#include "store/files.h"
#include "store/sweep.h"

enum { PARTITIONS_MS = 3600 * 1000, EXPIRED_MS = 60 * 1000, FILES_MS = 30 * 1000, DEADLINE_MS = 120 * 1000 };

struct housekeeping {
    struct dispatcher *d;
    struct loop_timer *partitions, *expired, *files;
};

static void on_partitions(void *arg, const struct err *err)
{
    struct housekeeping *h = arg;
    if (err == NULL)
        return;
    log_warn("making partitions failed; trying again in a minute", LF_ERR(err));
    loop_timer_start(h->partitions, EXPIRED_MS);
}

static void partitions(void *arg)
{
    struct housekeeping *h = arg;
    loop_timer_start(h->partitions, PARTITIONS_MS);
    sweep_partitions(h->d->pg, DEADLINE_MS, on_partitions, h);
}

static void on_expired(void *arg, const struct err *err)
{
    (void)arg;
    if (err != NULL)
        log_warn("dropping what has expired failed", LF_ERR(err));
}

static void expired(void *arg)
{
    struct housekeeping *h = arg;
    sweep_expired(h->d->pg, DEADLINE_MS, on_expired, h);
}

static void on_files(void *arg, const struct err *err)
{
    (void)arg;
    if (err != NULL)
        log_warn("dropping files that belong to nothing failed", LF_ERR(err));
}

static void files(void *arg)
{
    struct housekeeping *h = arg;
    loop_timer_start(h->files, FILES_MS);
    file_sets_sweep(h->d->pg, DEADLINE_MS, on_files, h);
}

struct housekeeping *housekeeping_new(struct dispatcher *d)
{
    struct housekeeping *h = calloc(1, sizeof *h);
    if (h == NULL)
        return NULL;
    h->d = d;
    h->partitions = loop_timer_new(d->loop, partitions, h);
    h->expired = loop_timer_new(d->loop, expired, h);
    h->files = loop_timer_new(d->loop, files, h);
    if (h->partitions == NULL || h->expired == NULL || h->files == NULL) {
        housekeeping_free(&h);
        return NULL;
    }
    loop_timer_start(h->partitions, 0);
    loop_timer_start(h->files, 0);
    loop_timer_every(h->expired, EXPIRED_MS);
    return h;
}

void housekeeping_free(struct housekeeping **h)
{
    if (h == NULL || *h == NULL)
        return;
    loop_timer_free(&(*h)->partitions);
    loop_timer_free(&(*h)->expired);
    loop_timer_free(&(*h)->files);
    free(*h);
    *h = NULL;
}
