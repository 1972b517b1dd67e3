/* Reaping orphaned sandboxes: of this deployment, and of those only what no living executor owns. Right after
 * an executor was buried, and besides each minute. A reaped sandbox's nonce tells whose usage to write. */
#ifndef DISPATCHER_REAPER_H
#define DISPATCHER_REAPER_H

#include "dispatcher.h"

struct reaper;
struct reaper *reaper_new(struct dispatcher *d);
void reaper_free(struct reaper **r);
/* An executor died: look soon. */
void reaper_wake(struct reaper *r);

#endif
