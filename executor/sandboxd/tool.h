/* Running a helper program (cp, mkfs.ext4) and waiting for it: at start-up, before the loop runs. */
#ifndef SANDBOXD_TOOL_H
#define SANDBOXD_TOOL_H

#include <sys/types.h>

#include "base/err.h"

/* Runs argv[0] from PATH and waits, two minutes at most. ERR_IO when it cannot be run or fails, ERR_TIMEOUT.
 */
int tool_run(const char *const *argv, struct err *err);

/* Starts argv[0] without waiting; its stdout and stderr go nowhere. -1 and *err. */
pid_t tool_spawn(const char *const *argv, struct err *err);

/* Removes a directory tree. 0 also when there is none. */
int tool_remove_tree(const char *path, struct err *err);

#endif
