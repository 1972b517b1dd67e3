/* What this machine must have before a sandbox can be promised. */
#ifndef SANDBOXD_MACHINE_H
#define SANDBOXD_MACHINE_H

#include "base/buf.h"
#include "options.h"
#include "plan.h"

/* Hard needs: root, namespaces, bubblewrap, overlay. ERR_UNAVAILABLE names all that is missing. */
int machine_check(const struct options *o, struct err *err);

/* Limits that cannot be enforced (the disk's, egress's) are appended to missing, comma-separated; *disk_out
 * says whether the disk's can be. */
void machine_check_limits(const struct options *o, struct buf *missing, bool *disk_out);

/* Whether sandboxes can have user ids of their own here (ids.h). */
bool machine_own_ids(const struct options *o);

/* Warns when the machine's table of open files is small beside what one sandbox may open. */
void machine_check_files(const struct options *o);

/* What to do about a sandbox that could not be made, by what was said of it. Never NULL. */
const char *machine_advice(const char *why);

/* What every cell is built from (plan.h); strings live as long as p. */
struct machine_plan {
    struct plan plan;
    char paths[3][512];
    char mounts[1024], deny[1024];
};
int machine_plan(const struct options *o, bool disk_limited, struct machine_plan *p, struct err *err);

#endif
