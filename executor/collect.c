/* Gathering what a program left.
 *
 *   turn -> report of its usage -> the directory's list -> set opened -> for each file: piece by piece out of
 *   the sandbox, hashed, into the database -> the set's list
 *
 * Memory holds one piece. A file counts when all of it is stored: one that changes, vanishes or cannot be
 * read is left out, and `truncated` says so. Chunks lie under the attempt's number, so a loser's never mix
 * with the winner's; whoever dies in between leaves a row in file_sets, by which a dispatcher finds them. */
#include "collect.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/culprit.h"
#include "base/log.h"
#include "environment.h"
#include "mirror.h"
#include "model/file_path.h"
#include "model/usage_report.h"
#include "store/files.h"
#include "transfers.h"

enum {
    STORE_MS = 10000,
    CALL_MS = 30000,
    AGAIN_MS = 500,
    DROP_MS = 60000,
    DEPTH = 8,
    PIECE_CHUNKS = 4,
    PIECE_BYTES = PIECE_CHUNKS * INV_CHUNK_BYTES,
    TRIES = 3, /* of reading a piece */
    NOTE_BYTES = 256,
    ROOT_BYTES = 4096,
};

struct out_file {
    char *path; /* relative to the root */
    int64_t bytes;
    uint8_t sha256[SHA256_BYTES];
    int32_t chunk;
    bool whole;
};

enum stage { REPORT, LOOK, OPEN, FILES, LIST, OVER };

struct collect {
    struct executor *x;
    struct job *j; /* NULL: freed, but the database still owes an answer */
    collect_fn *done;
    struct transfer_turn turn;
    struct loop_timer *again;
    enum stage stage;
    bool artifacts, asked, opened;

    struct inv_cost cost;
    char report_note[NOTE_BYTES]; /* what the log is to say of it */

    struct file_set set;
    char root[ROOT_BYTES]; /* the directory, absolute */
    struct out_file *files;
    size_t count, at;
    int left_out;
    char why[NOTE_BYTES]; /* of the first that was left out */

    /* the current file */
    int64_t have;
    int32_t chunk; /* the next one of the set */
    int tries;
    struct crypto_sha256_state hash;
    struct buf piece;
    int16_t listed; /* files in the stored list */
};

static void next_file(struct collect *c);
static void next_piece(struct collect *c);
static void store(void *arg);
static void look(struct collect *c);

/* ---- life ---- */

static void rest(struct collect *c)
{
    transfer_done(c->x->transfers, &c->turn);
    loop_timer_free(&c->again);
    buf_deinit(&c->piece);
    c->stage = OVER;
}

void collect_stop(struct job *j)
{
    if (j->collect != NULL)
        rest(j->collect);
}

static void really_free(struct collect *c)
{
    for (size_t i = 0; i < c->count; i++)
        free(c->files[i].path);
    free(c->files);
    free(c);
}

void collect_free(struct collect **pc)
{
    struct collect *c = *pc;
    *pc = NULL;
    if (c == NULL)
        return;
    rest(c);
    c->j = NULL;
    if (!c->asked)
        really_free(c);
}

static bool answered(struct collect *c)
{
    c->asked = false;
    if (c->j != NULL)
        return c->stage != OVER;
    really_free(c);
    return false;
}

static void over(struct collect *c)
{
    struct job *j = c->j;
    rest(c);
    c->done(j);
}

static void leave_out(struct collect *c, const char *path, const char *why)
{
    if (c->left_out++ == 0)
        snprintf(c->why, sizeof c->why, "%.120s: %.100s", path, why);
}

/* The current file is given up: what is stored of it goes. */
static void leave_file(struct collect *c, const char *why)
{
    struct out_file *f = &c->files[c->at++];
    leave_out(c, f->path, why);
    if (c->chunk > f->chunk)
        file_chunks_drop(c->x->write_large, c->set, f->chunk, c->chunk, DROP_MS);
}

/* ---- the report ---- */

static void report_path(const struct job *j, char *out, size_t n)
{
    char id[UUID_TEXT_BYTES];
    uuid_format(j->lease.id, id);
    snprintf(out, n, "/tmp/.sandpiper-usage-%s.json", id);
}

bool collect_env(struct job *j, char out[COLLECT_ENV_BYTES])
{
    char path[80];
    if (j->version.manifest->usage == USAGE_STREAM_JSON && j->usage_scan == NULL)
        j->usage_scan = usage_scan_new(); /* without memory there is no report */
    if (j->version.manifest->usage != USAGE_FILE)
        return false;
    report_path(j, path, sizeof path);
    snprintf(out, COLLECT_ENV_BYTES, "SANDPIPER_USAGE_FILE=%s", path);
    return true;
}

static void refuse_report(struct collect *c, const char *why)
{
    snprintf(c->report_note, sizeof c->report_note, "sandpiper: the usage report is ignored: %.180s", why);
}

static void on_report(void *arg, struct str content, const struct sandbox_failure *f)
{
    struct collect *c = arg;
    struct err err = ERR_INIT;
    c->j->request = NULL;
    if (f != NULL && f->err.code == ERR_LIMIT)
        refuse_report(c, "it has more than 64 KiB");
    else if (f != NULL && f->err.code != ERR_NOT_FOUND) /* it may leave the report out */
        refuse_report(c, "it could not be read from the sandbox");
    else if (f == NULL && usage_report_parse(content, &c->cost, &err) != 0)
        refuse_report(c, err.msg);
    look(c);
}

static void read_file_report(struct collect *c)
{
    char path[80];
    report_path(c->j, path, sizeof path);
    c->j->request = sandbox_read_file(c->x->provider, &c->j->sandbox, path, USAGE_REPORT_MAX_BYTES, CALL_MS,
                                      on_report, c);
    if (c->j->request == NULL)
        look(c);
}

static void read_report(void *arg)
{
    struct collect *c = arg;
    struct err err = ERR_INIT;
    CULPRIT(c->j->lease.id);
    if (c->j->version.manifest->usage == USAGE_FILE) {
        read_file_report(c);
        return;
    }
    if (c->j->usage_scan != NULL && usage_scan_end(c->j->usage_scan, &c->cost, &err) < 0)
        refuse_report(c, err.msg);
    look(c);
}

/* ---- what there is ---- */

static void give_up(struct collect *c, const char *why)
{
    leave_out(c, c->j->version.manifest->artifacts, why);
    over(c);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct out_file *)a)->path, ((const struct out_file *)b)->path);
}

/* An entry of the list; false without memory. */
static bool take_entry(struct collect *c, const struct sandbox_entry *e)
{
    struct err err;
    size_t n = strlen(c->root);
    bool below = e->path.n > n + 1 && memcmp(e->path.p, c->root, n) == 0 && e->path.p[n] == '/';
    struct str path = below ? str_make(e->path.p + n + 1, e->path.n - n - 1) : str_of(NULL);
    if (e->kind != SANDBOX_FILE)
        return true;
    if (file_path_check(path, &err) != 0) {
        leave_out(c, "a file", err.msg);
        return true;
    }
    struct out_file *f = &c->files[c->count];
    *f = (struct out_file){.path = str_dup(path), .bytes = e->bytes};
    if (f->path == NULL)
        return false;
    c->count++;
    return true;
}

/* The first ones by path that are within the limits; the others are left out. */
static void choose(struct collect *c)
{
    int64_t total = 0, max = c->x->settings->max_artifact_bytes;
    size_t kept = 0;
    qsort(c->files, c->count, sizeof *c->files, by_path);
    for (size_t i = 0; i < c->count; i++) {
        struct out_file *f = &c->files[i];
        bool fits = kept < FILES_MAX && f->bytes <= max - total;
        if (!fits) {
            leave_out(c, f->path,
                      kept == FILES_MAX ? "there are more than 100" : "they are too large together");
            free(f->path);
            continue;
        }
        total += f->bytes;
        c->files[kept++] = *f;
    }
    c->count = kept;
}

static void on_list(void *arg, const struct sandbox_entry *entries, size_t n, const struct sandbox_failure *f)
{
    struct collect *c = arg;
    c->j->request = NULL;
    if (f != NULL) {
        give_up(c, f->err.code == ERR_LIMIT ? "it holds too many files" : f->err.msg);
        return;
    }
    c->files = calloc(n + 1, sizeof *c->files);
    for (size_t i = 0; c->files != NULL && i < n; i++)
        if (!take_entry(c, &entries[i]))
            break;
    if (c->files == NULL) {
        give_up(c, "no memory");
        return;
    }
    choose(c);
    c->stage = OPEN;
    if (c->count > 0)
        store(c);
    else
        over(c);
}

static void on_root(void *arg, const struct sandbox_entry *entries, size_t n, const struct sandbox_failure *f)
{
    struct collect *c = arg;
    struct job *j = c->j;
    j->request = NULL;
    if (f != NULL && f->err.code == ERR_NOT_FOUND && !f->sandbox_gone)
        over(c); /* it left none */
    else if (f != NULL)
        give_up(c, f->err.msg);
    else if (n != 1 || entries[0].kind != SANDBOX_DIRECTORY)
        give_up(c, "it is no directory");
    else if (!str_copy(entries[0].path, c->root, sizeof c->root))
        give_up(c, "its path is too long");
    else if ((j->request =
                  sandbox_list_dir(c->x->provider, &j->sandbox, c->root, DEPTH, CALL_MS, on_list, c)) == NULL)
        give_up(c, "the provider refused a look");
}

/* The report is done with. */
static void look(struct collect *c)
{
    char path[512];
    if (!c->artifacts) {
        over(c);
        return;
    }
    c->stage = LOOK;
    snprintf(path, sizeof path, "agent/%s", c->j->version.manifest->artifacts);
    c->j->request = sandbox_stat(c->x->provider, &c->j->sandbox, path, CALL_MS, on_root, c);
    if (c->j->request == NULL)
        give_up(c, "the provider refused a look");
}

/* ---- into the database: tried until the step's time is up ---- */

static void stored(struct collect *c)
{
    switch (c->stage) {
    case OPEN:
        c->stage = FILES;
        next_file(c);
        break;
    case FILES:
        c->chunk += (int32_t)((c->piece.len + INV_CHUNK_BYTES - 1) / INV_CHUNK_BYTES);
        buf_clear(&c->piece);
        next_piece(c);
        break;
    case LIST:
        over(c);
        break;
    case REPORT:
    case LOOK:
    case OVER:
        break;
    }
}

static void on_stored(void *arg, const struct err *err)
{
    struct collect *c = arg;
    if (!answered(c))
        return;
    CULPRIT(c->j->lease.id);
    if (err == NULL) {
        stored(c);
    } else if (err->code == ERR_CONFLICT || err->code == ERR_PG_DATA) { /* another attempt goes on: we lost */
        c->listed = 0;
        give_up(c, err->msg);
    } else {
        loop_timer_start(c->again, AGAIN_MS);
    }
}

static int put_piece(struct collect *c)
{
    uint32_t lengths[PIECE_CHUNKS];
    int n = 0;
    for (size_t at = 0; at < c->piece.len; at += INV_CHUNK_BYTES)
        lengths[n++] = (uint32_t)(c->piece.len - at < INV_CHUNK_BYTES ? c->piece.len - at : INV_CHUNK_BYTES);
    return file_chunks_put(c->x->write_large, c->set, c->chunk, buf_view(&c->piece), lengths, n, STORE_MS,
                           on_stored, c, NULL);
}

static int put_list(struct collect *c)
{
    struct file_entry list[FILES_MAX];
    size_t n = 0;
    for (size_t i = 0; i < c->count; i++) {
        const struct out_file *f = &c->files[i];
        if (!f->whole)
            continue;
        list[n] = (struct file_entry){
            .path = str_of(f->path), .bytes = f->bytes, .mode = FILE_MODE_PLAIN, .chunk = f->chunk};
        memcpy(list[n++].sha256, f->sha256, sizeof f->sha256);
    }
    c->listed = (int16_t)n;
    return file_set_list(c->x->write_large, c->set, list, n, STORE_MS, on_stored, c, NULL);
}

/* What the stage has to write. */
static void store(void *arg)
{
    struct collect *c = arg;
    int rc = -1;
    CULPRIT(c->j->lease.id);
    if (c->stage == OPEN) {
        c->opened = true;
        rc = file_set_open(c->x->write_large, c->set, STORE_MS, on_stored, c, NULL);
    } else if (c->stage == FILES) {
        rc = put_piece(c);
    } else if (c->stage == LIST) {
        rc = put_list(c);
    }
    c->asked = rc == 0;
    if (rc != 0)
        loop_timer_start(c->again, AGAIN_MS);
}

/* ---- out of the sandbox ---- */

static void on_piece(void *arg, struct str data, const struct sandbox_failure *f)
{
    struct collect *c = arg;
    struct out_file *file = &c->files[c->at];
    int64_t left = file->bytes - c->have;
    size_t want = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
    c->j->request = NULL;
    if (f != NULL && f->retry != RETRY_NEVER && !f->sandbox_gone && ++c->tries < TRIES) {
        next_piece(c);
        return;
    }
    buf_clear(&c->piece);
    if (f != NULL || data.n != want || !buf_str(&c->piece, data)) {
        leave_file(c, f != NULL ? f->err.msg : "it changed while it was read");
        next_file(c);
        return;
    }
    c->tries = 0;
    c->have += (int64_t)data.n;
    crypto_sha256_update(&c->hash, data);
    store(c);
}

/* Of the current file; the file is whole when nothing is left of it. */
static void next_piece(struct collect *c)
{
    struct job *j = c->j;
    struct out_file *f = &c->files[c->at];
    char path[ROOT_BYTES + FILE_PATH_MAX + 2];
    int64_t left = f->bytes - c->have;
    if (left == 0) {
        crypto_sha256_final(&c->hash, f->sha256);
        f->whole = true;
        c->at++;
        next_file(c);
        return;
    }
    snprintf(path, sizeof path, "%s/%s", c->root, f->path);
    j->request = sandbox_read_range(c->x->provider, &j->sandbox, path, c->have,
                                    left < PIECE_BYTES ? (size_t)left : PIECE_BYTES, CALL_MS, on_piece, c);
    if (j->request == NULL) {
        leave_file(c, "the provider refused to read it");
        next_file(c);
    }
}

static void next_file(struct collect *c)
{
    if (c->at == c->count) {
        c->stage = LIST;
        store(c);
        return;
    }
    c->files[c->at].chunk = c->chunk;
    c->have = 0;
    c->tries = 0;
    crypto_sha256_init(&c->hash);
    next_piece(c);
}

/* ---- from outside ---- */

bool collect_wanted(const struct job *j, bool artifacts)
{
    return j->version.manifest->usage != USAGE_NONE ||
           (artifacts && j->version.manifest->artifacts[0] != '\0');
}

void collect_start(struct job *j, bool artifacts, collect_fn *done)
{
    struct collect *c = calloc(1, sizeof *c);
    INVARIANT(c != NULL); /* bounded by the jobs of this process */
    *c = (struct collect){.x = j->x,
                          .j = j,
                          .done = done,
                          .artifacts = artifacts && j->version.manifest->artifacts[0] != '\0',
                          .set = {.id = j->lease.id, .attempt = j->lease.attempt},
                          .again = loop_timer_new(j->x->loop, store, c)};
    INVARIANT(c->again != NULL);
    buf_init(&c->piece, PIECE_BYTES);
    j->collect = c;
    if (c->artifacts)
        transfer_ask(j->x->transfers, &c->turn, read_report, c);
    else
        loop_task_post(j->x->loop, &c->turn.task, read_report, c); /* moves next to nothing */
}

/* What is not had yet. Only those that are whole are listed. */
static void leave_out_rest(struct collect *c, const char *why)
{
    while (c->stage == FILES && c->at < c->count)
        leave_file(c, why);
}

/* Nothing will be listed. */
static void leave_out_all(struct collect *c, const char *why)
{
    c->listed = 0;
    if (c->artifacts && c->stage != OVER && c->left_out == 0)
        leave_out(c, c->j->version.manifest->artifacts, why);
    rest(c);
}

bool collect_hurry(struct job *j)
{
    static const char why[] = "gathering them took too long";
    struct collect *c = j->collect;
    bool some = c->stage == FILES && c->at > 0 && !c->asked;
    sandbox_cancel(&j->request);
    if (!some) {
        leave_out_all(c, why);
        return false;
    }
    leave_out_rest(c, why);
    loop_timer_stop(c->again);
    c->stage = LIST;
    store(c);
    return true;
}

void collect_cut(struct job *j)
{
    sandbox_cancel(&j->request);
    if (j->collect != NULL)
        leave_out_all(j->collect, "gathering them was stopped");
}

/* What is said may quote what the program wrote. */
static void log_line(struct job *j, const char *line)
{
    char clean[2 * NOTE_BYTES + 2];
    environment_clean(j, line, clean, sizeof clean - 1);
    size_t n = strlen(clean);
    clean[n++] = '\n';
    spool_put(&j->err, str_make(clean, n));
    mirror_moved(j);
}

void collect_fill(struct job *j, struct outcome *o)
{
    struct collect *c = j->collect;
    char line[2 * NOTE_BYTES];
    if (c == NULL)
        return;
    o->cost = c->cost;
    o->artifacts = c->listed;
    o->artifacts_truncated = c->left_out > 0;
    if (c->report_note[0] != '\0')
        log_line(j, c->report_note);
    if (c->left_out > 0) {
        snprintf(line, sizeof line, "sandpiper: %d artifact%s left out: %s", c->left_out,
                 c->left_out == 1 ? " was" : "s were", c->why);
        log_line(j, line);
    }
}

void collect_settled(struct job *j)
{
    struct collect *c = j->collect;
    if (c == NULL || !c->opened)
        return;
    c->opened = false;
    if (j->outcome.what == OUTCOME_RESULT && j->outcome.won && j->outcome.artifacts > 0)
        file_set_keep(j->x->write_large, c->set, DROP_MS);
    else
        file_set_drop(j->x->write_large, c->set, DROP_MS);
}
