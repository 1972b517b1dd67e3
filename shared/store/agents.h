/* Agents and their versions. Every function takes the tenant, but for those that a build uses by the
 * version's id. */
#ifndef STORE_AGENTS_H
#define STORE_AGENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "crypto/crypto.h"
#include "model/agent.h"
#include "model/git_source.h"
#include "model/manifest.h"
#include "postgres/pg.h"

/* ---- for submissions ---- */

struct agent_target {
    bool found; /* the agent (and the version asked for) exists */
    bool ready, retired;
    struct uuid agent;
    int32_t version; /* the one to run */
    /* what a submission gets that does not say it; 0: the system's */
    int32_t timeout_ms;
    int16_t max_attempts, retry_on;
};
typedef void agent_resolve_fn(void *arg, const struct agent_target *target, const struct err *err);
/* version 0: the serving one. */
int agent_resolve(struct pg *pg, int32_t tenant, struct str slug, int32_t version, int64_t deadline_ms,
                  agent_resolve_fn *fn, void *arg, struct err *err);

/* ---- for the API ---- */

/* Where a version came from: a repository (commit empty: not cloned yet), a template alone, or, when all are
 * empty, an archive. */
struct agent_origin {
    struct str url, ref, commit, template;
};

struct agent_build {
    int32_t version;
    struct agent_origin origin;
    enum agent_status status;
    struct str runtime, entry, install, error_code, error_message, log;
    struct str manifest; /* JSON; empty in lists, and for versions from before there was one */
    int64_t archive_bytes;
    wall_t created_at, finished_at;
};

struct agent_record {
    struct uuid id;
    struct str slug;
    int32_t serving;          /* 0: none yet */
    int32_t rolled_back_from; /* 0: it is not */
    enum agent_status status; /* of the serving version; while there is none, of the newest */
    wall_t created_at;
    struct agent_build latest;
};
typedef void agents_fn(void *arg, const struct agent_record *agents, size_t n, const struct err *err);
/* One agent by slug, or (slug empty) the first `limit` after `after` in slug order. */
int agents_get(struct pg *pg, int32_t tenant, struct str slug, struct str after, int limit,
               int64_t deadline_ms, agents_fn *fn, void *arg, struct err *err);

/* ---- deploying: the archive's chunks first, under a new version id, then the version ---- */

typedef void agent_done_fn(void *arg, const struct err *err);
int agent_file_put(struct pg *pg, struct uuid version_id, int32_t chunk, struct str data, int64_t deadline_ms,
                   agent_done_fn *fn, void *arg, struct err *err);
/* Drops the chunks of an upload that came to nothing. */
int agent_file_drop(struct pg *pg, struct uuid version_id, int64_t deadline_ms);

typedef void agent_deploy_fn(void *arg, struct uuid agent, int32_t version, const struct err *err);
/* Plain values. */
struct agent_source {
    const struct git_source *git;    /* NULL: none. Else nothing of what follows is known */
    bool template;                   /* the manifest's template is all there is: no archive */
    const struct manifest *manifest; /* borrowed during the call */
    int64_t archive_bytes;
    uint8_t archive_sha256[SHA256_BYTES], source_sha256[SHA256_BYTES];
};
/* Makes the agent when it is new, and its next version, building. */
int agent_deploy(struct pg *pg, int32_t tenant, struct str slug, struct uuid version_id,
                 const struct agent_source *source, int64_t deadline_ms, agent_deploy_fn *fn, void *arg,
                 struct err *err);

/* version 0: none. */
typedef void agent_same_fn(void *arg, int32_t version, enum agent_status status, const struct err *err);
/* Whether the newest version that is ready, or is being built, has this source and this manifest. Then it is
 * what a deploy would make: it serves from here on, or will when it is ready, whatever was chosen before. */
int agent_same(struct pg *pg, int32_t tenant, struct str slug, const struct agent_source *source,
               int64_t deadline_ms, agent_same_fn *fn, void *arg, struct err *err);

/* ---- for executors ---- */

struct agent_version {
    struct uuid id, agent;
    int32_t tenant, version;
    enum agent_status status;
    struct str slug, runtime, entry, install, snapshot;
    struct str manifest; /* JSON; empty: runtime, entry and install are all there is */
    struct str git_url, git_ref;
    bool from_template; /* neither archive nor repository */
    int64_t archive_bytes;
};
/* found false: no such version. */
typedef void agent_version_fn(void *arg, bool found, const struct agent_version *v, const struct err *err);
int agent_version_get(struct pg *pg, struct uuid agent, int32_t version, int64_t deadline_ms,
                      agent_version_fn *fn, void *arg, struct err *err);

typedef void agent_chunk_fn(void *arg, struct str data, const struct err *err);
int agent_file_get(struct pg *pg, struct uuid version_id, int32_t chunk, int64_t deadline_ms,
                   agent_chunk_fn *fn, void *arg, struct err *err);

/* What a build found in the repository that it cloned. */
int agent_describe(struct pg *pg, struct uuid version_id, const struct manifest *manifest, struct str commit,
                   int64_t deadline_ms, agent_done_fn *fn, void *arg, struct err *err);

/* Ends a build, once: a version that has left `building` stays as it is. A ready one begins to serve unless a
 * newer one serves already, or another was chosen since it was deployed (versions.h). */
struct agent_built {
    struct uuid id;
    int32_t try; /* of its log (build_logs.h): another one's outcome is not taken. 0: whoever's */
    bool ready;
    struct str snapshot;
    enum err_code error;
    struct str error_message, log;
};
int agent_build_finish(struct pg *pg, const struct agent_built *b, int64_t deadline_ms, agent_done_fn *fn,
                       void *arg, struct err *err);

#endif
