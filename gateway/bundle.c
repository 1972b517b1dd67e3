/* Checking archives with libarchive: only tar and gzip are enabled, so nothing else is parsed.
 *
 * Two readers: one gunzips, the other reads the tar from the first, through read_tar, which counts. Only so
 * can a header be bounded: libarchive keeps an entry's extensions and its map of holes in memory, and a few
 * KiB of gzip make a header without an end. Nested gzip is refused: its layers would be work without bytes.
 *
 * Every path is noted, with the directories above it, so that what unpacks is what was checked: no entry
 * below a file or a link, none twice. */
#include "bundle.h"

#include <archive.h>
#include <archive_entry.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uthash.h>

#include "base/buf.h"
#include "model/agent_tree.h"

enum {
    BLOCK_BYTES = 64 * 1024,
    PATH_MAX_BYTES = 1024,
    HEADER_MAX_BYTES =
        4 * 1024 * 1024, /* one entry's, extensions included: libarchive keeps them in memory */
    PACKAGE_BYTES = 256 * 1024,
    NAMES_MAX_BYTES = 32 * 1024 * 1024,
};

enum name_kind { NAME_DIR, NAME_FILE, NAME_LINK };

/* A path that the archive has named, or a directory above one. */
struct name {
    UT_hash_handle hh;
    enum name_kind kind;
    unsigned rights;              /* the owner's, of a file */
    uint8_t digest[SHA256_BYTES]; /* of content or target */
    char path[];
};

struct check {
    struct archive *gunzip, *tar;
    char block[BLOCK_BYTES];
    int64_t unpacked, header_from; /* bytes of the tar read so far, and up to the current entry's header */
    struct agent_tree tree;
    struct buf manifest, package; /* agent.json, package.json */
    int64_t entries, bytes;
    struct crypto_sha256_state content, holes; /* of the current entry */
    struct name *names;
    size_t names_bytes;
};

/* ---- the bytes: gunzipped by one reader, read as tar by another, counted in between ---- */

static la_ssize_t read_tar(struct archive *tar, void *arg, const void **block_out)
{
    struct check *c = arg;
    *block_out = c->block;
    if (c->unpacked - c->header_from > HEADER_MAX_BYTES) {
        archive_set_error(tar, EINVAL, "a header has more than %d bytes", HEADER_MAX_BYTES);
        return -1;
    }
    if (c->unpacked > ARCHIVE_MAX_UNPACKED_BYTES + 1024LL * ARCHIVE_MAX_ENTRIES) {
        archive_set_error(tar, EINVAL, "it unpacks to more than 1 GiB");
        return -1;
    }
    la_ssize_t n = archive_read_data(c->gunzip, c->block, sizeof c->block);
    if (n < 0)
        archive_set_error(tar, EINVAL, "%s", archive_error_string(c->gunzip));
    else
        c->unpacked += n;
    return n;
}

static int open_readers(struct check *c, int fd, struct err *err)
{
    struct archive_entry *e;
    c->gunzip = archive_read_new();
    c->tar = archive_read_new();
    if (c->gunzip == NULL || c->tar == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory");
    archive_read_support_filter_gzip(c->gunzip);
    archive_read_support_format_raw(c->gunzip);
    archive_read_support_format_tar(c->tar);
    if (lseek(fd, 0, SEEK_END) == 0)
        return err_set(err, ERR_BAD_ARCHIVE, "the archive is empty");
    if (lseek(fd, 0, SEEK_SET) != 0 || archive_read_open_fd(c->gunzip, fd, BLOCK_BYTES) != ARCHIVE_OK ||
        archive_read_next_header(c->gunzip, &e) != ARCHIVE_OK)
        return err_set(err, ERR_BAD_ARCHIVE, "not a tar.gz archive, or damaged: %.120s",
                       archive_error_string(c->gunzip));
    if (archive_filter_count(c->gunzip) != 2 || archive_filter_code(c->gunzip, 0) != ARCHIVE_FILTER_GZIP)
        return err_set(err, ERR_BAD_ARCHIVE, "not a tar.gz archive: compress the tar with gzip, once");
    if (archive_read_open(c->tar, c, NULL, read_tar, NULL) != ARCHIVE_OK)
        return err_set(err, ERR_BAD_ARCHIVE, "not a tar.gz archive: %.120s", archive_error_string(c->tar));
    return 0;
}

/* ---- names ---- */

/* A path without empty and "." parts. False: absolute, with "..", or too long. "" is the top itself. */
static bool normalize(const char *path, char out[PATH_MAX_BYTES + 1])
{
    struct str rest = str_of(path), part;
    size_t n = 0;
    if (rest.n == 0 || rest.n > PATH_MAX_BYTES || path[0] == '/')
        return false;
    while (str_split(&rest, '/', &part)) {
        if (part.n == 0 || str_eq_c(part, "."))
            continue;
        if (str_eq_c(part, ".."))
            return false;
        if (n > 0)
            out[n++] = '/';
        memcpy(out + n, part.p, part.n);
        n += part.n;
    }
    out[n] = '\0';
    return true;
}

static struct name *find_name(struct check *c, const char *path, size_t n)
{
    struct name *found;
    HASH_FIND(hh, c->names, path, n, found);
    return found;
}

static int add_name(struct check *c, const char *path, size_t n, enum name_kind kind, struct err *err)
{
    c->names_bytes += sizeof(struct name) + n + 1;
    if (c->names_bytes > NAMES_MAX_BYTES)
        return err_set(err, ERR_BAD_ARCHIVE, "the names of all entries have more than %d bytes",
                       NAMES_MAX_BYTES);
    struct name *name = calloc(1, sizeof *name + n + 1);
    if (name == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory");
    name->kind = kind;
    memcpy(name->path, path, n);
    HASH_ADD_KEYPTR(hh, c->names, name->path, n, name);
    return 0;
}

/* Every directory above path is one, and known from now on. Each known one has its own parents known, so the
 * way up ends at the first. */
static int add_parents(struct check *c, const char *path, struct err *err)
{
    size_t n = strlen(path), at = n;
    struct name *known = NULL;
    do {
        while (at > 0 && path[at - 1] != '/')
            at--;
        at -= at > 0; /* the slash */
    } while (at > 0 && (known = find_name(c, path, at)) == NULL);
    if (at > 0 && known->kind != NAME_DIR)
        return err_set(err, ERR_BAD_ARCHIVE, "\"%.100s\" lies below \"%.60s\", which is %s", path,
                       known->path, known->kind == NAME_LINK ? "a link" : "a file");
    for (size_t end = at + 1; end < n; end++)
        if (path[end] == '/' && end > at && add_name(c, path, end, NAME_DIR, err) != 0)
            return -1;
    return 0;
}

static int note_name(struct check *c, const char *path, enum name_kind kind, struct err *err)
{
    size_t n = strlen(path);
    if (n == 0)
        return kind == NAME_DIR ? 0 : err_set(err, ERR_BAD_ARCHIVE, "an entry has no name");
    struct name *known = find_name(c, path, n);
    if (known != NULL && (known->kind != NAME_DIR || kind != NAME_DIR))
        return err_set(err, ERR_BAD_ARCHIVE, "\"%.100s\" is in the archive twice", path);
    if (known != NULL)
        return 0;
    return add_parents(c, path, err) != 0 ? -1 : add_name(c, path, n, kind, err);
}

/* ---- the source's hash ---- */

static void hash_number(struct crypto_sha256_state *s, uint64_t n)
{
    n = htobe64(n);
    crypto_sha256_update(s, str_make((const char *)&n, sizeof n));
}

static void hash_text(struct crypto_sha256_state *s, const char *text)
{
    struct str t = str_of(text);
    hash_number(s, t.n);
    crypto_sha256_update(s, t);
}

/* What an entry is besides its path: bytes and holes, and where a link leads. */
static void digest_entry(struct check *c, struct archive_entry *e, struct name *name)
{
    struct crypto_sha256_state all;
    uint8_t content[SHA256_BYTES], holes[SHA256_BYTES];
    const char *hard = archive_entry_hardlink(e), *soft = archive_entry_symlink(e);
    crypto_sha256_final(&c->content, content);
    crypto_sha256_final(&c->holes, holes);
    crypto_sha256_init(&all);
    crypto_sha256_update(&all, str_make((const char *)content, sizeof content));
    crypto_sha256_update(&all, str_make((const char *)holes, sizeof holes));
    hash_text(&all, hard != NULL ? hard : "");
    hash_text(&all, hard == NULL && soft != NULL ? soft : "");
    crypto_sha256_final(&all, name->digest);
    name->rights = name->kind == NAME_FILE ? (unsigned)archive_entry_perm(e) & S_IRWXU : 0;
}

static int by_path(const struct name *a, const struct name *b)
{
    return strcmp(a->path, b->path);
}

static void hash_source(struct check *c, uint8_t out[SHA256_BYTES])
{
    struct crypto_sha256_state all;
    crypto_sha256_init(&all);
    HASH_SORT(c->names, by_path);
    for (const struct name *n = c->names; n != NULL; n = n->hh.next) {
        hash_text(&all, n->path);
        hash_number(&all, n->kind);
        hash_number(&all, n->rights);
        crypto_sha256_update(&all, str_make((const char *)n->digest, sizeof n->digest));
    }
    crypto_sha256_final(&all, out);
}

/* ---- links ---- */

/* A symbolic link may go up, but not above the top, and then only down: since no entry lies below a link, its
 * own directory is a real one, and so whatever it and the links on its way name lies inside. With ".." behind
 * a name that would not follow: the name may be a link itself. */
static bool symlink_ok(const char *path, const char *target)
{
    struct str rest = str_of(target), part;
    int depth = 0;
    bool down = false;
    if (rest.n == 0 || rest.n > PATH_MAX_BYTES || target[0] == '/')
        return false;
    for (const char *p = path; *p != '\0'; p++)
        depth += *p == '/';
    while (str_split(&rest, '/', &part)) {
        if (part.n == 0 || str_eq_c(part, "."))
            continue;
        bool up = str_eq_c(part, "..");
        if (up && (down || --depth < 0))
            return false;
        down = down || !up;
    }
    return true;
}

/* A hard link names a file that came before. */
static bool hardlink_ok(struct check *c, const char *target)
{
    char path[PATH_MAX_BYTES + 1];
    struct name *known = normalize(target, path) ? find_name(c, path, strlen(path)) : NULL;
    return known != NULL && known->kind == NAME_FILE;
}

/* ---- entries ---- */

static int check_kind(struct check *c, struct archive_entry *e, const char *path, enum name_kind *kind_out,
                      struct err *err)
{
    const char *hard = archive_entry_hardlink(e), *soft = archive_entry_symlink(e);
    *kind_out = NAME_FILE;
    if (hard != NULL)
        return hardlink_ok(c, hard) ? 0
                                    : err_set(err, ERR_BAD_ARCHIVE,
                                              "\"%.100s\" is a hard link to what is no earlier file", path);
    switch (archive_entry_filetype(e)) {
    case AE_IFREG:
        return 0;
    case AE_IFDIR:
        *kind_out = NAME_DIR;
        return 0;
    case AE_IFLNK:
        *kind_out = NAME_LINK;
        if (soft != NULL && symlink_ok(path, soft))
            return 0;
        return err_set(
            err, ERR_BAD_ARCHIVE,
            "\"%.100s\" links out of the archive: a link may begin with \"..\" as often as its own "
            "directory is deep, and not go up later",
            path);
    default:
        return err_set(err, ERR_BAD_ARCHIVE, "\"%.100s\" is neither a file, a directory nor a link", path);
    }
}

/* Reads an entry's content: counts and hashes it all, keeps agent.json and package.json. */
static int read_content(struct archive *a, struct check *c, const char *file, struct err *err)
{
    const void *block;
    size_t n;
    la_int64_t offset, at = 0;
    int rc;
    crypto_sha256_init(&c->content);
    crypto_sha256_init(&c->holes);
    while ((rc = archive_read_data_block(a, &block, &n, &offset)) == ARCHIVE_OK) {
        c->bytes += (int64_t)n;
        if (c->bytes > ARCHIVE_MAX_UNPACKED_BYTES || offset > ARCHIVE_MAX_UNPACKED_BYTES)
            return err_set(err, ERR_BAD_ARCHIVE, "the archive unpacks to more than 1 GiB");
        if (offset != at) {
            hash_number(&c->holes, (uint64_t)at);
            hash_number(&c->holes, (uint64_t)offset);
        }
        at = offset + (la_int64_t)n;
        crypto_sha256_update(&c->content, str_make(block, n));
        if (strcmp(file, "package.json") == 0)
            buf_append(&c->package, block, n); /* a longer one says nothing here */
        if (strcmp(file, "agent.json") == 0 && !buf_append(&c->manifest, block, n))
            return err_set(err, ERR_BAD_MANIFEST, "agent.json has more than %d bytes", MANIFEST_BYTES);
    }
    if (rc != ARCHIVE_EOF)
        return err_set(err, ERR_BAD_ARCHIVE, "the archive is damaged: %.120s", archive_error_string(a));
    return 0;
}

static int check_entry(struct archive *a, struct archive_entry *e, struct check *c, struct err *err)
{
    const char *raw = archive_entry_pathname(e);
    char path[PATH_MAX_BYTES + 1];
    enum name_kind kind;
    if (raw == NULL || !normalize(raw, path))
        return err_set(err, ERR_BAD_ARCHIVE,
                       "\"%.100s\" is not a path inside the archive of at most %d bytes",
                       raw != NULL ? raw : "?", PATH_MAX_BYTES);
    if (++c->entries > ARCHIVE_MAX_ENTRIES)
        return err_set(err, ERR_BAD_ARCHIVE, "the archive has more than %d entries", ARCHIVE_MAX_ENTRIES);
    if (check_kind(c, e, path, &kind, err) != 0 || note_name(c, path, kind, err) != 0)
        return -1;
    if (kind == NAME_FILE && strchr(path, '/') == NULL)
        agent_tree_note(&c->tree, str_of(path), (archive_entry_perm(e) & S_IXUSR) != 0);
    int rc = read_content(a, c, kind == NAME_FILE ? path : "", err);
    struct name *name = find_name(c, path, strlen(path));
    if (rc == 0 && kind != NAME_DIR)
        digest_entry(c, e, name);
    c->header_from = c->unpacked;
    return rc;
}

static int walk(struct archive *a, struct check *c, struct err *err)
{
    struct archive_entry *e;
    int rc;
    while ((rc = archive_read_next_header(a, &e)) == ARCHIVE_OK || rc == ARCHIVE_WARN) {
        c->header_from = INT64_MAX / 2; /* content has its own limit */
        if (check_entry(a, e, c, err) != 0)
            return -1;
    }
    if (rc != ARCHIVE_EOF)
        return err_set(err, ERR_BAD_ARCHIVE, "not a tar.gz archive, or damaged: %.120s",
                       archive_error_string(a));
    if (c->entries == 0)
        return err_set(err, ERR_BAD_ARCHIVE, "the archive is empty");
    return 0;
}

static void check_free(struct check *c)
{
    struct name *name, *next;
    HASH_ITER(hh, c->names, name, next)
    {
        HASH_DEL(c->names, name);
        free(name);
    }
    archive_read_free(c->tar);
    archive_read_free(c->gunzip);
    buf_deinit(&c->manifest);
    buf_deinit(&c->package);
    free(c);
}

/* Whether the entry is there: an install step may make it, or a template have it, else nothing does. Links
 * are the sandbox's to follow. */
static int check_entry_file(struct check *c, const struct manifest *m, struct err *err)
{
    char path[PATH_MAX_BYTES + 1];
    if (strcmp(m->runtime, "command") == 0 || m->install[0] != '\0' || m->template[0] != '\0' ||
        !normalize(m->entry, path))
        return 0;
    for (size_t n = strlen(path); n > 0; n--) {
        struct name *known = path[n] == '\0' || path[n] == '/' ? find_name(c, path, n) : NULL;
        if (known != NULL && (path[n] == '\0' || known->kind == NAME_LINK))
            return 0;
    }
    return err_set(err, ERR_BAD_MANIFEST,
                   "the archive has no \"%.100s\", which is the entry: add it, or name another as \"entry\" "
                   "in agent.json",
                   m->entry);
}

int bundle_check(int fd, struct bundle *out, struct err *err)
{
    struct check *c = calloc(1, sizeof *c);
    if (c == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory");
    buf_init(&c->manifest, MANIFEST_BYTES);
    buf_init(&c->package, PACKAGE_BYTES);
    int rc = -1;
    bool whole = open_readers(c, fd, err) == 0 && walk(c->tar, c, err) == 0;
    if (whole && !c->package.failed && c->package.len > 0)
        agent_tree_package(&c->tree, buf_view(&c->package));
    if (whole && manifest_parse(buf_view(&c->manifest), &c->tree, &out->manifest, err) == 0)
        rc = manifest_check(&out->manifest, err);
    if (rc == 0)
        rc = check_entry_file(c, &out->manifest, err);
    if (rc == 0)
        hash_source(c, out->source_sha256);
    check_free(c);
    return rc;
}
