/* Children: one place that waits for them all. */
#ifndef SANDBOXD_REAPER_H
#define SANDBOXD_REAPER_H

#include <sys/types.h>

#include "loop/loop.h"

struct reaper;

typedef void reaper_fn(void *arg, int wait_status);

/* From here on this process adopts and reaps orphans of its descendants, too. NULL without memory. */
struct reaper *reaper_new(struct loop *loop);
void reaper_free(struct reaper **r);

/* fn is called once, from the loop, when the child has ended. Right after fork, before the loop runs. -1
 * without memory. */
int reaper_watch(struct reaper *r, pid_t pid, reaper_fn *fn, void *arg);
/* The child goes on, fn is not called. */
void reaper_forget(struct reaper *r, pid_t pid);

#endif
