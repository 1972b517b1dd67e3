/* Old versions of agents go: of each agent the newest SANDPIPER_AGENT_KEEP_VERSIONS ready ones stay, besides
 * the one that serves and those that schedules name.
 *
 * One that is retired is refused to new submissions at once, and runs what was accepted before. When no open
 * invocation has it any more, its snapshot is deleted at the provider, then its archive. Each hour snapshots
 * that no version has are looked for and deleted, too. */
#ifndef DISPATCHER_RETIRE_H
#define DISPATCHER_RETIRE_H

#include "dispatcher.h"

struct retire;
struct retire *retire_new(struct dispatcher *d);
void retire_free(struct retire **r);

#endif
