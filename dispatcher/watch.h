/* Watching Redis's identity: any change of (epoch, run_id, master_replid) is a loss. On a loss: a new epoch
 * over empty transport, 3 s in which living executors assert what they run, then everything else is rebuilt
 * from PostgreSQL by marking every tenant with open work for the feeder. */
#ifndef DISPATCHER_WATCH_H
#define DISPATCHER_WATCH_H

#include "dispatcher.h"

struct watch;
struct watch *watch_new(struct dispatcher *d);
void watch_free(struct watch **w);

#endif
