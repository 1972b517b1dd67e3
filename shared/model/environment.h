/* Environments that callers give to programs: secrets of an agent, `env` of a submission. Names, limits, and
 * how a list of variables is packed. Pure.
 *
 * A name is ^[A-Z_][A-Z0-9_]{0,63}$. Some names are the system's, and refused:
 *   LD_*             what they name is loaded into every program before its first line: the shell that starts
 *                    the agent, and every helper of it
 *   PATH HOME SHELL  the sandbox's own; the shell that starts the agent finds it by them
 *   USER LOGNAME PWD
 *   ENV BASH_ENV IFS what a shell runs, or splits words by, before it does what it was started for
 *   TRACEPARENT      the invocation's trace context: the header of that name sets it
 *   SANDPIPER_*      Sandpiper's, now and later */
#ifndef MODEL_ENVIRONMENT_H
#define MODEL_ENVIRONMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

enum {
    ENV_NAME_MAX_BYTES = 64,
    SECRET_VALUE_MAX_BYTES = 32 * 1024,
    SECRETS_MAX = 64,               /* of one agent */
    SECRETS_MAX_BYTES = 128 * 1024, /* their values together */
    SUBMISSION_ENV_MAX_BYTES = 64 * 1024 /* of one submission: names and values together */,
    SUBMISSION_ENV_MAX = 128, /* variables */
    REDACTED_MIN_BYTES = 8,   /* shorter values are not looked for in output */
};

/* -1 and ERR_BAD_FIELD, which says what is wrong with it. */
int env_name_check(struct str name, struct err *err);

/* ---- a packed list: for each variable the name's length (1 byte), the name, the value's length (4 bytes,
 * little-endian), the value ---- */

/* Appends one; false when out is full. */
bool env_pack(struct str name, struct str value, struct buf *out);
/* The next one of *rest, as views: 1; 0 at the end; -1 when it is no such list. Names are checked. */
int env_unpack(struct str *rest, struct str *name, struct str *value);

#endif
