/* An attempt's steps, as the files that hold them share them: run.c has the table and the ends, acquire.c how
 * it comes to a sandbox that was made ahead, or to a permit for one of its own. */
#ifndef EXECUTOR_RUN_H
#define EXECUTOR_RUN_H

#include "collect.h"

enum {
    FILES_MS = 300000 /* for those that come along */,
    RUN_FILES_MAX_MS = FILES_MS + COLLECT_MS + COLLECT_LIST_MS
};

enum run_step {
    STEP_VERSION,
    STEP_PROMPT,
    STEP_SECRETS,
    STEP_WARM,
    STEP_PERMIT,
    STEP_CREATE,
    STEP_FILES,
    STEP_UPLOAD,
    STEP_ENVIRONMENT,
    STEP_START,
    STEP_RUN,
    STEP_COLLECT
};

/* The invocation whose attempt stands at that step; NULL: an answer that came too late. */
struct job *run_current(struct executor *x, struct uuid id, enum run_step step);

/* How long the attempt may need its sandbox: uploads and start, files that come along, its limit, gathering
 * its artifacts, and some more (E2B.md G.1). */
int64_t run_hold_ms(const struct job *j);

/* Back to the queue as it came; it holds no sandbox. */
void run_hand_back(struct job *j);

/* Ends the attempt. Ours: it is tried again while it is worth it; else the invocation ends as `error`. */
void run_end_ours(struct job *j, enum err_code code, const char *message);
void run_end_error(struct job *j, enum err_code code, const char *message);

/* prompt.c */
void enter_prompt(void *self);

/* run_secrets.c */
void enter_secrets(void *self);
void enter_environment(void *self);

/* acquire.c */
void enter_warm(void *self);
void late_warm(void *self);
void enter_permit(void *self);
void late_permit(void *self);
/* A warm sandbox was gone before its program started: the attempt gets one of its own. False: it was not
 * that. */
bool warm_was_gone(struct job *j, const struct sandbox_failure *f);

#endif
