/* What a build writes, on its way to whoever reads it (store/build_logs.h), while the build goes on.
 *
 * Text is stored as it comes, made into UTF-8: control characters stay what they are. At most BUILD_LOG_BYTES
 * of it; what is more is counted, and the log's end is stored when the build ends, so that its error is never
 * what is missing. The build never waits for its log but at its own end: what PostgreSQL does not take yet
 * waits here, within the same bound. */
#ifndef EXECUTOR_BUILD_LOG_H
#define EXECUTOR_BUILD_LOG_H

#include "executor.h"

enum { BUILD_LOG_BYTES = 4 * 1024 * 1024 };

enum build_log_from { BUILD_LOG_STDOUT, BUILD_LOG_STDERR, BUILD_LOG_FROMS };

struct build_log;
struct build_log *build_log_new(struct executor *x, struct uuid version); /* NULL without memory */
void build_log_free(struct build_log **l);                                /* at any moment */

/* The build begins, or goes on after another one of it. Once. building false: it has ended already; or err.
 */
typedef void build_log_begun_fn(struct executor *x, struct uuid version, bool building,
                                const struct err *err);
int build_log_open(struct build_log *l, build_log_begun_fn *fn, struct err *err);
/* Which claim of the build this is; 0 before it is known. */
int32_t build_log_try(const struct build_log *l);

/* Bytes of a command. */
void build_log_put(struct build_log *l, enum build_log_from from, struct str piece);

/* The command that follows, as a line: "$ ", what, text and, unless it is empty, a space and more. */
void build_log_command(struct build_log *l, const char *what, const char *text, const char *more);

/* What has been put is stored now, not in a moment: a step has ended. */
void build_log_flush(struct build_log *l);

/* Nothing follows. why: the build goes back, for that reason; NULL: it has ended. fn is called, once, when
 * all is stored, however long that takes. taken false: another claim of the build has begun, and writes now.
 */
typedef void build_log_closed_fn(struct executor *x, struct uuid version, bool taken);
void build_log_close(struct build_log *l, const char *why, build_log_closed_fn *fn);

/* Its last 64 KiB, without another claim's. */
struct str build_log_tail(const struct build_log *l);

#endif
