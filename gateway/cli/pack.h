/* A directory as a tar.gz. */
#ifndef CLI_PACK_H
#define CLI_PACK_H

#include <stdint.h>

#include "base/err.h"

/* Writes dir's tree into fd. Left out: node_modules, .git, .venv, __pycache__, .sandpiper, and what
 * .gitignore and .sandpiperignore of it and of the directories below name (ignore.h). *files_out: how many
 * files. It stops as soon as the archive exceeds max_bytes. */
int pack_directory(const char *dir, int fd, int64_t max_bytes, int64_t *files_out, struct err *err);

#endif
