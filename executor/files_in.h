/* The files that came with an invocation, on their way into its sandbox. */
#ifndef EXECUTOR_FILES_IN_H
#define EXECUTOR_FILES_IN_H

#include "job.h"

/* code ERR_NONE: all are there. ours: the database's, the provider's (f, else NULL) or our failure; else the
 * submission's. From the loop, once; not after files_in_free. */
typedef void files_in_fn(struct job *j, enum err_code code, bool ours, const char *message,
                         const struct sandbox_failure *f);

/* Of a job whose entry names a set, and that has its sandbox; makes j->files_in. One provider call at a time,
 * as j->request. */
void files_in_start(struct job *j, files_in_fn *fn);

/* The paths that are to be executable, into out (borrowed from it); how many. */
size_t files_in_programs(const struct files_in *in, const char **out, size_t max);

void files_in_free(struct files_in **in);

#endif
