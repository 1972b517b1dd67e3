/* An attempt's environment: what its program is started with, and that nothing of it is seen afterwards.
 *
 * Of one name the last wins: what the agent's manifest says, the agent's secrets, the submission's `env`.
 * Values are taken out of stderr before it is kept or shown to anybody, out of messages, and out of stdout
 * when the agent asks for that. A job without any pays nothing. */
#ifndef EXECUTOR_ENVIRONMENT_H
#define EXECUTOR_ENVIRONMENT_H

#include "job.h"
#include "model/environment.h"
#include "secrets.h"

/* Whether a sandbox would be in vain without it: a secret is required, or an environment was sent along. */
bool environment_first(const struct job *j);

/* The name of a required secret that is missing; NULL: none is. */
const char *environment_missing(const struct job *j);

/* The job's, in place of what it had. Takes e, which may be NULL. */
void environment_set(struct job *j, struct environment *e);

/* Pairs for the start, NULL-ended. Views: they live as long as the job has its environment. */
enum { ENVIRONMENT_MAX = MANIFEST_ENV_MAX + SECRETS_MAX + SUBMISSION_ENV_MAX + 16 };
struct environment_pairs {
    const char *list[ENVIRONMENT_MAX + 1];
    size_t n;
};
/* The later one of a name wins. */
void environment_pair_put(struct environment_pairs *p, const char *pair);
/* The secrets and the submission's. */
void environment_pairs_put(struct environment_pairs *p, const struct job *j);

/* Output is looked through from now on, where it must be: before each start. False without memory. */
bool environment_guard(struct job *j);
void environment_stdout(struct job *j, struct str piece);
void environment_stderr(struct job *j, struct str piece);
/* The program has ended, or is no longer listened to: what was held back goes into the spools. */
void environment_flush(struct job *j);
/* A message without the values, into out (NUL-ended, cut to it). */
void environment_clean(const struct job *j, const char *message, char *out, size_t out_bytes);
/* Wipes. Fine twice. */
void environment_drop(struct job *j);

#endif
