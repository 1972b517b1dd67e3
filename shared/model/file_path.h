/* Files of invocations: how many, how large, under which names. Pure. */
#ifndef MODEL_FILE_PATH_H
#define MODEL_FILE_PATH_H

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"

enum {
    FILES_MAX = 100, /* in one set */
    FILE_PATH_MAX = 1024,
    FILE_NAME_MAX = 255, /* one component of a path */
    FILES_INLINE_MAX_BYTES = 1024 * 1024,
    FILE_MODE_PLAIN = 0644,
    FILE_MODE_PROGRAM = 0755,
};

/* Relative, of plain components (none is empty, "." or ".."), UTF-8 without control characters, within the
 * limits above. ERR_BAD_FILE says what is wrong, and with which path as far as that can be shown. */
int file_path_check(struct str path, struct err *err);

/* One cannot be there with the other: they are equal, or one is a directory of the other's. */
bool file_paths_clash(struct str a, struct str b);

#endif
