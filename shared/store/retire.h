/* Versions that are not kept: chosen, found free of open invocations, and done away with. The dispatcher's
 * duty uses these in this order; each changes nothing when it is done twice. */
#ifndef STORE_RETIRE_H
#define STORE_RETIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/id.h"
#include "base/str.h"
#include "postgres/pg.h"

/* Retires ready versions: of each agent all but the newest `keep` besides the one that serves and those that
 * schedules name. From here on nothing new gets them; what was accepted runs. count: how many.
 * Of versions whose build failed the newest `keep` keep their log, of the others its last 64 KiB are left. */
typedef void retire_fn(void *arg, int count, const struct err *err);
int retire_versions(struct pg *pg, int keep, int64_t deadline_ms, retire_fn *fn, void *arg);

/* Drops what nothing can need of deleted agents: their secrets, when no version of theirs has a snapshot any
 * more; archives and logs of builds that failed, a bounded number at once. count: how much it was. */
int retired_left(struct pg *pg, int64_t deadline_ms, retire_fn *fn, void *arg);

/* One that is retired and still has its snapshot. */
struct retired {
    struct uuid id, agent;
    int32_t version;
    struct str snapshot; /* valid during the callback */
};
typedef void retired_fn(void *arg, const struct retired *list, size_t n, const struct err *err);
/* Those that were retired at least grace_ms ago (so that no submission that was under way then is uncommitted
 * now), the oldest first. */
int retired_list(struct pg *pg, int64_t grace_ms, int limit, int64_t deadline_ms, retired_fn *fn, void *arg);

/* Looks through invocations from `from` on, in the order of their ids, a bounded number at once. next: where
 * to go on; zero: that were all. used: of the versions asked for, those that an open invocation has. */
typedef void retired_used_fn(void *arg, struct uuid next, const struct uuid *used, size_t n,
                             const struct err *err);
int retired_used(struct pg *pg, const struct uuid *versions, size_t n, struct uuid from, int64_t deadline_ms,
                 retired_used_fn *fn, void *arg);

/* The snapshot is gone at the provider: so are archive and log, but for the log's last 64 KiB. */
typedef void retire_done_fn(void *arg, const struct err *err);
int retired_gone(struct pg *pg, struct uuid version, int64_t deadline_ms, retire_done_fn *fn, void *arg);

/* Of snapshots with these names (the versions' ids), those that no version has: they were made by builds
 * whose outcome was lost, or were overlooked when their version went. ids: as the provider names them. */
typedef void snapshots_orphaned_fn(void *arg, const bool *orphaned, size_t n, const struct err *err);
int snapshots_orphaned(struct pg *pg, const struct uuid *versions, const struct str *ids, size_t n,
                       int64_t deadline_ms, snapshots_orphaned_fn *fn, void *arg);

#endif
