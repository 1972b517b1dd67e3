/* artifacts: the files that an invocation left, listed and downloaded.
 *
 * A download grows in NAME.part, which a later call goes on with; it gets its name when its SHA-256 is the
 * record's. Paths come from a program of somebody's: every component is opened without following links, so
 * nothing is written outside the directory. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "crypto/crypto.h"
#include "model/file_path.h"
#include "progress.h"

enum { PATH_BYTES = 4096, READ_BYTES = 256 * 1024, IDLE_MS = 60000, TRIES = 5, RETRY_MS = 500 };

struct artifacts {
    struct cli *cli;
    const char *id, *get, *output;
    struct reply list;
};

/* One on its way. */
struct fetch {
    struct cli *cli;
    struct str path, sha256, url; /* views of the list */
    int64_t bytes, have;
    int fd;
    struct crypto_sha256_state hash;
    struct progress bar;
    const char *failed; /* why it cannot be kept */
};

/* ---- the list ---- */

static int read_list(struct artifacts *a)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyz0123456789_-";
    char path[PATH_BYTES];
    if (strspn(a->id, plain) != strlen(a->id) || strlen(a->id) > 80)
        return cli_error("\"%s\" is no id; invocations have ids like inv_...", a->id);
    snprintf(path, sizeof path, "/v1/invocations/%s/artifacts", a->id);
    const struct api_request q = {.method = "GET", .path = path, .retry = API_RETRY_BUSY};
    api_call(a->cli, &q, &a->list);
    return reply_check(a->cli, &a->list, "artifacts");
}

static const struct json_value *first(const struct artifacts *a)
{
    return json_first(json_get(json_root(a->list.doc), "artifacts"));
}

static void warn_truncated(const struct artifacts *a)
{
    bool truncated = false;
    json_bool(json_get(json_root(a->list.doc), "artifacts_truncated"), &truncated);
    if (truncated)
        fprintf(stderr, "sandpiper: some artifacts were left out; 'sandpiper logs %s' says why\n", a->id);
}

static int print_list(const struct artifacts *a)
{
    if (a->cli->json) {
        reply_print(&a->list);
        return STATUS_OK;
    }
    if (first(a) != NULL)
        printf("%12s  %-16s  %s\n", "BYTES", "SHA256", "PATH");
    for (const struct json_value *v = first(a); v != NULL; v = json_next(v)) {
        struct str sha256 = reply_str(v, "sha256"), path = reply_str(v, "path");
        printf("%12lld  %-16.*s  %.*s\n", (long long)reply_int(&a->list, v, "bytes"),
               sha256.n < 16 ? (int)sha256.n : 16, sha256.p, STR_ARG(path));
    }
    warn_truncated(a);
    return STATUS_OK;
}

/* ---- places ---- */

/* The directory that path's last component lies in, below dir; made as needed. -1: told. */
static int open_parent(int dir, struct str path, struct str *name_out)
{
    char name[FILE_NAME_MAX + 1];
    struct str rest = path, part;
    int at = dup(dir);
    while (at >= 0 && str_split(&rest, '/', &part)) {
        *name_out = part;
        if (rest.p == NULL)
            return at;
        str_copy(part, name, sizeof name);
        int next = -1;
        if (mkdirat(at, name, 0777) == 0 || errno == EEXIST)
            next = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (next < 0)
            cli_error("%.*s: %s", STR_ARG(path), errno == ELOOP ? "a link is in the way" : strerror(errno));
        close(at);
        at = next;
    }
    return -1;
}

/* ---- one file ---- */

static bool hash_fd(int fd, struct crypto_sha256_state *h, int64_t *bytes)
{
    char *piece = malloc(READ_BYTES);
    ssize_t n = piece != NULL ? 0 : -1;
    crypto_sha256_init(h);
    *bytes = 0;
    while (piece != NULL && (n = read(fd, piece, READ_BYTES)) > 0) {
        crypto_sha256_update(h, str_make(piece, (size_t)n));
        *bytes += n;
    }
    free(piece);
    return n == 0;
}

static bool is_genuine(const struct fetch *f)
{
    struct crypto_sha256_state h = f->hash;
    uint8_t sha256[SHA256_BYTES];
    struct buf hex;
    crypto_sha256_final(&h, sha256);
    buf_init(&hex, 2 * SHA256_BYTES + 1);
    crypto_hex(str_make((const char *)sha256, sizeof sha256), &hex);
    bool same = str_eq(buf_view(&hex), f->sha256);
    buf_deinit(&hex);
    return same;
}

static bool on_data(void *arg, struct str piece)
{
    struct fetch *f = arg;
    if (f->have + (int64_t)piece.n > f->bytes)
        f->failed = "more came than it has";
    for (size_t at = 0; f->failed == NULL && at < piece.n;) {
        ssize_t n = write(f->fd, piece.p + at, piece.n - at);
        if (n <= 0 && errno != EINTR)
            f->failed = strerror(errno);
        at += n > 0 ? (size_t)n : 0;
    }
    if (f->failed != NULL)
        return false;
    crypto_sha256_update(&f->hash, piece);
    f->have += (int64_t)piece.n;
    if (progress_is_due(f->bytes) && !f->cli->json)
        progress_draw_bytes(&f->bar, "receiving", f->have, f->bytes);
    return true;
}

/* Goes on where it broke off, a few times. */
static int receive(struct fetch *f)
{
    char url[PATH_BYTES], range[64], only_if[96];
    struct reply r = {0};
    int status = STATUS_OK;
    str_copy(f->url, url, sizeof url);
    snprintf(only_if, sizeof only_if, "If-Range: \"%.*s\"", STR_ARG(f->sha256));
    for (int tries = 0; f->have < f->bytes && tries < TRIES; tries++) {
        snprintf(range, sizeof range, "Range: bytes=%lld-", (long long)f->have);
        const struct api_request q = {.method = "GET",
                                      .path = url,
                                      .headers = {range, only_if},
                                      .idle_ms = IDLE_MS,
                                      .on_data = on_data,
                                      .arg = f};
        int64_t before = f->have;
        reply_deinit(&r);
        api_call(f->cli, &q, &r);
        if (r.kind == REPLY_INTERRUPTED || f->failed != NULL || r.kind == REPLY_PROBLEM)
            break;
        if (f->have > before)
            tries = 0;
        if (f->have < f->bytes)
            cli_sleep(f->cli, RETRY_MS);
    }
    if (progress_is_due(f->bytes) && !f->cli->json)
        fputs("\r\033[K", stderr);
    if (f->failed != NULL)
        cli_error("%.*s: %s", STR_ARG(f->path), f->failed);
    if (f->failed != NULL)
        status = STATUS_ENDED;
    else if (f->have < f->bytes)
        status = api_complain(f->cli, &r);
    reply_deinit(&r);
    return status;
}

/* What a call before this one left is gone on with. */
static bool open_part(struct fetch *f, int dir, const char *part)
{
    f->fd = openat(dir, part, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (f->fd < 0 || !hash_fd(f->fd, &f->hash, &f->have))
        return false;
    if (f->have <= f->bytes)
        return true;
    crypto_sha256_init(&f->hash);
    f->have = 0;
    return ftruncate(f->fd, 0) == 0 && lseek(f->fd, 0, SEEK_SET) == 0;
}

/* Whether the file is there already: 1; 0; -1: told that another one is. */
static int is_there(const struct fetch *f, int dir, const char *name)
{
    struct fetch old = *f;
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return 0;
    old.fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    bool same = old.fd >= 0 && hash_fd(old.fd, &old.hash, &old.have) && is_genuine(&old);
    if (old.fd >= 0)
        close(old.fd);
    if (!same)
        cli_error("%s is there, and differs; move it away first", name);
    return same ? 1 : -1;
}

static int finish(struct fetch *f, int dir, const char *part, const char *name)
{
    if (!is_genuine(f)) {
        unlinkat(dir, part, 0);
        cli_error("%.*s: what came is not what was stored (its SHA-256 differs); try again",
                  STR_ARG(f->path));
        return STATUS_ENDED;
    }
    if (renameat(dir, part, dir, name) == 0)
        return STATUS_OK;
    cli_error("%s: %s", name, strerror(errno));
    return STATUS_ENDED;
}

static int fetch_to(struct fetch *f, int dir, struct str as)
{
    char name[FILE_NAME_MAX + 1], part[FILE_NAME_MAX + 8];
    int status = STATUS_ENDED;
    if (!str_copy(as, name, sizeof name))
        return STATUS_ENDED;
    snprintf(part, sizeof part, "%.*s.part", FILE_NAME_MAX - 5, name);
    int there = is_there(f, dir, name);
    if (there != 0)
        return there > 0 ? STATUS_OK : STATUS_ENDED;
    if (open_part(f, dir, part))
        status = receive(f);
    else
        cli_error("%s: %s", part, strerror(errno));
    if (status == STATUS_OK)
        status = finish(f, dir, part, name);
    if (f->fd >= 0)
        close(f->fd);
    return status;
}

static bool describe(const struct artifacts *a, const struct json_value *v, struct fetch *f)
{
    struct err err;
    *f = (struct fetch){.cli = a->cli,
                        .path = reply_str(v, "path"),
                        .sha256 = reply_str(v, "sha256"),
                        .url = reply_str(v, "url"),
                        .bytes = reply_int(&a->list, v, "bytes"),
                        .fd = -1};
    if (file_path_check(f->path, &err) == 0 && f->sha256.n == 2 * SHA256_BYTES && f->bytes >= 0 &&
        str_starts(f->url, STR("/v1/")))
        return true;
    cli_error("the gateway's answer is no list of artifacts");
    return false;
}

/* ---- the commands ---- */

static int get_all(const struct artifacts *a)
{
    struct fetch f;
    int status = STATUS_OK;
    if (mkdir(a->output, 0777) != 0 && errno != EEXIST)
        return cli_error("%s: %s", a->output, strerror(errno));
    int dir = open(a->output, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return cli_error("%s: %s", a->output, strerror(errno));
    for (const struct json_value *v = first(a); v != NULL && status == STATUS_OK; v = json_next(v)) {
        struct str name;
        int parent = describe(a, v, &f) ? open_parent(dir, f.path, &name) : -1;
        status = parent >= 0 ? fetch_to(&f, parent, name) : STATUS_ENDED;
        if (parent >= 0)
            close(parent);
        if (status == STATUS_OK && !a->cli->json)
            printf("%s/%.*s\n", a->output, STR_ARG(f.path));
    }
    close(dir);
    warn_truncated(a);
    return status;
}

static const char *last_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* Into the directory it is run in, or to where --output says. */
static int get_one(const struct artifacts *a)
{
    struct fetch f;
    const char *to = a->output != NULL ? a->output : last_of(a->get);
    const struct json_value *v = first(a);
    while (v != NULL && !str_eq_c(reply_str(v, "path"), a->get))
        v = json_next(v);
    if (v == NULL) {
        cli_error("%s left no artifact %s; 'sandpiper artifacts %s' lists them", a->id, a->get, a->id);
        return STATUS_ENDED;
    }
    if (!describe(a, v, &f))
        return STATUS_API;
    char *parent = strndup(to, (size_t)(last_of(to) - to));
    int dir =
        parent != NULL ? open(parent[0] != '\0' ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int status = dir >= 0 ? fetch_to(&f, dir, str_of(last_of(to)))
                          : cli_error("%s: %s", parent != NULL ? parent : to, strerror(errno));
    free(parent);
    if (dir >= 0)
        close(dir);
    if (status == STATUS_OK && !a->cli->json)
        printf("%s\n", to);
    return status;
}

int command_artifacts(struct cli *cli, int argc, char **argv)
{
    struct artifacts a = {.cli = cli};
    const struct cli_option options[] = {
        {"output", CLI_TEXT, &a.output, "PATH",
         "(-o) download: all into that directory; with get, to that file"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {
        "artifacts ID [ls | get PATH] [-o PATH]",
        "Lists the files that an invocation left, or downloads one (get) or all of them (-o DIR).\n"
        "A download that broke off is gone on with; each is compared with its SHA-256.",
        options, 1, 3};
    int first_arg, status;
    if (!cli_parse(cli, &usage, argc, argv, &first_arg, &status))
        return status;
    int n = argc - first_arg;
    const char *verb = n > 1 ? argv[first_arg + 1] : "ls";
    bool get = strcmp(verb, "get") == 0;
    a.id = argv[first_arg];
    a.get = get && n == 3 ? argv[first_arg + 2] : NULL;
    if ((!get && strcmp(verb, "ls") != 0) || (get && a.get == NULL) || (!get && n == 3))
        return cli_error("say ls, or get PATH\nUsage: sandpiper %s", usage.usage);
    cli_catch_interrupt(cli);
    status = read_list(&a);
    if (status == 0)
        status = a.get != NULL ? get_one(&a) : a.output != NULL ? get_all(&a) : print_list(&a);
    reply_deinit(&a.list);
    return status;
}
