/* Versions of an agent: listed, and which of them serves chosen. */
#ifndef STORE_VERSIONS_H
#define STORE_VERSIONS_H

#include "store/agents.h"

/* ---- lists ---- */

struct version_record {
    int32_t version;
    enum agent_status status;
    bool serving;
    struct str runtime, source_sha256, error_code, error_message;
    struct str manifest; /* JSON; empty: from before there was one */
    struct agent_origin origin;
    int64_t archive_bytes;
    wall_t created_at, finished_at; /* finished_at 0: being built */
    char place[12];                 /* the number as text */
};
/* found false: no such agent. Views are valid during the callback. */
typedef void versions_fn(void *arg, bool found, const struct version_record *list, size_t n,
                         const struct err *err);
/* The newest first: up to limit below a version's number. */
int versions_get(struct pg *pg, int32_t tenant, struct str slug, int32_t below, int limit,
                 int64_t deadline_ms, versions_fn *fn, void *arg, struct err *err);

/* ---- the version that serves ---- */

enum version_chosen {
    VERSION_SERVES,    /* and is on disk */
    VERSION_NO_AGENT,  /* no agent of that name */
    VERSION_NO_SUCH,   /* the agent has no such version */
    VERSION_NO_OLDER,  /* none asked for, and no ready one before the serving one */
    VERSION_NOT_READY, /* its build goes on, or failed */
    VERSION_RETIRED,
};
typedef void version_choose_fn(void *arg, enum version_chosen what, const struct err *err);
/* Makes that version serve; 0: the ready one before the serving one, or, when the agent is rolled back
 * already, the one that serves, so that a call which is repeated goes back once. Builds that are under way
 * then do not begin to serve by themselves; those of later deploys do. */
int version_choose(struct pg *pg, int32_t tenant, struct str slug, int32_t version, int64_t deadline_ms,
                   version_choose_fn *fn, void *arg, struct err *err);

#endif
