/* What a source holds at its top, as far as it tells runtime, entry and install step where agent.json does
 * not. Pure.
 *
 *   node      package.json, index.js or agent.js. The entry is package.json's `main`, its `bin`, index.js,
 * agent.js, or what `npm start` runs; install is `npm install` with a package.json python requirements.txt,
 * pyproject.toml, main.py or agent.py. The entry is main.py or agent.py; install is pip's, of
 * requirements.txt or else of the project command   run.sh; or a file `agent` that may be executed; or the
 * one file that may be
 *
 * The first that fits is taken. To add one: what tells it, a member here; agent_tree_note; the defaults. */
#ifndef MODEL_AGENT_TREE_H
#define MODEL_AGENT_TREE_H

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"
#include "model/manifest.h"

enum { AGENT_FILE_BYTES = 128 };

struct agent_tree {
    bool package_json, requirements_txt, pyproject_toml, index_js, main_py, run_sh, agent_js, agent_py;
    bool start_script;                   /* package.json has scripts.start */
    char package_main[AGENT_TEXT_BYTES]; /* its main, or bin; "" for none */
    char executable[AGENT_FILE_BYTES];   /* the first, or `agent` */
    int executables;
};

/* A file at the top, and whether its owner may execute it. */
void agent_tree_note(struct agent_tree *tree, struct str name, bool executable);
/* What package.json says; one that cannot be read says nothing (npm will tell). */
void agent_tree_package(struct agent_tree *tree, struct str text);

/* Fills in what the manifest lacks. ERR_BAD_MANIFEST when nothing fits. */
int agent_tree_defaults(const struct agent_tree *tree, bool install_stated, struct manifest *out,
                        struct err *err);

#endif
