/* What a build wrote: its end, for the version's record. */
#ifndef EXECUTOR_BUILD_LOG_H
#define EXECUTOR_BUILD_LOG_H

#include "base/str.h"

struct build_log;
struct build_log *build_log_new(void); /* NULL without memory */
void build_log_free(struct build_log **l);

/* Bytes of a command. */
void build_log_put(struct build_log *l, struct str piece);

/* The command that follows, as a line: "$ ", what, text and, unless it is empty, a space and more. */
void build_log_command(struct build_log *l, const char *what, const char *text, const char *more);

/* The last 64 KiB; valid until the next change. */
struct str build_log_tail(const struct build_log *l);

#endif
