/* Ends that the dispatcher writes itself. */
#include "verdicts.h"

#include <stdlib.h>

#include "base/failpoint.h"
#include "base/log.h"

enum { SETTLE_MS = 60000, WAITING_BYTES = 64 * 1024 * 1024 };

struct verdict {
    struct outcome outcome; /* first: the settler hands it back */
    verdict_fn *fn;
    void *arg;
    char sandbox[SANDBOX_ID_BYTES];
    char reason[64];
};

struct verdicts {
    struct dispatcher *d;
    struct settler *settler;
};

static void on_settled(void *arg, struct outcome *o, const struct err *err)
{
    struct verdicts *vs = arg;
    struct verdict *v = (struct verdict *)o;
    FAILPOINT(dispatcher_verdict_done);
    if (err != NULL)
        log_warn("an end could not be recorded; the next pass will try again", LF_ERR(err));
    if (err == NULL && o->won && o->what == OUTCOME_RESULT) {
        struct buf done;
        buf_init(&done, 64);
        queue_done_put(&done, o->row.key, o->state, o->hooked);
        queue_release(vs->d->queue, vs->d->boot, NULL, 0, buf_view(&done), NULL, NULL);
        buf_deinit(&done);
    }
    if (v->fn != NULL)
        v->fn(v->arg, err == NULL && o->won, err);
    free(v);
}

struct verdicts *verdicts_new(struct dispatcher *d)
{
    struct verdicts *vs = calloc(1, sizeof *vs);
    if (vs == NULL)
        return NULL;
    vs->d = d;
    vs->settler = settler_new(d->loop, d->settle_pg, d->settle_pg, on_settled, vs, WAITING_BYTES);
    if (vs->settler == NULL)
        verdicts_free(&vs);
    return vs;
}

void verdicts_free(struct verdicts **vs)
{
    if (vs == NULL || *vs == NULL)
        return;
    settler_free(&(*vs)->settler);
    free(*vs);
    *vs = NULL;
}

static struct verdict *begin(struct verdicts *vs, const struct entry *job, verdict_fn *fn, void *arg)
{
    struct verdict *v = calloc(1, sizeof *v);
    if (v == NULL)
        return NULL;
    v->fn = fn;
    v->arg = arg;
    v->outcome = (struct outcome){.row.key = job->id,
                                  .tenant = job->tenant,
                                  .agent = job->agent,
                                  .attempt = job->attempt,
                                  .boot = vs->d->boot,
                                  .finished_at = wall_now(),
                                  .cpu_ms = -1,
                                  .peak_memory_bytes = -1};
    return v;
}

static void put(struct verdicts *vs, struct verdict *v, verdict_fn *fn, void *arg)
{
    struct err err;
    FAILPOINT(dispatcher_verdict);
    if (v == NULL)
        err_set(&err, ERR_NO_MEMORY, "no memory");
    else if (settle_put(vs->settler, &v->outcome, SETTLE_MS, &err) == 0)
        return;
    free(v);
    if (fn != NULL)
        fn(arg, false, &err);
}

void verdict_result(struct verdicts *vs, const struct entry *job, struct uuid executor, enum inv_state state,
                    enum err_code code, verdict_fn *fn, void *arg)
{
    struct verdict *v = begin(vs, job, fn, arg);
    if (v != NULL) {
        v->outcome.what = OUTCOME_RESULT;
        v->outcome.executor = executor;
        v->outcome.state = state;
        v->outcome.error = code;
        v->outcome.error_message = str_of(code != ERR_NONE ? err_public_text(code) : NULL);
    }
    put(vs, v, fn, arg);
}

void verdict_retry(struct verdicts *vs, const struct entry *job, struct uuid executor, const char *reason,
                   int reruns, int blames, wall_t not_before, verdict_fn *fn, void *arg)
{
    struct verdict *v = begin(vs, job, fn, arg);
    if (v != NULL) {
        str_copy(str_of(reason), v->reason, sizeof v->reason);
        v->outcome.what = OUTCOME_RETRY;
        v->outcome.executor = executor;
        v->outcome.reason = str_of(v->reason);
        v->outcome.reruns = (int16_t)reruns;
        v->outcome.blames = (int16_t)blames;
        v->outcome.not_before = not_before;
    }
    put(vs, v, fn, arg);
}

void verdict_usage(struct verdicts *vs, const struct entry *job, struct uuid executor, const char *sandbox,
                   wall_t started, verdict_fn *fn, void *arg)
{
    struct verdict *v = begin(vs, job, fn, arg);
    if (v != NULL) {
        int64_t ms = (wall_now().us - started.us) / 1000;
        str_copy(str_of(sandbox), v->sandbox, sizeof v->sandbox);
        v->outcome.what = OUTCOME_USAGE_ONLY;
        v->outcome.executor = executor;
        v->outcome.started_at = started;
        v->outcome.has_usage = true;
        v->outcome.sandbox = str_of(v->sandbox);
        v->outcome.sandbox_ms = ms > 0 ? ms : 0;
        v->outcome.run_ms = v->outcome.sandbox_ms; /* what ran is not known better */
    }
    put(vs, v, fn, arg);
}

void verdict_usage_left(struct verdicts *vs, struct uuid executor, const struct queue_usage *u,
                        verdict_fn *fn, void *arg)
{
    const struct entry job = {.id = u->id, .tenant = u->tenant, .agent = u->agent, .attempt = u->attempt};
    if (u->held_since.us != 0) { /* as if the sandbox had been found */
        verdict_usage(vs, &job, executor, u->sandbox, u->held_since, fn, arg);
        return;
    }
    struct verdict *v = begin(vs, &job, fn, arg);
    if (v != NULL) {
        struct outcome *o = &v->outcome;
        str_copy(str_of(u->sandbox), v->sandbox, sizeof v->sandbox);
        o->what = OUTCOME_USAGE_ONLY;
        o->has_usage = true;
        o->executor = executor;
        o->started_at = u->started_at;
        o->sandbox = str_of(v->sandbox);
        o->queue_ms = u->queue_ms;
        o->sandbox_start_ms = u->sandbox_start_ms;
        o->run_ms = u->run_ms;
        o->sandbox_ms = u->sandbox_ms;
        o->cpu_ms = u->cpu_ms;
        o->peak_memory_bytes = u->peak_memory_bytes;
    }
    put(vs, v, fn, arg);
}
