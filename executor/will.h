/* Usage that must not die with this process.
 *
 * A sandbox is the evidence that its attempt held one: whoever finds it after this process's death writes the
 * attempt's usage. So it is destroyed only when somebody else knows: PostgreSQL, by the outcome's commit; or,
 * when that takes longer than a moment, Redis, by a copy of the usage in this executor's will
 * (store/queue_will.h), which whoever buries it carries out. While neither answers the sandbox stays, at most
 * to its TTL. */
#ifndef EXECUTOR_WILL_H
#define EXECUTOR_WILL_H

#include "job.h"

struct will;
struct will *will_new(struct executor *x);
void will_free(struct will **w);

/* The job's outcome is durable (or it has none): nothing of it needs to be in the will any more. */
void will_settled(struct will *w, const struct job *j);

/* Redis may have lost its memory, or be back with an older one: what is to stand there is written again, and
 * what is not goes. */
void will_forgotten(struct will *w);

#endif
