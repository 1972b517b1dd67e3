/* The template that a version asks to be built on: whether it may name it, and whether the provider has it.
 */
#ifndef EXECUTOR_BUILD_TEMPLATE_H
#define EXECUTOR_BUILD_TEMPLATE_H

#include "executor.h"
#include "model/manifest.h"

/* Looks again what the gateway looked at: of a repository the template is known only here, and what was no
 * snapshot at the deploy may be one now. Answers from the loop: err NULL: it may; ERR_TEMPLATE: it may not;
 * else it could not be found out. 0, or -1 and *err. */
typedef void build_template_fn(struct executor *x, struct uuid job, const struct err *err);
int build_template_check(struct executor *x, struct uuid job, const char *name, build_template_fn *fn,
                         struct err *err);

/* Whether a failed create is the template's: the provider knows none of that name, or keeps it from us. With
 * a message that says so. What is built on the operator's own template is never at fault. */
bool build_template_refused(const struct manifest *m, const struct sandbox_failure *f, char *out,
                            size_t out_bytes);

#endif
