/* Files on their way into a sandbox.
 *
 *   turn -> the set's list -> for each file: is its place free? -> chunks into an unlinked file, hashed ->
 *   mapped and uploaded
 *
 * What comes out of the database is compared with the hash that was taken when it came: damaged bytes reach
 * no program. None of the agent's own files is replaced: the attempt ends instead. */
#include "files_in.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/culprit.h"
#include "base/log.h"
#include "model/file_path.h"
#include "store/files.h"
#include "transfers.h"

enum { STORE_MS = 30000, CALL_MS = 120000, MESSAGE_BYTES = 400 };

struct in_file {
    char *path;
    int64_t bytes;
    uint8_t sha256[SHA256_BYTES];
    int16_t mode;
    int32_t chunk;
};

struct files_in {
    struct executor *x;
    struct job *j; /* NULL: freed, but the database still owes an answer */
    files_in_fn *fn;
    struct transfer_turn turn;
    bool asked;
    size_t count, at;
    struct in_file *files;
    int fd;
    int64_t have; /* of the current file, in fd */
    struct crypto_sha256_state hash;
    void *map;
    size_t map_bytes;
};

static void failed(struct files_in *in, const struct sandbox_failure *f);
static void next_file(struct files_in *in);
static void next_chunk(struct files_in *in);

static struct file_set set_of(const struct files_in *in)
{
    return (struct file_set){.id = in->j->entry.files};
}

static void rest(struct files_in *in)
{
    transfer_done(in->x->transfers, &in->turn);
    if (in->map != NULL)
        munmap(in->map, in->map_bytes);
    if (in->fd >= 0)
        close(in->fd);
    in->map = NULL;
    in->fd = -1;
}

static void really_free(struct files_in *in)
{
    for (size_t i = 0; i < in->count; i++)
        free(in->files[i].path);
    free(in->files);
    free(in);
}

void files_in_free(struct files_in **pin)
{
    struct files_in *in = *pin;
    *pin = NULL;
    if (in == NULL)
        return;
    rest(in);
    in->j = NULL;
    if (!in->asked)
        really_free(in);
}

/* An answer of the database. False: nobody waits for it any more, and it is gone. */
static bool answered(struct files_in *in)
{
    in->asked = false;
    if (in->j != NULL)
        return true;
    really_free(in);
    return false;
}

static void end(struct files_in *in, enum err_code code, bool ours, const char *message)
{
    struct job *j = in->j;
    rest(in);
    in->fn(j, code, ours, message, NULL);
}

static void end_ours(struct files_in *in, enum err_code code, const char *message)
{
    end(in, code, true, message);
}

/* ---- one file: uploaded ---- */

static void on_uploaded(void *arg, const struct sandbox_failure *f)
{
    struct files_in *in = arg;
    in->j->request = NULL;
    if (in->map != NULL)
        munmap(in->map, in->map_bytes);
    in->map = NULL;
    if (f != NULL) {
        failed(in, f);
        return;
    }
    in->at++;
    next_file(in);
}

/* The working directory is below the user's home, from where the provider resolves relative paths. */
static void target(const struct files_in *in, char out[FILE_PATH_MAX + 16])
{
    snprintf(out, FILE_PATH_MAX + 16, "agent/%s", in->files[in->at].path);
}

static void upload(struct files_in *in)
{
    char path[FILE_PATH_MAX + 16];
    struct str data = STR("");
    if (in->have > 0) {
        in->map_bytes = (size_t)in->have;
        in->map = mmap(NULL, in->map_bytes, PROT_READ, MAP_SHARED, in->fd, 0);
        if (in->map == MAP_FAILED) {
            in->map = NULL;
            end_ours(in, ERR_UNAVAILABLE, "a spooled file cannot be read");
            return;
        }
        data = str_make(in->map, in->map_bytes);
    }
    target(in, path);
    in->j->request =
        sandbox_write_file(in->x->provider, &in->j->sandbox, path, data, CALL_MS, on_uploaded, in);
    if (in->j->request == NULL)
        end_ours(in, ERR_JOB_PROVIDER, "the provider refused an upload");
}

/* ---- one file: fetched ---- */

static bool is_genuine(struct files_in *in)
{
    uint8_t sha256[SHA256_BYTES];
    crypto_sha256_final(&in->hash, sha256);
    return memcmp(sha256, in->files[in->at].sha256, sizeof sha256) == 0;
}

static void on_chunk(void *arg, struct str data, const struct err *err)
{
    struct files_in *in = arg;
    if (!answered(in))
        return;
    CULPRIT(in->j->lease.id);
    if (err != NULL) {
        end_ours(in, ERR_UNAVAILABLE, err->msg);
    } else if (data.n == 0 || in->have + (int64_t)data.n > in->files[in->at].bytes) {
        end(in, ERR_INTERNAL, false, "a file of the submission is not kept any more");
    } else if (write(in->fd, data.p, data.n) != (ssize_t)data.n) {
        end_ours(in, ERR_UNAVAILABLE, "no room to spool a file");
    } else {
        crypto_sha256_update(&in->hash, data);
        in->have += (int64_t)data.n;
        next_chunk(in);
    }
}

static void next_chunk(struct files_in *in)
{
    const struct in_file *f = &in->files[in->at];
    struct err err = ERR_INIT;
    if (in->have == f->bytes) {
        if (is_genuine(in))
            upload(in);
        else
            end(in, ERR_INTERNAL, false, "a file of the submission was damaged in the database");
        return;
    }
    in->asked = file_chunk_get(in->x->read, set_of(in), f->chunk + (int32_t)(in->have / INV_CHUNK_BYTES),
                               STORE_MS, on_chunk, in, &err) == 0;
    if (!in->asked)
        end_ours(in, ERR_UNAVAILABLE, err.msg);
}

static void fetch(struct files_in *in)
{
    if (in->fd < 0)
        in->fd = open(in->x->settings->spool_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (in->fd < 0 || ftruncate(in->fd, 0) != 0 || lseek(in->fd, 0, SEEK_SET) != 0) {
        end_ours(in, ERR_UNAVAILABLE, "no room to spool a file");
        return;
    }
    in->have = 0;
    crypto_sha256_init(&in->hash);
    next_chunk(in);
}

/* ---- one file: its place ---- */

/* What would fail again in any sandbox (a file of the agent's where a directory should be, for one) ends it.
 */
static void failed(struct files_in *in, const struct sandbox_failure *f)
{
    char message[MESSAGE_BYTES];
    if (f->retry != RETRY_NEVER || f->sandbox_gone) {
        rest(in);
        in->fn(in->j, ERR_JOB_PROVIDER, true, f->err.msg, f);
        return;
    }
    snprintf(message, sizeof message, "no file can be put at %.80s: %.100s", in->files[in->at].path,
             f->err.msg);
    end(in, ERR_JOB_FILE_EXISTS, false, message);
}

static void on_looked(void *arg, const struct sandbox_entry *entries, size_t n,
                      const struct sandbox_failure *f)
{
    struct files_in *in = arg;
    char message[MESSAGE_BYTES];
    (void)entries, (void)n;
    in->j->request = NULL;
    if (f != NULL && f->err.code == ERR_NOT_FOUND && !f->sandbox_gone) {
        fetch(in);
    } else if (f != NULL) {
        failed(in, f);
    } else {
        snprintf(message, sizeof message, "the agent has a file or directory of its own at %s",
                 in->files[in->at].path);
        end(in, ERR_JOB_FILE_EXISTS, false, message);
    }
}

static void next_file(struct files_in *in)
{
    char path[FILE_PATH_MAX + 16];
    if (in->at == in->count) {
        end(in, ERR_NONE, false, NULL);
        return;
    }
    target(in, path);
    in->j->request = sandbox_stat(in->x->provider, &in->j->sandbox, path, CALL_MS, on_looked, in);
    if (in->j->request == NULL)
        end_ours(in, ERR_JOB_PROVIDER, "the provider refused a look at a file");
}

/* ---- the list ---- */

static bool keep_list(struct files_in *in, const struct file_entry *files, size_t n)
{
    in->files = calloc(n, sizeof *in->files);
    for (size_t i = 0; in->files != NULL && i < n; i++) {
        struct in_file *f = &in->files[in->count++];
        *f = (struct in_file){.path = str_dup(files[i].path),
                              .bytes = files[i].bytes,
                              .mode = files[i].mode,
                              .chunk = files[i].chunk};
        memcpy(f->sha256, files[i].sha256, sizeof f->sha256);
        if (f->path == NULL)
            return false;
    }
    return in->files != NULL;
}

static void on_files(void *arg, const struct file_entry *files, size_t n, const struct err *err)
{
    struct files_in *in = arg;
    if (!answered(in))
        return;
    CULPRIT(in->j->lease.id);
    if (err != NULL)
        end_ours(in, ERR_UNAVAILABLE, err->msg);
    else if (n == 0)
        end(in, ERR_INTERNAL, false, "the submission's files are not kept any more");
    else if (!keep_list(in, files, n))
        end_ours(in, ERR_NO_MEMORY, "no memory for a list of files");
    else
        next_file(in);
}

static void begin(void *arg)
{
    struct files_in *in = arg;
    struct err err = ERR_INIT;
    CULPRIT(in->j->lease.id);
    in->asked = files_get(in->x->read, set_of(in), STORE_MS, on_files, in, &err) == 0;
    if (!in->asked)
        end_ours(in, ERR_UNAVAILABLE, err.msg);
}

void files_in_start(struct job *j, files_in_fn *fn)
{
    struct files_in *in = calloc(1, sizeof *in);
    INVARIANT(in != NULL); /* bounded by the jobs of this process */
    *in = (struct files_in){.x = j->x, .j = j, .fn = fn, .fd = -1};
    j->files_in = in;
    transfer_ask(j->x->transfers, &in->turn, begin, in);
}

size_t files_in_programs(const struct files_in *in, const char **out, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; in != NULL && i < in->count && n < max; i++)
        if (in->files[i].mode == FILE_MODE_PROGRAM)
            out[n++] = in->files[i].path;
    return n;
}
