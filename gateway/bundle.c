/* Checking archives with libarchive: only tar and gzip are enabled, so nothing else is parsed. */
#include "bundle.h"

#include <archive.h>
#include <archive_entry.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"

enum { BLOCK_BYTES = 64 * 1024, PATH_MAX_BYTES = 1024 };

struct check {
    struct agent_tree tree;
    struct buf manifest;
    int64_t entries, bytes;
};

/* A relative path without "..": its depth never goes below the top. */
static bool path_ok(const char *path)
{
    struct str rest = str_of(path), part;
    if (rest.n == 0 || rest.n > PATH_MAX_BYTES || path[0] == '/')
        return false;
    while (str_split(&rest, '/', &part))
        if (str_eq_c(part, ".."))
            return false;
    return true;
}

/* A symbolic link's target, seen from the link's directory, stays inside. */
static bool link_ok(const char *path, const char *target)
{
    struct str rest = str_of(path), part;
    int depth = -1; /* the link's own name does not count */
    if (target == NULL || target[0] == '/' || target[0] == '\0')
        return false;
    while (str_split(&rest, '/', &part))
        depth += part.n > 0 && !str_eq_c(part, ".");
    rest = str_of(target);
    while (str_split(&rest, '/', &part)) {
        if (str_eq_c(part, ".."))
            depth--;
        else if (part.n > 0 && !str_eq_c(part, "."))
            depth++;
        if (depth < 0)
            return false;
    }
    return true;
}

static const char *strip_dot(const char *path)
{
    while (path[0] == '.' && path[1] == '/')
        path += 2;
    return path;
}

static void note_file(struct agent_tree *t, const char *path)
{
    const struct {
        const char *name;
        bool *seen;
    } files[] = {
        {"package.json", &t->package_json},
        {"requirements.txt", &t->requirements_txt},
        {"index.js", &t->index_js},
        {"main.py", &t->main_py},
        {"run.sh", &t->run_sh},
        {"agent.js", &t->agent_js},
        {"agent.py", &t->agent_py},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (strcmp(path, files[i].name) == 0)
            *files[i].seen = true;
}

static int check_kind(struct archive_entry *e, const char *path, struct err *err)
{
    const char *hard = archive_entry_hardlink(e);
    if (hard != NULL)
        return path_ok(hard) ? 0 : err_set(err, ERR_BAD_ARCHIVE, "\"%.100s\" links out of the archive", path);
    switch (archive_entry_filetype(e)) {
    case AE_IFREG:
    case AE_IFDIR:
        return 0;
    case AE_IFLNK:
        if (link_ok(path, archive_entry_symlink(e)))
            return 0;
        return err_set(err, ERR_BAD_ARCHIVE, "\"%.100s\" links out of the archive", path);
    default:
        return err_set(err, ERR_BAD_ARCHIVE, "\"%.100s\" is neither a file, a directory nor a link", path);
    }
}

/* Reads an entry's content: counts it all, keeps agent.json. */
static int read_content(struct archive *a, struct check *c, bool manifest, struct err *err)
{
    const void *block;
    size_t n;
    la_int64_t offset;
    int rc;
    while ((rc = archive_read_data_block(a, &block, &n, &offset)) == ARCHIVE_OK) {
        c->bytes += (int64_t)n;
        if (c->bytes > ARCHIVE_MAX_UNPACKED_BYTES || offset > ARCHIVE_MAX_UNPACKED_BYTES)
            return err_set(err, ERR_BAD_ARCHIVE, "the archive unpacks to more than 1 GiB");
        if (manifest && !buf_append(&c->manifest, block, n))
            return err_set(err, ERR_BAD_MANIFEST, "agent.json has more than %d bytes",
                           ARCHIVE_MANIFEST_BYTES);
    }
    if (rc != ARCHIVE_EOF)
        return err_set(err, ERR_BAD_ARCHIVE, "the archive is damaged: %.120s", archive_error_string(a));
    return 0;
}

static int check_entry(struct archive *a, struct archive_entry *e, struct check *c, struct err *err)
{
    const char *raw = archive_entry_pathname(e);
    if (raw == NULL || !path_ok(raw))
        return err_set(err, ERR_BAD_ARCHIVE, "\"%.100s\" is not a path inside the archive",
                       raw != NULL ? raw : "?");
    const char *path = strip_dot(raw);
    if (++c->entries > ARCHIVE_MAX_ENTRIES)
        return err_set(err, ERR_BAD_ARCHIVE, "the archive has more than %d entries", ARCHIVE_MAX_ENTRIES);
    if (check_kind(e, path, err) != 0)
        return -1;
    bool regular = archive_entry_filetype(e) == AE_IFREG,
         manifest = regular && strcmp(path, "agent.json") == 0;
    if (regular)
        note_file(&c->tree, path);
    if (manifest)
        buf_clear(&c->manifest); /* the last one of a name wins when unpacking */
    return read_content(a, c, manifest, err);
}

static int walk(struct archive *a, struct check *c, struct err *err)
{
    struct archive_entry *e;
    int rc;
    while ((rc = archive_read_next_header(a, &e)) == ARCHIVE_OK || rc == ARCHIVE_WARN)
        if (check_entry(a, e, c, err) != 0)
            return -1;
    if (rc != ARCHIVE_EOF)
        return err_set(err, ERR_BAD_ARCHIVE, "not a tar.gz archive, or damaged: %.120s",
                       archive_error_string(a));
    if (c->entries == 0)
        return err_set(err, ERR_BAD_ARCHIVE, "the archive is empty");
    return 0;
}

int bundle_check(int fd, struct agent_manifest *out, struct err *err)
{
    struct archive *a = archive_read_new();
    if (a == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory");
    struct check c = {0};
    buf_init(&c.manifest, ARCHIVE_MANIFEST_BYTES);
    archive_read_support_format_tar(a);
    archive_read_support_filter_gzip(a);
    int rc = -1;
    if (lseek(fd, 0, SEEK_SET) != 0 || archive_read_open_fd(a, fd, BLOCK_BYTES) != ARCHIVE_OK)
        err_set(err, ERR_BAD_ARCHIVE, "not a tar.gz archive: %.120s", archive_error_string(a));
    else if (walk(a, &c, err) == 0)
        rc = agent_manifest_parse(buf_view(&c.manifest), &c.tree, out, err);
    archive_read_free(a);
    buf_deinit(&c.manifest);
    return rc;
}
