/* An agent's archive on its way from PostgreSQL into a sandbox: spooled to an unlinked file, which is then
 * mapped, not read: the page cache holds the archive, not this process. */
#ifndef EXECUTOR_BUILD_ARCHIVE_H
#define EXECUTOR_BUILD_ARCHIVE_H

#include "executor.h"

struct build_archive;
struct build_archive *build_archive_new(struct executor *x, struct uuid version); /* NULL without memory */
void build_archive_free(struct build_archive **a);                                /* at any moment */

/* Fetches all of its `bytes`. err: ERR_INTERNAL when it is not there in whole; what else may be tried again.
 */
typedef void build_archive_fn(struct executor *x, struct uuid version, const struct err *err);
int build_archive_fetch(struct build_archive *a, int64_t bytes, build_archive_fn *fn, struct err *err);

/* What was fetched; valid until it is freed. */
int build_archive_map(struct build_archive *a, struct str *out, struct err *err);

#endif
