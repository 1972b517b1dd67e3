/* Cgroups: which controller lives where, and the limits of a sandbox in terms of it.
 *
 * Version 2, version 1 and the hybrid (v2 mounted, controllers in v1) are all used as found, controller by
 * controller. Sandboxes live under one parent per hierarchy, whose CPU weight is below an ordinary process's.
 */
#ifndef SANDBOXD_CGROUP_H
#define SANDBOXD_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "plan.h"

struct cgroups;

struct cgroup_limits {
    int64_t memory_bytes, pids, cpus;
};

/* Finds the hierarchies, removes what an earlier run noted in data_dir and left behind, makes this run's
 * parents. What cannot be enforced here is named in *missing, comma-separated (empty: everything is). NULL
 * and *err when even the rest fails. */
struct cgroups *cgroups_open(const char *data_dir, const struct cgroup_limits *limits, struct buf *missing,
                             struct err *err);
/* Removes the parents (their children must be gone). */
void cgroups_close(struct cgroups **c);

/* The groups of a cell called name, into the plan; strings live in room (PATHS_BYTES) and c. */
enum { CGROUP_PATH_BYTES = 256 };
struct cgroup_room {
    char paths[PLAN_MAX_GROUPS][CGROUP_PATH_BYTES];
};
void cgroups_plan(const struct cgroups *c, const char *name, struct cgroup_room *room, struct plan *plan);

struct cgroup_usage {
    int64_t cpu_us;       /* -1: not known */
    int64_t memory_bytes; /* now; -1: not known */
    int64_t memory_peak_bytes;
    int64_t oom_kills; /* processes killed for memory so far; -1: not known */
};
void cgroups_usage(const struct cgroups *c, const char *name, struct cgroup_usage *out);

/* Stops and continues every process of a cell at once. False where that cannot be done. */
bool cgroups_freeze(const struct cgroups *c, const char *name, bool freeze);

/* Removes a dead cell's directories. False while processes are still in them: those are killed; try again
 * soon. */
bool cgroups_remove(const struct cgroups *c, const char *name);

#endif
