/* Secrets opened.
 *
 *   ask -> the agent's (kept, or one query that all who wait share) -> its own (a query, opened) -> answer
 *
 * A query's rows are opened only when they differ from those that were opened before: that costs more than
 * all else here. Opened values pass through one block of guarded memory and stay in others (vars.h,
 * redact.h). */
#include "secrets.h"

#include <stdlib.h>
#include <utlist.h>
#include <uthash.h>

#include "base/culprit.h"
#include "base/log.h"
#include "crypto/place.h"
#include "store/secrets.h"

enum {
    STORE_MS = 10000,
    FORGET_MS = 3000,
    SWEEP_MS = 1000,
    LOCKED_BYTES = 4 * 1024 * 1024, /* of some agents with much */
    SCRATCH_BYTES = SUBMISSION_ENV_MAX_BYTES + SUBMISSION_ENV_MAX * 8 + SEAL_PLACE_OVERHEAD_BYTES,
};

/* An agent's. */
struct agent_set {
    struct uuid agent;
    int32_t tenant;
    char slug[AGENT_SLUG_BYTES];
    bool known, asking;
    mono_t asked_at, wanted_at; /* when what is known was asked for; when somebody wanted it last */
    uint8_t print[SHA256_BYTES];
    struct vars *vars;
    struct redact_values *redact;
    struct ask *waiting;
    struct secrets *s;
    UT_hash_handle hh;
};

struct ask {
    struct ask *prev, *next; /* of those that wait for a set */
    struct secrets *s;
    struct secrets_ask q;
    char slug[AGENT_SLUG_BYTES];
    secrets_fn *fn;
    struct loop_task task;
    struct vars *secrets, *own;
    struct redact_values *redact;
};

struct secrets {
    struct executor *x;
    struct seal_private *keys; /* NULL: none */
    char *scratch;             /* guarded */
    struct agent_set *sets;
    struct loop_timer *sweep;
};

static void forget_idle(void *arg);

struct secrets *secrets_new(struct executor *x, struct err *err)
{
    struct secrets *s = calloc(1, sizeof *s);
    err_set(err, ERR_NO_MEMORY, "no memory for secrets");
    if (s == NULL)
        return NULL;
    s->x = x;
    s->scratch = crypto_guarded_new(SCRATCH_BYTES);
    s->sweep = loop_timer_new(x->loop, forget_idle, s);
    if (x->settings->env_private_key != NULL && !crypto_can_lock(LOCKED_BYTES))
        log_warn(
            "memory for secrets cannot be locked, and may be swapped out: raise the limit of locked memory "
            "(RLIMIT_MEMLOCK)");
    bool fine = s->scratch != NULL && s->sweep != NULL;
    if (fine && x->settings->env_private_key != NULL) {
        s->keys = seal_private_new(secret_reveal(x->settings->env_private_key), err);
        fine = s->keys != NULL;
    }
    if (!fine)
        secrets_free(&s);
    return s;
}

static void set_drop(struct secrets *s, struct agent_set *set)
{
    HASH_DEL(s->sets, set);
    vars_free(&set->vars);
    redact_values_free(&set->redact);
    free(set);
}

void secrets_free(struct secrets **ps)
{
    if (*ps == NULL)
        return;
    struct secrets *s = *ps;
    struct agent_set *set, *next;
    *ps = NULL;
    HASH_ITER(hh, s->sets, set, next)
    {
        set_drop(s, set);
    }
    seal_private_free(&s->keys);
    crypto_guarded_free(s->scratch);
    loop_timer_free(&s->sweep);
    free(s);
}

static void forget_idle(void *arg)
{
    struct secrets *s = arg;
    struct agent_set *set, *next;
    mono_t now = loop_now(s->x->loop);
    HASH_ITER(hh, s->sets, set, next)
    {
        if (!set->asking && set->waiting == NULL && mono_ms_between(set->wanted_at, now) > FORGET_MS)
            set_drop(s, set);
    }
    if (s->sets == NULL)
        loop_timer_stop(s->sweep);
}

void environment_free(struct environment **pe)
{
    struct environment *e = *pe;
    *pe = NULL;
    if (e == NULL)
        return;
    vars_free(&e->secrets);
    vars_free(&e->own);
    redact_values_free(&e->redact);
    free(e);
}

/* ---- opening ---- */

static void say_why(enum seal_opened got, struct str name, struct environment_failure *f)
{
    struct err text;
    f->code = ERR_JOB_SECRET;
    f->ours = got == SEAL_NO_KEY;
    if (got == SEAL_NO_KEY)
        err_set(&text, ERR_JOB_SECRET,
                "%s%.*s was sealed by a key that this executor does not have: SANDPIPER_ENV_PRIVATE_KEY_FILE "
                "names "
                "the file of its keys",
                name.n > 0 ? "secret " : "the env of the submission", STR_ARG(name));
    else
        err_set(&text, ERR_JOB_SECRET,
                "%s%.*s cannot be opened: it is damaged, or was sealed for another place; set it again",
                name.n > 0 ? "secret " : "the env of the submission", STR_ARG(name));
    str_copy(str_of(text.msg), f->message, sizeof f->message);
}

static void no_memory(struct environment_failure *f)
{
    *f = (struct environment_failure){.code = ERR_NO_MEMORY, .ours = true};
    str_copy(STR("no memory for secrets"), f->message, sizeof f->message);
}

/* The value is a view into the scratch block, to be wiped. */
static bool open_row(struct secrets *s, int32_t tenant, const char *slug, const struct secret_sealed *row,
                     struct str *value, struct environment_failure *f)
{
    const struct seal_place place = {.tenant = tenant, .agent = str_of(slug), .name = row->name};
    enum seal_opened got =
        seal_open_at(s->keys, row->key_id, &place, row->sealed, s->scratch, SCRATCH_BYTES, value);
    if (got != SEAL_OPENED)
        say_why(got, row->name, f);
    return got == SEAL_OPENED;
}

static struct vars *open_all(struct agent_set *set, const struct secret_sealed *rows, size_t n,
                             struct environment_failure *f)
{
    size_t bytes = 0;
    struct str value;
    for (size_t i = 0; i < n; i++)
        bytes += rows[i].name.n + rows[i].sealed.n;
    struct vars *vars = vars_new(n, bytes);
    if (vars == NULL) {
        no_memory(f);
        return NULL;
    }
    bool fine = true;
    for (size_t i = 0; fine && i < n; i++)
        fine = open_row(set->s, set->tenant, set->slug, &rows[i], &value, f) &&
               vars_add(vars, rows[i].name, value);
    crypto_wipe(set->s->scratch, SCRATCH_BYTES);
    if (!fine)
        vars_free(&vars);
    return vars;
}

static struct vars *open_own(struct secrets *s, const struct secrets_ask *q, const struct secret_sealed *row,
                             struct environment_failure *f)
{
    struct str rest, name, value;
    struct vars *vars = NULL;
    int more = -1;
    if (open_row(s, q->tenant, q->slug, row, &rest, f)) {
        vars = vars_new(SUBMISSION_ENV_MAX, rest.n);
        if (vars == NULL)
            no_memory(f);
        while (vars != NULL && (more = env_unpack(&rest, &name, &value)) > 0 && vars_add(vars, name, value))
            ;
        if (vars != NULL && more != 0) {
            say_why(SEAL_DAMAGED, STR(""), f);
            vars_free(&vars);
        }
    }
    crypto_wipe(s->scratch, SCRATCH_BYTES);
    return vars;
}

/* What is to be looked for: of the agent's alone it is made once for all attempts. */
static size_t list_values(const struct vars *v, struct redact_value *out)
{
    for (size_t i = 0; i < vars_count(v); i++)
        out[i] = (struct redact_value){vars_name(v, i), vars_value(v, i)};
    return vars_count(v);
}

static struct redact_values *values_of(const struct vars *a, const struct vars *b)
{
    struct redact_value list[SECRETS_MAX + SUBMISSION_ENV_MAX];
    size_t n = list_values(a, list);
    n += list_values(b, list + n);
    return redact_values_new(list, n);
}

/* ---- answers ---- */

static void ask_end(struct ask *a, struct environment *e, const struct environment_failure *f)
{
    struct executor *x = a->s->x;
    secrets_fn *fn = a->fn;
    struct uuid job = a->q.job;
    int16_t attempt = a->q.attempt;
    vars_free(&a->q.have);
    vars_free(&a->own);
    vars_free(&a->secrets);
    redact_values_free(&a->redact);
    free(a);
    fn(x, job, attempt, e, f);
}

static void answer(struct ask *a)
{
    struct environment_failure f;
    struct environment *e = NULL;
    if (vars_count(a->secrets) == 0 && vars_count(a->own) == 0) {
        ask_end(a, NULL, NULL);
        return;
    }
    if (a->redact == NULL)
        a->redact = values_of(a->secrets, a->own);
    if (a->redact != NULL)
        e = calloc(1, sizeof *e);
    if (e == NULL) {
        no_memory(&f);
        ask_end(a, NULL, &f);
        return;
    }
    e->secrets = vars_keep(a->secrets);
    e->own = vars_keep(a->own);
    e->redact = redact_values_keep(a->redact);
    ask_end(a, e, NULL);
}

static void unavailable(struct ask *a, const struct err *err)
{
    struct environment_failure f = {.code = ERR_UNAVAILABLE, .ours = true};
    str_copy(str_of(err->msg), f.message, sizeof f.message);
    ask_end(a, NULL, &f);
}

static void on_own(void *arg, const struct secret_sealed *list, size_t n, const struct err *err)
{
    struct ask *a = arg;
    struct environment_failure f = {.code = ERR_NONE};
    CULPRIT(a->q.job);
    if (err != NULL) {
        unavailable(a, err);
        return;
    }
    if (n == 1)
        a->own = open_own(a->s, &a->q, &list[0], &f);
    else
        say_why(SEAL_DAMAGED, STR(""), &f); /* its row is gone */
    if (a->own != NULL)
        answer(a);
    else
        ask_end(a, NULL, &f);
}

/* The agent's are known. From here on the set may go. */
static void go_on(struct ask *a, struct agent_set *set)
{
    struct err err = ERR_INIT;
    a->secrets = vars_keep(set->vars);
    if (!a->q.own && set->redact == NULL && vars_count(set->vars) > 0)
        set->redact = values_of(set->vars, NULL);
    if (!a->q.own && set->redact != NULL)
        a->redact = redact_values_keep(set->redact);
    a->own = vars_keep(a->q.have);
    if (!a->q.own || a->own != NULL)
        answer(a);
    else if (secrets_of_invocation(a->s->x->read, a->q.tenant, a->q.job, STORE_MS, on_own, a, &err) != 0)
        unavailable(a, &err);
}

/* ---- an agent's ---- */

static void print_of(const struct secret_sealed *rows, size_t n, uint8_t out[SHA256_BYTES])
{
    struct crypto_sha256_state h;
    crypto_sha256_init(&h);
    for (size_t i = 0; i < n; i++) {
        crypto_sha256_update(&h, rows[i].name);
        crypto_sha256_update(&h, STR("="));
        crypto_sha256_update(&h, rows[i].key_id); /* of one length, and so is what a seal adds */
        crypto_sha256_update(&h, rows[i].sealed);
    }
    crypto_sha256_final(&h, out);
}

/* False, and why: they cannot be opened. */
static bool learn(struct agent_set *set, const struct secret_sealed *rows, size_t n,
                  struct environment_failure *f)
{
    uint8_t print[SHA256_BYTES];
    struct vars *vars = NULL;
    print_of(rows, n, print);
    if (set->known && memcmp(print, set->print, sizeof print) == 0)
        return true;
    if (n > 0 && (vars = open_all(set, rows, n, f)) == NULL)
        return false;
    vars_free(&set->vars);
    redact_values_free(&set->redact);
    set->vars = vars;
    memcpy(set->print, print, sizeof print);
    return true;
}

static void on_rows(void *arg, const struct secret_sealed *list, size_t n, const struct err *err)
{
    struct agent_set *set = arg;
    struct environment_failure f = {.code = ERR_NONE};
    struct ask *a, *next, *waiting = set->waiting;
    set->asking = false;
    set->waiting = NULL;
    set->known = err == NULL && learn(set, list, n, &f);
    DL_FOREACH_SAFE(waiting, a, next)
    {
        CULPRIT(a->q.job);
        if (err != NULL)
            unavailable(a, err);
        else if (set->known)
            go_on(a, set);
        else
            ask_end(a, NULL, &f);
    }
}

static void ask_rows(struct secrets *s, struct agent_set *set)
{
    struct err err = ERR_INIT;
    if (set->asking)
        return;
    set->asking = true;
    set->asked_at = loop_now(s->x->loop);
    if (secrets_get(s->x->read, set->tenant, set->agent, STORE_MS, on_rows, set, &err) != 0)
        on_rows(set, NULL, 0, &err);
}

static struct agent_set *set_of(struct secrets *s, int32_t tenant, struct uuid agent, const char *slug)
{
    struct agent_set *set;
    HASH_FIND(hh, s->sets, &agent, sizeof agent, set);
    if (set == NULL) {
        set = calloc(1, sizeof *set);
        INVARIANT(set != NULL); /* bounded by the jobs of this process in some seconds */
        *set = (struct agent_set){.agent = agent, .tenant = tenant, .s = s};
        str_copy(str_of(slug), set->slug, sizeof set->slug);
        HASH_ADD(hh, s->sets, agent, sizeof set->agent, set);
        if (!loop_timer_active(s->sweep))
            loop_timer_every(s->sweep, SWEEP_MS);
    }
    set->wanted_at = loop_now(s->x->loop);
    return set;
}

static bool is_fresh(const struct secrets *s, const struct agent_set *set)
{
    return set->known && mono_ms_between(set->asked_at, loop_now(s->x->loop)) < SECRETS_FRESH_MS;
}

bool secrets_none(struct secrets *s, struct uuid agent)
{
    struct agent_set *set;
    HASH_FIND(hh, s->sets, &agent, sizeof agent, set);
    return set != NULL && is_fresh(s, set) && vars_count(set->vars) == 0;
}

static void begin(void *arg)
{
    struct ask *a = arg;
    struct agent_set *set = set_of(a->s, a->q.tenant, a->q.agent, a->slug);
    if (is_fresh(a->s, set)) {
        CULPRIT(a->q.job);
        go_on(a, set);
        return;
    }
    DL_APPEND(set->waiting, a);
    ask_rows(a->s, set);
}

void secrets_get_for(struct secrets *s, const struct secrets_ask *ask, secrets_fn *fn)
{
    struct ask *a = calloc(1, sizeof *a);
    INVARIANT(a != NULL); /* bounded by the jobs of this process */
    *a = (struct ask){.s = s, .q = *ask, .fn = fn};
    str_copy(str_of(ask->slug), a->slug, sizeof a->slug);
    a->q.slug = a->slug;
    vars_keep(a->q.have);
    loop_task_post(s->x->loop, &a->task, begin, a);
}

void secrets_warm(struct secrets *s, int32_t tenant, struct uuid agent, const char *slug)
{
    struct agent_set *set = set_of(s, tenant, agent, slug);
    if (!is_fresh(s, set))
        ask_rows(s, set);
}
