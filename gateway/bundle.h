/* Checking an agent's archive before anything of it is kept or run: a gzip-compressed tar, as a stream.
 *
 * Refused: absolute paths, `..`, links that could lead out of the tree, entries below a link or a file, paths
 * that come twice (but directories), hard links to what is no earlier file, devices and other special files,
 * more than ARCHIVE_MAX_ENTRIES entries, more than ARCHIVE_MAX_UNPACKED_BYTES unpacked, paths over 1,024
 * bytes, gzip in gzip. Runs on a worker thread: it blocks on the file and touches nothing else. Memory is
 * bounded (bundle.c): some 40 MiB at worst. */
#ifndef GATEWAY_BUNDLE_H
#define GATEWAY_BUNDLE_H

#include "base/err.h"
#include "crypto/crypto.h"
#include "model/manifest.h"

enum { ARCHIVE_MAX_ENTRIES = 100000 };
#define ARCHIVE_MAX_UNPACKED_BYTES (1024LL * 1024 * 1024)

struct bundle {
    struct manifest manifest; /* with its defaults */
    /* Of what it unpacks to: paths, kinds, the owner's rights, contents, targets of links. The order of
     * entries, times, owners and how it was compressed do not matter, nor do directories that are implied. */
    uint8_t source_sha256[SHA256_BYTES];
};

/* Reads fd from its start. ERR_BAD_ARCHIVE, ERR_BAD_MANIFEST, ERR_UNSUPPORTED. */
int bundle_check(int fd, struct bundle *out, struct err *err);

#endif
