/* Archives, fetched chunk by chunk. */
#include "build_archive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/culprit.h"
#include "model/invocation.h"
#include "store/agents.h"

enum { STORE_MS = 30000 };

struct build_archive {
    struct executor *x;
    struct uuid version;
    int fd;
    int64_t bytes, have;
    void *map;
    bool busy, orphan; /* freed as soon as PostgreSQL has answered */
    build_archive_fn *fn;
};

struct build_archive *build_archive_new(struct executor *x, struct uuid version)
{
    struct build_archive *a = calloc(1, sizeof *a);
    if (a != NULL)
        *a = (struct build_archive){.x = x, .version = version, .fd = -1};
    return a;
}

static void destroy(struct build_archive *a)
{
    if (a->map != NULL)
        munmap(a->map, (size_t)a->have);
    if (a->fd >= 0)
        close(a->fd);
    free(a);
}

void build_archive_free(struct build_archive **a)
{
    if (a == NULL || *a == NULL)
        return;
    (*a)->orphan = true;
    if (!(*a)->busy)
        destroy(*a);
    *a = NULL;
}

static int next(struct build_archive *a, struct err *err);

static void on_chunk(void *arg, struct str data, const struct err *err)
{
    struct build_archive *a = arg;
    struct err own = ERR_INIT;
    CULPRIT(a->version);
    a->busy = false;
    if (a->orphan) {
        destroy(a);
        return;
    }
    if (err == NULL && data.n == 0)
        err_set(&own, ERR_INTERNAL, "the stored archive is incomplete");
    else if (err == NULL && write(a->fd, data.p, data.n) != (ssize_t)data.n)
        err_set(&own, ERR_IO, "no room to spool the archive");
    else if (err != NULL)
        own = *err;
    else
        a->have += (int64_t)data.n;
    if (own.code == ERR_NONE && a->have < a->bytes && next(a, &own) == 0)
        return;
    a->fn(a->x, a->version, own.code != ERR_NONE ? &own : NULL);
}

static int next(struct build_archive *a, struct err *err)
{
    if (agent_file_get(a->x->read, a->version, (int32_t)(a->have / INV_CHUNK_BYTES), STORE_MS, on_chunk, a,
                       err) != 0)
        return -1;
    a->busy = true;
    return 0;
}

int build_archive_fetch(struct build_archive *a, int64_t bytes, build_archive_fn *fn, struct err *err)
{
    INVARIANT(a->fd < 0);
    a->bytes = bytes;
    a->fn = fn;
    a->fd = open(a->x->settings->spool_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (a->fd < 0)
        return err_set(err, ERR_IO, "no room to spool the archive: %s", strerror(errno));
    return next(a, err);
}

int build_archive_map(struct build_archive *a, struct str *out, struct err *err)
{
    if (a->map == NULL) {
        a->map = mmap(NULL, (size_t)a->have, PROT_READ, MAP_SHARED, a->fd, 0);
        if (a->map == MAP_FAILED) {
            a->map = NULL;
            return err_set(err, ERR_IO, "the spooled archive cannot be read: %s", strerror(errno));
        }
    }
    *out = str_make(a->map, (size_t)a->have);
    return 0;
}
