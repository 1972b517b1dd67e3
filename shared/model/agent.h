/* Agents: names, states of versions, the command that runs one. Pure. */
#ifndef MODEL_AGENT_H
#define MODEL_AGENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum { AGENT_SLUG_BYTES = 64, AGENT_TEXT_BYTES = 512, AGENT_ARCHIVE_MAX_BYTES = 100 * 1024 * 1024 };

enum agent_status { AGENT_BUILDING = 0, AGENT_READY = 1, AGENT_FAILED = 2, AGENT_RETIRED = 3 };
const char *agent_status_name(enum agent_status s);

/* ^[a-z0-9][a-z0-9-]{0,62}$ */
bool agent_slug_valid(struct str s);

/* "slug" or "slug@7". False when malformed; *version_out is 0 without one. */
bool agent_ref_parse(struct str s, struct str *slug_out, int32_t *version_out);

/* The shell command that runs the agent in its directory, into out (NUL-ended): `exec node 'index.js'`. False
 * when it does not fit. Entries are quoted: they are file names, not shell text, except for `command`. */
bool agent_run_command(const char *runtime, const char *entry, char *out, size_t out_bytes);

#endif
