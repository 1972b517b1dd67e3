/* Claimed jobs: the table and each one's life. */
#include "job.h"

#include <stdlib.h>
#include <utlist.h>
#include <uthash.h>

#include "base/culprit.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "collect.h"
#include "environment.h"
#include "files_in.h"
#include "intake.h"
#include "mirror.h"
#include "model/usage_report.h"

enum { DESTROY_MS = 120000 };

struct slot {
    struct uuid id;
    struct job *job;
    UT_hash_handle hh;
};

struct jobs {
    struct executor *x;
    struct job *list;
    struct slot *by_id;
    int count[ENTRY_BUILD + 1];
    int destroying, destroying_permits;
};

struct jobs *jobs_new(struct executor *x)
{
    struct jobs *jobs = calloc(1, sizeof *jobs);
    if (jobs != NULL)
        jobs->x = x;
    return jobs;
}

void jobs_free(struct jobs **jobs)
{
    if (jobs == NULL || *jobs == NULL)
        return;
    while ((*jobs)->list != NULL)
        job_free((*jobs)->list);
    free(*jobs);
    *jobs = NULL;
}

struct job *jobs_find(struct jobs *jobs, struct uuid id)
{
    struct slot *s;
    HASH_FIND(hh, jobs->by_id, &id, sizeof id, s);
    return s != NULL ? s->job : NULL;
}

int jobs_count(const struct jobs *jobs, enum entry_kind kind)
{
    return jobs->count[kind];
}

struct job *jobs_first(struct jobs *jobs)
{
    return jobs->list;
}

int jobs_permits(const struct jobs *jobs)
{
    int n = jobs->destroying_permits;
    for (const struct job *j = jobs->list; j != NULL; j = j->next)
        n += j->holds_permit;
    return n;
}

int jobs_without_permit(const struct jobs *jobs)
{
    int n = 0;
    for (const struct job *j = jobs->list; j != NULL; j = j->next)
        n += j->entry.kind == ENTRY_INVOCATION && j->phase == JOB_STARTING && !j->holds_permit;
    return n;
}

int jobs_destroying(const struct jobs *jobs)
{
    return jobs->destroying;
}

static bool table_add(struct jobs *jobs, struct job *j)
{
    struct slot *s = calloc(1, sizeof *s);
    if (s == NULL)
        return false;
    s->id = j->lease.id;
    s->job = j;
    HASH_ADD(hh, jobs->by_id, id, sizeof s->id, s);
    DL_APPEND(jobs->list, j);
    jobs->count[j->entry.kind]++;
    return true;
}

static void table_remove(struct jobs *jobs, struct job *j)
{
    struct slot *s;
    HASH_FIND(hh, jobs->by_id, &j->lease.id, sizeof s->id, s);
    if (s == NULL || s->job != j)
        return;
    HASH_DEL(jobs->by_id, s);
    free(s);
    DL_DELETE(jobs->list, j);
    jobs->count[j->entry.kind]--;
}

struct job *job_new(struct executor *x, const struct lease *lease, const struct entry *entry)
{
    struct job *j = calloc(1, sizeof *j);
    if (j == NULL)
        return NULL;
    j->x = x;
    j->lease = *lease;
    j->entry = *entry;
    j->entry.prompt = str_of(NULL);
    spool_init(&j->out, x->spool, x->settings->output_bytes);
    spool_init(&j->err, x->spool, INV_LOGS_MAX_BYTES);
    buf_init(&j->output_copy, INV_INLINE_BYTES);
    buf_init(&j->logs_copy, INV_INLINE_BYTES);
    if (entry->prompt_inline)
        j->prompt = str_dup(entry->prompt);
    if ((entry->prompt_inline && j->prompt == NULL) || !table_add(x->jobs, j)) {
        free(j->prompt);
        free(j);
        return NULL;
    }
    j->entry.prompt = str_make(j->prompt, entry->prompt_inline ? entry->prompt.n : 0);
    j->claimed_at = wall_now();
    j->asked_at = loop_now(x->loop);
    return j;
}

static bool allowed(enum job_phase from, enum job_phase to)
{
    return to > from; /* phases only go forward; RUNNING may be skipped */
}

void job_enter(struct job *j, enum job_phase phase)
{
    INVARIANT(allowed(j->phase, phase));
    j->phase = phase;
}

void job_free(struct job *j)
{
    table_remove(j->x->jobs, j);
    sandbox_cancel(&j->request);
    flow_deinit(&j->flow);
    if (j->free_aux != NULL)
        j->free_aux(j);
    files_in_free(&j->files_in);
    collect_free(&j->collect);
    usage_scan_free(&j->usage_scan);
    mirror_over(j);
    environment_drop(j);
    spool_deinit(&j->out);
    spool_deinit(&j->err);
    buf_deinit(&j->output_copy);
    buf_deinit(&j->logs_copy);
    free(j->prompt);
    version_drop(&j->version);
    struct executor *x = j->x;
    free(j);
    intake_wake(x->intake);
    intake_wake(x->build_intake);
}

static void stop(struct job *j)
{
    if (j->phase >= JOB_RECORDING)
        return;
    if (j->entry.kind == ENTRY_BUILD)
        build_stop(j);
    else
        run_stop(j);
}

void job_cancel(struct job *j)
{
    if (j->canceled || j->fenced)
        return;
    CULPRIT(j->lease.id);
    FAILPOINT(executor_cancel);
    j->canceled = true;
    stop(j);
}

void jobs_hand_back(struct jobs *jobs)
{
    struct job *j, *next;
    DL_FOREACH_SAFE(jobs->list, j, next)
    {
        if (j->leaving)
            continue;
        CULPRIT(j->lease.id);
        j->leaving = true;
        stop(j);
    }
}

void job_fence(struct job *j)
{
    if (j->fenced)
        return;
    CULPRIT(j->lease.id);
    j->fenced = true;
    stop(j);
}

/* ---- sandboxes outlive their job by the time it takes to destroy them ---- */

struct destroy {
    struct executor *x;
    char id[SANDBOX_ID_BYTES];
    bool permit;
};

static void on_destroyed(void *arg, const struct sandbox_failure *failure)
{
    struct destroy *d = arg;
    FAILPOINT(executor_destroyed);
    if (failure != NULL)
        log_warn("a sandbox could not be destroyed; the reaper or its TTL will", LF_STR("sandbox", d->id),
                 LF_ERR(&failure->err));
    d->x->jobs->destroying--;
    d->x->jobs->destroying_permits -= d->permit;
    if (d->permit)
        governor_give(d->x->governor, 1);
    free(d);
}

void jobs_destroy(struct jobs *jobs, const char *sandbox_id, bool permit)
{
    struct destroy *d = calloc(1, sizeof *d);
    if (d == NULL)
        return; /* its TTL ends it */
    *d = (struct destroy){.x = jobs->x, .permit = permit};
    str_copy(str_of(sandbox_id), d->id, sizeof d->id);
    if (sandbox_destroy(jobs->x->provider, d->id, DESTROY_MS, on_destroyed, d) == NULL) {
        free(d);
        return;
    }
    jobs->destroying++;
    jobs->destroying_permits += permit;
}

void job_destroy_sandbox(struct job *j)
{
    bool permit = j->holds_permit;
    j->holds_permit = false;
    if (!j->has_sandbox) {
        if (permit && j->create_sent)
            governor_give(j->x->governor, 1);
        else if (permit)
            governor_return(j->x->governor, 1);
        return;
    }
    j->has_sandbox = false;
    jobs_destroy(j->x->jobs, j->sandbox.id, permit);
}

void job_disown(struct job *j)
{
    job_destroy_sandbox(j);
    j->sandbox = (struct sandbox){.id = ""};
    j->warm = j->create_sent = false;
}
