/* Packing with fts (names sorted, so equal trees give equal archives but for times) and libarchive. */
#include "pack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"
#include "ignore.h"

enum { BLOCK_BYTES = 64 << 10 };

struct pack {
    struct archive *out;
    FTS *tree;
    struct ignore *ignore;
    size_t root_len; /* of "dir/" in the paths */
    int64_t files, max_bytes;
    struct err *err;
};

/* ---- what is left out ---- */

/* What tools make anew, and what holds everything that ever was. */
static bool is_left_out(const struct pack *p, const char *path, const char *name, bool directory)
{
    static const char *const always[] = {"node_modules", ".venv", "__pycache__", ".sandpiper"};
    for (size_t i = 0; directory && i < sizeof always / sizeof *always; i++)
        if (strcmp(name, always[i]) == 0)
            return true;
    return strcmp(name, ".git") == 0 || strcmp(name, ".sandpiperignore") == 0 ||
           ignore_matches(p->ignore, path, directory);
}

/* ---- entries ---- */

static int archive_fault(struct pack *p)
{
    return err_set(p->err, ERR_IO, "cannot write the archive: %s", archive_error_string(p->out));
}

/* The compressor lags behind by less than a block or two. */
static int check_size(const struct pack *p)
{
    if (archive_filter_bytes(p->out, -1) <= p->max_bytes)
        return 0;
    return err_set(p->err, ERR_LIMIT,
                   "the archive has more than the %lld MiB that are accepted.\nName what is not needed in "
                   ".sandpiperignore or .gitignore; is it the right directory?",
                   (long long)(p->max_bytes >> 20));
}

/* Exactly `left` bytes of the file, which may change under us. */
static int copy_content(struct pack *p, const char *path, int fd, int64_t left)
{
    char block[BLOCK_BYTES];
    while (left > 0) {
        ssize_t n = read(fd, block, left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES);
        if (n <= 0)
            return err_set(p->err, ERR_IO, "%.120s: cannot be read, or changed meanwhile", path);
        if (archive_write_data(p->out, block, (size_t)n) < 0)
            return archive_fault(p);
        left -= n;
        if (check_size(p) != 0)
            return -1;
    }
    return 0;
}

static int write_header(struct pack *p, struct archive_entry *e, const FTSENT *f, const char *path)
{
    archive_entry_set_pathname(e, path);
    archive_entry_copy_stat(e, f->fts_statp);
    archive_entry_set_nlink(e, 1); /* hard links become files */
    archive_entry_set_uid(e, 0);
    archive_entry_set_gid(e, 0);
    archive_entry_set_perm(e, f->fts_statp->st_mode & 0777);
    if (f->fts_info == FTS_SL || f->fts_info == FTS_SLNONE) {
        char target[1024];
        ssize_t n = readlink(f->fts_accpath, target, sizeof target - 1);
        if (n < 0)
            return err_set(p->err, ERR_IO, "%.120s: %s", path, strerror(errno));
        target[n] = '\0';
        archive_entry_set_symlink(e, target);
        archive_entry_set_size(e, 0);
    }
    return archive_write_header(p->out, e) == ARCHIVE_OK ? 0 : archive_fault(p);
}

static int unreadable(const struct pack *p, const char *path, int why)
{
    return err_set(p->err, ERR_IO, "%.120s: %s\nIf it is not needed, name it in .sandpiperignore.",
                   path[0] != '\0' ? path : "the directory", strerror(why));
}

static int add_entry(struct pack *p, const FTSENT *f, const char *path)
{
    bool regular = f->fts_info == FTS_F;
    int fd = regular ? open(f->fts_accpath, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (regular && fd < 0)
        return unreadable(p, path, errno);
    struct archive_entry *e = archive_entry_new();
    int rc = e != NULL ? write_header(p, e, f, path) : err_set(p->err, ERR_NO_MEMORY, "no memory");
    if (rc == 0 && regular)
        rc = copy_content(p, path, fd, f->fts_statp->st_size);
    if (rc == 0)
        rc = check_size(p);
    archive_entry_free(e);
    if (fd >= 0)
        close(fd);
    p->files += regular;
    return rc;
}

static int visit(struct pack *p, FTSENT *f)
{
    const char *path = strlen(f->fts_path) > p->root_len ? f->fts_path + p->root_len : "";
    if (f->fts_info == FTS_DP)
        return 0;
    if (f->fts_level == 0)
        return f->fts_info == FTS_D ? ignore_enter(p->ignore, f->fts_path, "", p->err)
                                    : err_set(p->err, ERR_IO, "%.120s is no directory", f->fts_path);
    if (is_left_out(p, path, f->fts_name, f->fts_info == FTS_D)) {
        fts_set(p->tree, f, FTS_SKIP);
        return 0;
    }
    switch (f->fts_info) {
    case FTS_D:
        return add_entry(p, f, path) != 0 ? -1 : ignore_enter(p->ignore, f->fts_path, path, p->err);
    case FTS_F:
    case FTS_SL:
    case FTS_SLNONE:
        return add_entry(p, f, path);
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
        return unreadable(p, path, f->fts_errno);
    default:
        return 0; /* sockets, pipes, devices: no part of a program */
    }
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int walk(struct pack *p, char *dir)
{
    char *const roots[] = {dir, NULL};
    p->tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, by_name);
    if (p->tree == NULL)
        return err_set(p->err, ERR_IO, "%.120s: %s", dir, strerror(errno));
    FTSENT *f;
    int rc = 0;
    while (rc == 0 && (errno = 0, f = fts_read(p->tree)) != NULL)
        rc = visit(p, f);
    if (rc == 0 && errno != 0)
        rc = err_set(p->err, ERR_IO, "%.120s: %s", dir, strerror(errno));
    fts_close(p->tree);
    return rc;
}

static int write_all(struct pack *p, char *dir, int fd)
{
    if (archive_write_set_format_pax_restricted(p->out) != ARCHIVE_OK ||
        archive_write_add_filter_gzip(p->out) != ARCHIVE_OK ||
        archive_write_open_fd(p->out, fd) != ARCHIVE_OK)
        return archive_fault(p);
    if (walk(p, dir) != 0)
        return -1;
    return archive_write_close(p->out) == ARCHIVE_OK ? 0 : archive_fault(p);
}

int pack_directory(const char *dir, int fd, int64_t max_bytes, int64_t *files_out, struct err *err)
{
    struct pack p = {.err = err, .max_bytes = max_bytes};
    char *root = strdup(dir);
    size_t n = root != NULL ? strlen(root) : 0;
    while (n > 1 && root[n - 1] == '/')
        root[--n] = '\0';
    p.root_len = n + (n == 1 && root[0] == '/' ? 0 : 1);
    p.out = archive_write_new();
    p.ignore = ignore_new();
    int rc = root == NULL || p.out == NULL || p.ignore == NULL ? err_set(err, ERR_NO_MEMORY, "no memory")
                                                               : write_all(&p, root, fd);
    if (p.out != NULL)
        archive_write_free(p.out);
    ignore_free(&p.ignore);
    free(root);
    *files_out = p.files;
    return rc;
}
