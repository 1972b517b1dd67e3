/* Steps of a run: the secrets.
 *
 * They are asked for twice: before the create, so that no sandbox is spent on a job that lacks one, and
 * before the start, since creating may take a minute. Mostly they are known (secrets.h). A job that needs
 * none before the create only sees to it that they will be there. */
#include <stdio.h>

#include "base/culprit.h"
#include "environment.h"
#include "run.h"

static struct job *waiting(struct executor *x, struct uuid id, int16_t attempt)
{
    struct job *j = run_current(x, id, STEP_SECRETS);
    if (j == NULL)
        j = run_current(x, id, STEP_ENVIRONMENT);
    return j != NULL && j->lease.attempt == attempt ? j : NULL;
}

static void end_missing(struct job *j, const char *name)
{
    char message[240];
    snprintf(message, sizeof message,
             "the agent requires secret %s, which is not set: sandpiper secrets set %s %s", name,
             j->version.slug, name);
    run_end_error(j, ERR_JOB_MISSING_SECRET, message);
}

static void on_environment(struct executor *x, struct uuid id, int16_t attempt, struct environment *e,
                           const struct environment_failure *f)
{
    struct job *j = waiting(x, id, attempt);
    const char *missing;
    if (j == NULL) {
        environment_free(&e);
        return;
    }
    CULPRIT(id);
    environment_set(j, e);
    if (f != NULL && f->ours)
        run_end_ours(j, f->code, f->message);
    else if (f != NULL)
        run_end_error(j, f->code, f->message);
    else if ((missing = environment_missing(j)) != NULL)
        end_missing(j, missing);
    else if (j->flow.at == STEP_ENVIRONMENT && !environment_guard(j))
        run_end_ours(j, ERR_NO_MEMORY, "no memory to look for secrets in output");
    else
        flow_next(&j->flow);
}

static void ask(struct job *j)
{
    const struct secrets_ask q = {.job = j->lease.id,
                                  .attempt = j->lease.attempt,
                                  .tenant = j->lease.tenant,
                                  .agent = j->entry.agent,
                                  .slug = j->version.slug,
                                  .own = j->entry.env,
                                  .have = j->environment != NULL ? j->environment->own : NULL};
    secrets_get_for(j->x->secrets, &q, on_environment);
}

void enter_secrets(void *self)
{
    struct job *j = self;
    if (environment_first(j)) {
        ask(j);
        return;
    }
    secrets_warm(j->x->secrets, j->lease.tenant, j->entry.agent, j->version.slug);
    flow_next(&j->flow);
}

void enter_environment(void *self)
{
    struct job *j = self;
    if (!environment_first(j) && secrets_none(j->x->secrets, j->entry.agent))
        flow_next(&j->flow);
    else
        ask(j);
}
