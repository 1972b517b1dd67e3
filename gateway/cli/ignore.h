/* Ignore files, as git reads them (gitignore(5)): `.gitignore` in any directory, and `.sandpiperignore`,
 * which is read after it and so has the last word. Written here, not asked of git: it must work where there
 * is no git and in what is no work tree, and what is tracked and ignored all the same is left out, too, since
 * the rules say so. A test holds it against git's own answers. */
#ifndef CLI_IGNORE_H
#define CLI_IGNORE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct ignore;
struct ignore *ignore_new(void);
void ignore_free(struct ignore **ig);

/* Reads both files of a directory, whose path below the top is `path` ("" for the top itself). Directories
 * are entered before what is in them, in any order. -1 and *err: one cannot be read, or is too large. */
int ignore_enter(struct ignore *ig, const char *dir, const char *path, struct err *err);

/* Whether path (below the top, without a slash at its ends) is ignored. What lies below an ignored directory
 * is, too: the caller does not go there. */
bool ignore_matches(const struct ignore *ig, const char *path, bool directory);

/* One pattern of a directory's file against a path below the same directory; for tests. */
bool ignore_pattern(const char *pattern, const char *path, bool directory);

#endif
