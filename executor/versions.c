/* Agent versions, cached. */
#include "versions.h"

#include <stdlib.h>
#include <uthash.h>

#include "store/agents.h"

enum { STORE_MS = 10000 };

struct version_key {
    struct uuid agent;
    int32_t version;
};

struct cached {
    struct version_key key;
    struct version v;
    UT_hash_handle hh;
};

struct versions {
    struct executor *x;
    struct cached *known;
};

/* One question: answered from the cache in a task, or by a query. */
struct ask {
    struct versions *vs;
    struct version_key key;
    struct uuid asker;
    version_fn *fn;
    struct loop_task task;
};

struct versions *versions_new(struct executor *x)
{
    struct versions *vs = calloc(1, sizeof *vs);
    if (vs != NULL)
        vs->x = x;
    return vs;
}

static void drop(struct versions *vs, struct cached *c)
{
    HASH_DEL(vs->known, c);
    free(c);
}

void versions_free(struct versions **vs)
{
    if (vs == NULL || *vs == NULL)
        return;
    while ((*vs)->known != NULL)
        drop(*vs, (*vs)->known);
    free(*vs);
    *vs = NULL;
}

static struct cached *find(struct versions *vs, const struct version_key *key)
{
    struct cached *c;
    HASH_FIND(hh, vs->known, key, sizeof *key, c);
    return c;
}

static void remember(struct versions *vs, const struct version_key *key, const struct version *v)
{
    if (HASH_COUNT(vs->known) >= VERSIONS_MAX)
        drop(vs, vs->known);
    struct cached *c = calloc(1, sizeof *c);
    if (c == NULL)
        return; /* only a cache */
    c->key = *key;
    c->v = *v;
    HASH_ADD(hh, vs->known, key, sizeof c->key, c);
}

static void copy(const struct agent_version *from, struct version *to)
{
    *to = (struct version){.id = from->id,
                           .agent = from->agent,
                           .tenant = from->tenant,
                           .version = from->version,
                           .status = from->status,
                           .archive_bytes = from->archive_bytes};
    str_copy(from->slug, to->slug, sizeof to->slug);
    str_copy(from->runtime, to->runtime, sizeof to->runtime);
    str_copy(from->entry, to->entry, sizeof to->entry);
    str_copy(from->install, to->install, sizeof to->install);
    str_copy(from->snapshot, to->snapshot, sizeof to->snapshot);
}

static void on_version(void *arg, bool found, const struct agent_version *row, const struct err *err)
{
    struct ask *a = arg;
    struct version v;
    if (found) {
        copy(row, &v);
        if (v.status != AGENT_BUILDING && find(a->vs, &a->key) == NULL)
            remember(a->vs, &a->key, &v);
    }
    a->fn(a->vs->x, a->asker, found ? &v : NULL, err);
    free(a);
}

static void answer(void *arg)
{
    struct ask *a = arg;
    struct err err = ERR_INIT;
    struct cached *c = find(a->vs, &a->key);
    if (c != NULL) {
        struct version v = c->v; /* the callee may ask again and drop it */
        a->fn(a->vs->x, a->asker, &v, NULL);
        free(a);
        return;
    }
    if (agent_version_get(a->vs->x->read, a->key.agent, a->key.version, STORE_MS, on_version, a, &err) == 0)
        return;
    a->fn(a->vs->x, a->asker, NULL, &err);
    free(a);
}

void version_get(struct versions *vs, struct uuid agent, int32_t version, struct uuid asker, version_fn *fn)
{
    struct ask *a = calloc(1, sizeof *a);
    INVARIANT(a != NULL); /* bounded by the jobs of this process */
    *a = (struct ask){.vs = vs, .asker = asker, .fn = fn};
    a->key.agent = agent;
    a->key.version = version;
    loop_task_post(vs->x->loop, &a->task, answer, a);
}
