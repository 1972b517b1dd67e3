/* Values that must not be seen: typed without echo, or read from stdin; never arguments, which everybody on
 * the machine can read. */
#ifndef CLI_TYPED_H
#define CLI_TYPED_H

#include "base/buf.h"

/* Into out, whose limit is the value's: a line from the terminal after "PROMPT: ", else all of stdin without
 * its line end. 0, or told and the exit status. */
int typed_secret(const char *prompt, struct buf *out);

/* All that comes from a descriptor, `what` in errors. */
int typed_all(int fd, const char *what, struct buf *out);

#endif
