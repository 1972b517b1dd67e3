/* What a program leaves: its report of its usage, and its artifacts. Gathered after its end, while its
 * sandbox still stands. Nothing here changes how the attempt ended. */
#ifndef EXECUTOR_COLLECT_H
#define EXECUTOR_COLLECT_H

#include "job.h"

enum {
    COLLECT_MS = 300000,    /* for all of it */
    COLLECT_LIST_MS = 30000 /* and then for the list of what was had in time */
};

/* The program is about to start. True: out is the variable that names the report's file, as "NAME=path", for
 * its environment. */
enum { COLLECT_ENV_BYTES = 128 };
bool collect_env(struct job *j, char out[COLLECT_ENV_BYTES]);

/* Whether the agent wants anything gathered; artifacts: not of an attempt that is followed by another. */
bool collect_wanted(const struct job *j, bool artifacts);

/* done is called once, from the loop; not after collect_free. One provider call at a time, as j->request. */
typedef void collect_fn(struct job *j);
void collect_start(struct job *j, bool artifacts, collect_fn *done);

/* Its time is up: goes on to the list of what was had; false: it was there already, and gives up now. */
bool collect_hurry(struct job *j);

/* Ends it at once, if it was begun: nothing is listed. done is not called. */
void collect_cut(struct job *j);

/* Nothing more is done for the job here; what was had stays as it is. */
void collect_stop(struct job *j);

/* Into the outcome; and what went wrong into the job's log. */
void collect_fill(struct job *j, struct outcome *o);

/* The outcome is durable, or there is none: the set is kept or dropped. */
void collect_settled(struct job *j);

void collect_free(struct collect **c);

#endif
