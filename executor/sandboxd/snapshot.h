/* Snapshots: a sandbox's files as a layer that later sandboxes start from. They survive the daemon. */
#ifndef SANDBOXD_SNAPSHOT_H
#define SANDBOXD_SNAPSHOT_H

#include "base/clock.h"
#include "sandbox.h"

enum { SNAPSHOT_ID_CHARS = 20, SNAPSHOT_NAME_BYTES = 128 };

struct snapshots;

/* Loads <data_dir>/snapshots and removes what was half made. NULL and *err. */
struct snapshots *snapshots_open(struct cell_works *works, struct err *err);
/* The live sandboxes, whose layers must stay; before the loop runs. */
void snapshots_watch(struct snapshots *t, struct host *host);
void snapshots_close(struct snapshots **t);

/* A template by name or id ("base" or a snapshot; a ":tag" is dropped): its layers, uppermost first, as owned
 * strings into spec. False when there is none. */
bool snapshots_resolve(const struct snapshots *t, struct str name, struct sandbox_spec *spec);

/* A plain description; strings live until the snapshot is deleted. */
struct snapshot_info {
    const char *id, *name; /* name "" when it has none */
    wall_t created_at;
};

/* Copies the sandbox's files while it is frozen. id NULL and *err on failure. Called once, from the loop. */
typedef void snapshot_fn(void *arg, const struct snapshot_info *info, const struct err *err);
int snapshots_take(struct snapshots *t, struct sandbox *s, struct str name, snapshot_fn *fn, void *arg,
                   struct err *err);
/* fn of arg is not called any more; the snapshot is made all the same. */
void snapshots_forget(struct snapshots *t, const void *arg);

/* False when there is none. Its files stay while snapshots or sandboxes build on them. */
bool snapshots_delete(struct snapshots *t, struct str name);

/* Walks them, newest first; *cursor starts as 0. False at the end. */
bool snapshots_next(const struct snapshots *t, size_t *cursor, struct snapshot_info *out);

#endif
