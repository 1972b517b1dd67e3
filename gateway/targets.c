/* Agent slugs resolved. */
#include "targets.h"

#include <stdlib.h>
#include <uthash.h>

struct target_key {
    int32_t tenant, version;
    char slug[AGENT_SLUG_BYTES]; /* zero-padded: the whole struct is the key */
};

struct cached {
    struct target_key key;
    struct agent_target target;
    mono_t until;
    UT_hash_handle hh;
};

struct targets {
    struct gateway *g;
    struct cached *known;
};

struct lookup {
    struct targets *t;
    struct call *c;
    struct target_key key;
    target_fn *fn;
};

struct targets *targets_new(struct gateway *g)
{
    struct targets *t = calloc(1, sizeof *t);
    if (t != NULL)
        t->g = g;
    return t;
}

static void drop(struct targets *t, struct cached *k)
{
    HASH_DEL(t->known, k);
    free(k);
}

void targets_free(struct targets **t)
{
    if (t == NULL || *t == NULL)
        return;
    struct cached *k, *next;
    HASH_ITER(hh, (*t)->known, k, next)
    {
        drop(*t, k);
    }
    free(*t);
    *t = NULL;
}

static void remember(struct targets *t, const struct target_key *key, const struct agent_target *target)
{
    struct cached *k;
    HASH_FIND(hh, t->known, key, sizeof *key, k);
    if (k != NULL)
        drop(t, k);
    if (HASH_COUNT(t->known) >= TARGET_CACHE)
        drop(t, t->known);
    k = calloc(1, sizeof *k);
    if (k == NULL)
        return; /* only a cache */
    k->key = *key;
    k->target = *target;
    k->until = mono_add_ms(loop_now(t->g->loop), TARGET_CACHE_MS);
    HASH_ADD(hh, t->known, key, sizeof k->key, k);
}

static void on_resolved(void *arg, const struct agent_target *target, const struct err *err)
{
    struct lookup *l = arg;
    struct call *c = l->c;
    target_fn *fn = l->fn;
    if (err == NULL && target->found && target->ready)
        remember(l->t, &l->key, target);
    free(l);
    if (call_leave(c))
        fn(c, target, err);
}

void targets_forget(struct targets *t, int32_t tenant, struct str slug)
{
    struct cached *k, *next;
    HASH_ITER(hh, t->known, k, next)
    {
        if (k->key.tenant == tenant && str_eq_c(slug, k->key.slug))
            drop(t, k);
    }
}

void target_resolve(struct targets *t, struct call *c, struct str slug, int32_t version, target_fn *fn)
{
    struct target_key key = {.tenant = c->tenant, .version = version};
    memcpy(key.slug, slug.p, slug.n); /* agent_ref_parse has checked the length */
    struct cached *k;
    HASH_FIND(hh, t->known, &key, sizeof key, k);
    if (k != NULL && mono_before(loop_now(t->g->loop), k->until)) {
        fn(c, &k->target, NULL);
        return;
    }
    struct err err = ERR_INIT;
    struct lookup *l = calloc(1, sizeof *l);
    if (l != NULL) {
        *l = (struct lookup){.t = t, .c = c, .key = key, .fn = fn};
        call_enter(c);
        if (agent_resolve(t->g->read, c->tenant, slug, version, 5000, on_resolved, l, &err) == 0)
            return;
        free(l);
        call_leave(c);
    } else {
        err_set(&err, ERR_NO_MEMORY, "no memory");
    }
    fn(c, NULL, &err);
}
