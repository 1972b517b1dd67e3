/* Files: sets of them, and their contents in chunks.
 *
 * A set is opened, takes chunks, then its list; then the row that refers to it is committed, and the set is
 * kept. A set that comes to nothing is dropped, at once by whoever gives it up, or by a dispatcher's sweep
 * when he died (file_sets_sweep). Every call is idempotent, so each may be sent again after a lost reply. */
#ifndef STORE_FILES_H
#define STORE_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/id.h"
#include "crypto/crypto.h"
#include "postgres/pg.h"

/* What came with invocations: an id of its own, attempt 0. What an attempt left: the invocation and it. */
struct file_set {
    struct uuid id;
    int16_t attempt;
};

struct file_entry {
    struct str path;
    int64_t bytes;
    uint8_t sha256[SHA256_BYTES];
    int16_t mode;
    int32_t chunk; /* its first one; the others follow. An empty file has none */
};

typedef void file_done_fn(void *arg, const struct err *err);
int file_set_open(struct pg *pg, struct file_set set, int64_t deadline_ms, file_done_fn *fn, void *arg,
                  struct err *err);

/* n chunks of at most INV_CHUNK_BYTES, numbered from `first`: data holds them one behind the other, lengths
 * says how long each is. ERR_CONFLICT: the set was dropped meanwhile. */
int file_chunks_put(struct pg *pg, struct file_set set, int32_t first, struct str data,
                    const uint32_t *lengths, int n, int64_t deadline_ms, file_done_fn *fn, void *arg,
                    struct err *err);

/* The set is complete: these are its files. ERR_CONFLICT as above. */
int file_set_list(struct pg *pg, struct file_set set, const struct file_entry *files, size_t n,
                  int64_t deadline_ms, file_done_fn *fn, void *arg, struct err *err);

/* Takes chunks from `from` on and before `to` out of an open set. */
int file_chunks_drop(struct pg *pg, struct file_set set, int32_t from, int32_t to, int64_t deadline_ms);

/* The row that refers to it is committed: nothing is left to be looked after. */
int file_set_keep(struct pg *pg, struct file_set set, int64_t deadline_ms);

/* Takes it back, unless a row refers to it after all. */
int file_set_drop(struct pg *pg, struct file_set set, int64_t deadline_ms);

/* The files of a set by path. Views are valid during the callback. */
typedef void files_fn(void *arg, const struct file_entry *files, size_t n, const struct err *err);
int files_get(struct pg *pg, struct file_set set, int64_t deadline_ms, files_fn *fn, void *arg,
              struct err *err);

/* One chunk: data is empty when there is none. */
typedef void file_chunk_fn(void *arg, struct str data, const struct err *err);
int file_chunk_get(struct pg *pg, struct file_set set, int32_t chunk, int64_t deadline_ms, file_chunk_fn *fn,
                   void *arg, struct err *err);

/* An artifact of a tenant's invocation that has ended: the set that it is in, and itself. found: the
 * invocation; set.attempt 0: it has not ended; file NULL: it left none of that path. */
struct artifact_found {
    bool found;
    struct file_set set;
    const struct file_entry *file;
};
typedef void artifact_fn(void *arg, const struct artifact_found *a, const struct err *err);
int artifact_get(struct pg *pg, struct uuid invocation, int32_t tenant, struct str path, int64_t deadline_ms,
                 artifact_fn *fn, void *arg, struct err *err);

/* One pass over the sets that nobody may refer to: those that are referred to are kept, those that never will
 * be are dropped. A bounded number a call. */
int file_sets_sweep(struct pg *pg, int64_t deadline_ms, file_done_fn *fn, void *arg);

#endif
