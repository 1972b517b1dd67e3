/* Agent versions, cached. A manifest is some KiB, and thousands of jobs may run one version: they share it.
 */
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

/* ---- manifests ---- */

struct shared {
    struct manifest manifest; /* first: a version leads here */
    struct git_source git;
    int copies;
};

/* Of versions from before manifests were kept: what their columns say. */
static int read_manifest(const struct agent_version *row, struct manifest *out, struct err *err)
{
    if (row->manifest.n > 0)
        return manifest_read(row->manifest, out, err);
    *out = (struct manifest){0};
    if (str_copy(row->runtime, out->runtime, sizeof out->runtime) &&
        str_copy(row->entry, out->entry, sizeof out->entry) &&
        str_copy(row->install, out->install, sizeof out->install))
        return 0;
    return err_set(err, ERR_INTERNAL, "the version's row is damaged");
}

static int share(const struct agent_version *row, struct version *to, struct err *err)
{
    struct shared *s = calloc(1, sizeof *s);
    if (s == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory for a manifest");
    s->copies = 1;
    if (read_manifest(row, &s->manifest, err) != 0 ||
        (row->git_url.n > 0 && git_source_read(row->git_url, row->git_ref, &s->git, err) != 0)) {
        free(s);
        return -1;
    }
    to->manifest = &s->manifest;
    to->git = row->git_url.n > 0 ? &s->git : NULL;
    return 0;
}

bool version_describe(struct version *v, const struct manifest *manifest)
{
    struct shared *s = calloc(1, sizeof *s);
    if (s == NULL)
        return false;
    s->copies = 1;
    s->manifest = *manifest;
    if (v->git != NULL)
        s->git = *v->git;
    bool git = v->git != NULL;
    version_drop(v);
    v->manifest = &s->manifest;
    v->git = git ? &s->git : NULL;
    return true;
}

void version_keep(struct version *to, const struct version *v)
{
    *to = *v;
    ((struct shared *)v->manifest)->copies++;
}

void version_drop(struct version *v)
{
    struct shared *s = (struct shared *)v->manifest;
    v->manifest = NULL;
    v->git = NULL;
    if (s != NULL && --s->copies == 0)
        free(s);
}

/* ---- the cache ---- */

static void drop(struct versions *vs, struct cached *c)
{
    HASH_DEL(vs->known, c);
    version_drop(&c->v);
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
    version_keep(&c->v, v);
    HASH_ADD(hh, vs->known, key, sizeof c->key, c);
}

static int read_version(const struct agent_version *from, struct version *to, struct err *err)
{
    *to = (struct version){.id = from->id,
                           .agent = from->agent,
                           .tenant = from->tenant,
                           .version = from->version,
                           .status = from->status,
                           .from_template = from->from_template,
                           .archive_bytes = from->archive_bytes};
    str_copy(from->slug, to->slug, sizeof to->slug);
    str_copy(from->snapshot, to->snapshot, sizeof to->snapshot);
    return share(from, to, err) == 0 ? 0 : err_wrap(err, "version %d", from->version);
}

static void on_version(void *arg, bool found, const struct agent_version *row, const struct err *err)
{
    struct ask *a = arg;
    struct version v = {0};
    struct err bad = ERR_INIT;
    if (found && read_version(row, &v, &bad) != 0)
        err = &bad;
    else if (found && v.status != AGENT_BUILDING && find(a->vs, &a->key) == NULL)
        remember(a->vs, &a->key, &v);
    a->fn(a->vs->x, a->asker, err == NULL && found ? &v : NULL, err);
    version_drop(&v);
    free(a);
}

static void answer(void *arg)
{
    struct ask *a = arg;
    struct err err = ERR_INIT;
    struct cached *c = find(a->vs, &a->key);
    if (c != NULL) {
        struct version v; /* the callee may ask again and drop the cached one */
        version_keep(&v, &c->v);
        a->fn(a->vs->x, a->asker, &v, NULL);
        version_drop(&v);
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
