/* Secrets opened: those of agents, kept for a moment, and the environments that came with submissions.
 *
 * An agent's are asked for again when they are older than SECRETS_FRESH_MS, by the first attempt that wants
 * them: so what is set is had by every attempt that starts a second later, and an agent that has none costs
 * one query in that time, which nobody waits for (secrets_warm). What nobody wanted for some seconds is
 * forgotten, and with the last attempt that runs with it wiped. */
#ifndef EXECUTOR_SECRETS_H
#define EXECUTOR_SECRETS_H

#include "executor.h"
#include "redact.h"
#include "vars.h"
#include "versions.h"

enum { SECRETS_FRESH_MS = 700 };

/* What an attempt runs with. */
struct environment {
    struct vars *secrets, *own;   /* the agent's; the submission's. NULL: none */
    struct redact_values *redact; /* all of them. NULL: none */
};
void environment_free(struct environment **e);

/* Why it cannot be had. */
struct environment_failure {
    enum err_code code;
    bool ours; /* it may be had later */
    char message[240];
};

struct secrets;
struct secrets *secrets_new(struct executor *x, struct err *err);
void secrets_free(struct secrets **s);

/* e is the callee's; NULL: there is nothing to give. Always from the loop; the callee looks the job up by its
 * id. */
typedef void secrets_fn(struct executor *x, struct uuid job, int16_t attempt, struct environment *e,
                        const struct environment_failure *f);
struct secrets_ask {
    struct uuid job;
    int16_t attempt;
    int32_t tenant;
    struct uuid agent;
    const char *slug;  /* copied */
    bool own;          /* an environment came with the submission */
    struct vars *have; /* it was opened before: kept, not asked for again; or NULL */
};
void secrets_get_for(struct secrets *s, const struct secrets_ask *ask, secrets_fn *fn);
/* Whether it is known, and fresh, that the agent has none. */
bool secrets_none(struct secrets *s, struct uuid agent);
/* So that they are there when they are asked for. */
void secrets_warm(struct secrets *s, int32_t tenant, struct uuid agent, const char *slug);

#endif
