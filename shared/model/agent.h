/* Agents: slugs, runtimes and what agent.json says. Pure. */
#ifndef MODEL_AGENT_H
#define MODEL_AGENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum { AGENT_SLUG_BYTES = 64, AGENT_TEXT_BYTES = 512, AGENT_ARCHIVE_MAX_BYTES = 100 * 1024 * 1024 };

enum agent_status { AGENT_BUILDING = 0, AGENT_READY = 1, AGENT_FAILED = 2 };
const char *agent_status_name(enum agent_status s);

/* ^[a-z0-9][a-z0-9-]{0,62}$ */
bool agent_slug_valid(struct str s);

/* "slug" or "slug@7". False when malformed; *version_out is 0 without one. */
bool agent_ref_parse(struct str s, struct str *slug_out, int32_t *version_out);

/* agent.json with its defaults filled in. */
struct agent_manifest {
    char name[AGENT_SLUG_BYTES];    /* "" when not stated */
    char runtime[16];               /* node, python, command */
    char entry[AGENT_TEXT_BYTES];   /* a file for node and python, a shell command for command */
    char install[AGENT_TEXT_BYTES]; /* "" for none */
    int32_t timeout_ms;             /* 0: the system's default */
};

/* What an archive holds at its top, as far as defaults depend on it. */
struct agent_tree {
    bool package_json, requirements_txt, index_js, main_py, run_sh, agent_js, agent_py;
};

/* Parses agent.json (text empty: none was there) and fills the defaults from the tree: node with index.js (or
 * package.json), python with main.py; install `npm install` with a package.json, pip with a requirements.txt.
 * ERR_BAD_MANIFEST says what is wrong and how to mend it. */
int agent_manifest_parse(struct str text, const struct agent_tree *tree, struct agent_manifest *out,
                         struct err *err);

/* The shell command that runs the agent in its directory, into out (NUL-ended): `exec node 'index.js'`. False
 * when it does not fit. Entries are quoted: they are file names, not shell text, except for `command`. */
bool agent_run_command(const char *runtime, const char *entry, char *out, size_t out_bytes);

#endif
