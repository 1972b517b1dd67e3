/* Agent versions, cached: what has left `building` never changes. At most VERSIONS_MAX of them. */
#ifndef EXECUTOR_VERSIONS_H
#define EXECUTOR_VERSIONS_H

#include "executor.h"
#include "model/git_source.h"
#include "model/manifest.h"

enum { VERSIONS_MAX = 1024, VERSION_SNAPSHOT_BYTES = 128 };

/* Plain values, but for the manifest: it is shared by all copies that version_keep makes. */
struct version {
    struct uuid id, agent;
    int32_t tenant, version;
    enum agent_status status;
    char slug[AGENT_SLUG_BYTES], snapshot[VERSION_SNAPSHOT_BYTES];
    const struct manifest *manifest;
    const struct git_source *git; /* NULL: an archive. Lives as long as the manifest */
    bool from_template;           /* nothing comes along: its template has all */
    int64_t archive_bytes;
};

struct versions;
struct versions *versions_new(struct executor *x);
void versions_free(struct versions **v);

/* Copies v into to, which holds none; version_drop ends a copy (a zeroed one holds nothing). */
void version_keep(struct version *to, const struct version *v);
void version_drop(struct version *v);
/* A build has found out what the manifest is: v, which others may have, has it from here on. False without
 * memory. */
bool version_describe(struct version *v, const struct manifest *manifest);

/* v is valid during the call. v NULL with err: could not be read; v NULL without: there is no such version.
 * Always from the loop. The answer is given even when the asker has lost interest: it looks itself up again
 * (by id). */
typedef void version_fn(struct executor *x, struct uuid asker, const struct version *v,
                        const struct err *err);
void version_get(struct versions *vs, struct uuid agent, int32_t version, struct uuid asker, version_fn *fn);

#endif
