/* agent.json: what an agent says of itself, read, checked, completed and written down again. Pure.
 *
 * The form that is kept with a version is agent.json's own (manifest_write), with the defaults filled in, so
 * one parser reads both. To add a key: a member here, its name in `manifest_keys`, its reader in manifest.c,
 * its line in manifest_json.c, its schema in gateway/api/agent_schema.json (a test holds the two against each
 * other) and, until it does something, a row in the table of manifest_check. */
#ifndef MODEL_MANIFEST_H
#define MODEL_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "json/json.h"
#include "json/writer.h"
#include "model/agent.h"
#include "model/template.h"

enum {
    MANIFEST_BYTES = 64 * 1024,       /* of agent.json */
    MANIFEST_JSON_BYTES = 128 * 1024, /* as it is written down */
    MANIFEST_DESCRIPTION_BYTES = 1024,
    MANIFEST_VARIABLE_BYTES = 65, /* a name, NUL-ended: model/environment.h says which may be */
    MANIFEST_ENV_MAX = 64,
    MANIFEST_ENV_BYTES = 8 * 1024, /* names and values together */
    MANIFEST_SECRETS_MAX = 32,
    MANIFEST_PATH_BYTES = 256,
    MANIFEST_MEMORY_MIN_MB = 128,
    MANIFEST_MEMORY_MAX_MB = 65536,
    MANIFEST_CPUS_MAX = 64,
    MANIFEST_POOL_MAX = 1000,
    MANIFEST_POOL_AUTO = 20, /* the most that "auto" keeps ready */
};

enum manifest_egress { EGRESS_ALLOW = 0, EGRESS_DENY };
enum manifest_usage { USAGE_NONE = 0, USAGE_FILE, USAGE_STREAM_JSON };

struct manifest_pool {
    bool stated;
    bool automatic;
    int32_t min, max; /* ready sandboxes */
};

/* Plain values, bounded. */
struct manifest {
    char name[AGENT_SLUG_BYTES]; /* "" when not stated */
    char description[MANIFEST_DESCRIPTION_BYTES];
    char template[TEMPLATE_BYTES];  /* what sandboxes are built on; "" for the executors' */
    char runtime[16];               /* node, python, command */
    char entry[AGENT_TEXT_BYTES];   /* a file for node and python, a shell command for command */
    char install[AGENT_TEXT_BYTES]; /* a shell command; "" for none */
    char check[AGENT_TEXT_BYTES];   /* a shell command run after install; "" for none */
    char env[MANIFEST_ENV_BYTES];   /* "NAME=value", each NUL-ended: manifest_env */
    size_t env_bytes;
    int env_count;
    char secrets[MANIFEST_SECRETS_MAX][MANIFEST_VARIABLE_BYTES]; /* required ones */
    int secret_count;
    bool redact_output;
    int32_t timeout_ms; /* 0: the system's */
    int32_t memory_mb;  /* 0: the template's */
    int32_t cpus;       /* likewise */
    struct manifest_pool warm_pool;
    enum manifest_egress egress;         /* of runs; a build may always reach the network */
    int64_t output_max_bytes;            /* 0: the system's */
    int16_t max_attempts;                /* 0: no retry is stated */
    int16_t retry_on;                    /* INV_RETRY_* */
    char artifacts[MANIFEST_PATH_BYTES]; /* a directory below the agent's; "" for none */
    enum manifest_usage usage;
};

struct agent_tree;

/* All keys, NULL-ended. */
extern const char *const manifest_keys[];

/* Parses agent.json (text empty: there was none) and fills the defaults from the tree (agent_tree.h).
 * ERR_BAD_MANIFEST names the line and the key, and says how to mend it. */
int manifest_parse(struct str text, const struct agent_tree *tree, struct manifest *out, struct err *err);

/* The same for an agent that is a template and nothing else: value is an object with agent.json's keys, in
 * doc; NULL for none. There are no files to guess by: runtime is `command` when it is not stated, entry must
 * be. A template that it states must be this one. */
int manifest_of_template(const struct json *doc, const struct json_value *value, struct str template,
                         struct manifest *out, struct err *err);

/* Reads what manifest_write wrote: nothing is guessed. */
int manifest_read(struct str text, struct manifest *out, struct err *err);

/* Whether everything in it can be done. ERR_UNSUPPORTED says what cannot, and why: a limit or a policy that
 * nobody keeps must not be thought kept. */
int manifest_check(const struct manifest *m, struct err *err);

/* As an object with the keys that are stated or were filled in. At most MANIFEST_JSON_BYTES. */
void manifest_write(const struct manifest *m, struct json_writer *w);

/* The variables as "NAME=value" into out, at most max; how many. They point into m. */
int manifest_env(const struct manifest *m, const char **out, int max);

#endif
