/* Packing with fts (names sorted, so equal trees give equal archives but for times) and libarchive. */
#include "pack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <fts.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"

enum { PATTERNS_MAX = 256, IGNORE_FILE_BYTES = 64 << 10, BLOCK_BYTES = 64 << 10 };

struct pattern {
    char *text; /* points into ignore's text */
    bool directory, path;
};

struct ignore {
    char *text;
    struct pattern patterns[PATTERNS_MAX];
    int count;
};

struct pack {
    struct archive *out;
    FTS *tree;
    struct ignore ignore;
    size_t root_len; /* of "dir/" in the paths */
    int64_t files, max_bytes;
    struct err *err;
};

/* ---- .sandpiperignore ---- */

static int add_pattern(struct ignore *ig, char *line, struct err *err)
{
    size_t n = strcspn(line, "\r\n");
    while (n > 0 && (line[n - 1] == ' ' || line[n - 1] == '\t'))
        n--;
    line[n] = '\0';
    if (n == 0 || line[0] == '#')
        return 0;
    if (line[0] == '!')
        return err_set(err, ERR_BAD_ARCHIVE, ".sandpiperignore: \"%.60s\": exceptions (!) are not supported",
                       line);
    if (ig->count == PATTERNS_MAX)
        return err_set(err, ERR_BAD_ARCHIVE, ".sandpiperignore has more than %d patterns", PATTERNS_MAX);
    struct pattern *p = &ig->patterns[ig->count++];
    p->directory = line[n - 1] == '/';
    if (p->directory)
        line[n - 1] = '\0';
    p->path = strchr(line, '/') != NULL;
    p->text = line[0] == '/' ? line + 1 : line;
    return 0;
}

static int read_ignore(struct ignore *ig, const char *dir, struct err *err)
{
    char *path = NULL, *next;
    if (asprintf(&path, "%s/.sandpiperignore", dir) < 0)
        return err_set(err, ERR_NO_MEMORY, "no memory");
    FILE *f = fopen(path, "re");
    free(path);
    if (f == NULL)
        return errno == ENOENT ? 0
                               : err_set(err, ERR_IO, "cannot read .sandpiperignore: %s", strerror(errno));
    ig->text = calloc(1, IGNORE_FILE_BYTES + 1);
    size_t n = ig->text != NULL ? fread(ig->text, 1, IGNORE_FILE_BYTES, f) : 0;
    fclose(f);
    if (ig->text == NULL || n == IGNORE_FILE_BYTES)
        return err_set(err, ERR_LIMIT, ".sandpiperignore is too large");
    for (char *line = ig->text; line != NULL; line = next) {
        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        if (add_pattern(ig, line, err) != 0)
            return -1;
    }
    return 0;
}

static bool is_ignored(const struct ignore *ig, const char *path, const char *name, bool directory)
{
    static const char *const always[] = {"node_modules", ".git", "__pycache__", ".sandpiper"};
    for (size_t i = 0; directory && i < sizeof always / sizeof *always; i++)
        if (strcmp(name, always[i]) == 0)
            return true;
    for (int i = 0; i < ig->count; i++) {
        const struct pattern *p = &ig->patterns[i];
        if (p->directory && !directory)
            continue;
        if (p->path ? fnmatch(p->text, path, FNM_PATHNAME) == 0 : fnmatch(p->text, name, 0) == 0)
            return true;
    }
    return strcmp(path, ".sandpiperignore") == 0;
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
                   ".sandpiperignore; is it the right directory?",
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
    if (f->fts_level == 0 || f->fts_info == FTS_DP)
        return f->fts_info == FTS_D || f->fts_info == FTS_DP
                   ? 0
                   : err_set(p->err, ERR_IO, "%.120s is no directory", f->fts_path);
    if (is_ignored(&p->ignore, path, f->fts_name, f->fts_info == FTS_D)) {
        fts_set(p->tree, f, FTS_SKIP);
        return 0;
    }
    switch (f->fts_info) {
    case FTS_D:
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
    int rc = root == NULL || p.out == NULL ? err_set(err, ERR_NO_MEMORY, "no memory")
                                           : read_ignore(&p.ignore, root, err);
    if (rc == 0)
        rc = write_all(&p, root, fd);
    if (p.out != NULL)
        archive_write_free(p.out);
    free(p.ignore.text);
    free(root);
    *files_out = p.files;
    return rc;
}
