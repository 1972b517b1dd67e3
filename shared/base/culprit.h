/* Whose work this process is doing right now, so that a crash can be laid at somebody's door (DESIGN section
 * 4, "Poison").
 *
 * One job at a time: who begins to work for one enters it and leaves it in the same function, whatever ends
 * in between. What goes on later for the same job remembers it and enters it again: flows (loop/flow.c) and
 * HTTP transfers (http/client.c) do so by themselves. Work for several jobs at once (a group's commit) is
 * nobody's. */
#ifndef BASE_CULPRIT_H
#define BASE_CULPRIT_H

#include "base/id.h"

/* The job that this thread works for; zero: nobody's. Async-signal-safe. */
struct uuid culprit_now(void);

/* Returns the one before, for culprit_leave. */
struct uuid culprit_enter(struct uuid job);
void culprit_leave(const struct uuid *before);

/* To the end of the block, this thread works for that job. */
#define CULPRIT(job) CULPRIT_SCOPE(job, __LINE__)
#define CULPRIT_SCOPE(job, line) CULPRIT_NAMED(job, line)
#define CULPRIT_NAMED(job, line)                                                              \
    __attribute__((cleanup(culprit_leave), unused)) const struct uuid culprit_before_##line = \
        culprit_enter(job)

#endif
