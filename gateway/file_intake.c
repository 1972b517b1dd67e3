/* Files on their way into PostgreSQL.
 *
 *   open the set -> pieces, one statement each, in order -> the list -> on_stored
 *
 * One statement is under way at a time. A failure of the database is tried again until GIVE_UP_MS after the
 * first: each statement is idempotent. */
#include "file_intake.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "model/invocation.h"
#include "store/files.h"

enum {
    PIECE_BYTES = 4 * INV_CHUNK_BYTES, /* a statement's worth */
    PIECE_MAX = 3 * PIECE_BYTES,       /* with what came in one go on top of it */
    PIECE_CHUNKS = 2 * FILES_MAX,
    STORE_MS = 10000,
    DROP_MS = 60000,
    AGAIN_MS = 200,
    GIVE_UP_MS = 30000,
    INTAKES_MAX = 32, /* two pieces' memory each */
};

/* Chunks numbered from `first`; the last may still be open. */
struct piece {
    struct buf data;
    int32_t first;
    int n;
    uint32_t lengths[PIECE_CHUNKS];
};

enum phase { PHASE_OPEN, PHASE_PIECES, PHASE_LIST, PHASE_STORED, PHASE_FAILED };

struct file_intake {
    struct call *c;
    struct file_intake_events events;
    void *arg;
    struct uuid id;
    enum phase phase;
    struct piece fill, sent; /* sent: while a statement writes it */
    bool busy, opened, finishing, waiting;
    bool over; /* kept or left */
    struct loop_timer *again;
    mono_t give_up; /* of a failing statement; 0: none fails */

    struct file_entry files[FILES_MAX];
    int count;
    bool in_file, in_chunk;
    struct crypto_sha256_state hash;
    int64_t total;
};

static void step(void *arg);

struct file_intake *file_intake_new(struct call *c, const struct file_intake_events *events, void *arg,
                                    struct err *err)
{
    struct file_intake *in = c->g->file_intakes < INTAKES_MAX ? calloc(1, sizeof *in) : NULL;
    if (in == NULL) {
        err_set(err, ERR_OVERLOADED, "as many submissions with files are on their way as this gateway takes");
        return NULL;
    }
    *in = (struct file_intake){.c = c, .events = *events, .arg = arg, .id = uuid_new()};
    buf_init(&in->fill.data, PIECE_MAX);
    buf_init(&in->sent.data, PIECE_MAX);
    c->g->file_intakes++;
    in->again = loop_timer_new(c->g->loop, step, in);
    if (in->again == NULL) {
        file_intake_free(&in);
        err_set(err, ERR_OVERLOADED, "no memory");
    }
    return in;
}

void file_intake_free(struct file_intake **pin)
{
    struct file_intake *in = *pin;
    if (in == NULL)
        return;
    *pin = NULL;
    struct gateway *g = in->c->g;
    if (in->opened && !in->over)
        file_set_drop(g->files, (struct file_set){.id = in->id}, DROP_MS);
    for (int i = 0; i < in->count; i++)
        free((char *)in->files[i].path.p);
    loop_timer_free(&in->again);
    buf_deinit(&in->fill.data);
    buf_deinit(&in->sent.data);
    g->file_intakes--;
    free(in);
}

struct uuid file_intake_id(const struct file_intake *in)
{
    return in->id;
}

int file_intake_count(const struct file_intake *in)
{
    return in->count;
}

void file_intake_keep(struct file_intake *in)
{
    in->over = true;
    file_set_keep(in->c->g->files, (struct file_set){.id = in->id}, DROP_MS);
}

void file_intake_leave(struct file_intake *in)
{
    in->over = true;
}

/* ---- statements ---- */

static void fail(struct file_intake *in, const struct err *err)
{
    in->phase = PHASE_FAILED;
    in->events.on_failed(in->arg, err);
}

static bool is_full(const struct piece *p)
{
    return p->data.len >= PIECE_BYTES || p->n > PIECE_CHUNKS - FILES_MAX;
}

bool file_intake_waits(const struct file_intake *in)
{
    return in->busy && is_full(&in->fill);
}

/* What was under way is done. Calls back as its very last deed. */
static void done(struct file_intake *in)
{
    if (in->phase == PHASE_LIST) {
        in->phase = PHASE_STORED;
        in->events.on_stored(in->arg);
        return;
    }
    if (in->phase == PHASE_OPEN)
        in->phase = PHASE_PIECES;
    in->sent.n = 0;
    buf_clear(&in->sent.data);
    bool room = in->waiting;
    in->waiting = false;
    step(in);
    if (room)
        in->events.on_room(in->arg);
}

static void on_answer(void *arg, const struct err *err)
{
    struct file_intake *in = arg;
    struct err gone;
    mono_t now = loop_now(in->c->g->loop);
    in->busy = false;
    if (!call_leave(in->c))
        return;
    if (err == NULL) {
        in->give_up = (mono_t){0};
        done(in);
        return;
    }
    if (in->give_up.us == 0)
        in->give_up = mono_add_ms(now, GIVE_UP_MS);
    if (err->code != ERR_PG_DATA && err->code != ERR_CONFLICT && mono_before(now, in->give_up)) {
        in->busy = true; /* as far as anybody else can see */
        loop_timer_start(in->again, AGAIN_MS);
        return;
    }
    log_warn("files of a submission could not be stored", LF_ERR(err));
    err_set(&gone, ERR_UNAVAILABLE, "the database does not take the files");
    fail(in, &gone);
}

static int send(struct file_intake *in, struct err *err)
{
    const struct file_set set = {.id = in->id};
    struct pg *pg = in->c->g->files;
    switch (in->phase) {
    case PHASE_OPEN:
        in->opened = true;
        return file_set_open(pg, set, STORE_MS, on_answer, in, err);
    case PHASE_PIECES:
        return file_chunks_put(pg, set, in->sent.first, buf_view(&in->sent.data), in->sent.lengths,
                               in->sent.n, STORE_MS, on_answer, in, err);
    case PHASE_LIST:
        return file_set_list(pg, set, in->files, (size_t)in->count, STORE_MS, on_answer, in, err);
    case PHASE_STORED:
    case PHASE_FAILED:
        break;
    }
    return err_set(err, ERR_INTERNAL, "nothing is to be stored");
}

/* The open chunk goes on in the piece to come: what is sent holds whole chunks only. */
static void take_piece(struct file_intake *in)
{
    struct piece whole = in->fill;
    size_t open = in->in_chunk ? whole.lengths[whole.n - 1] : 0;
    in->fill = in->sent;
    in->fill.first = whole.first + whole.n - (in->in_chunk ? 1 : 0);
    in->fill.n = 0;
    if (in->in_chunk) {
        whole.n--;
        whole.data.len -= open;
        buf_append(&in->fill.data, whole.data.data + whole.data.len, open);
        in->fill.lengths[in->fill.n++] = (uint32_t)open;
    }
    in->sent = whole;
}

static bool has_piece(const struct file_intake *in)
{
    int whole = in->fill.n - (in->in_chunk ? 1 : 0);
    return whole > 0 && (in->finishing || is_full(&in->fill));
}

/* Sends what is to be sent next, if anything is; again what failed. */
static void step(void *arg)
{
    struct file_intake *in = arg;
    struct err err = ERR_INIT;
    bool repeated = in->busy;
    if (in->phase == PHASE_PIECES && !repeated) {
        if (has_piece(in))
            take_piece(in);
        else if (in->finishing && !in->in_file)
            in->phase = PHASE_LIST;
        else
            return;
    }
    if (in->phase == PHASE_STORED || in->phase == PHASE_FAILED)
        return;
    in->busy = true;
    call_enter(in->c);
    if (send(in, &err) == 0)
        return;
    on_answer(in, &err);
}

/* ---- what comes ---- */

int file_intake_begin(struct file_intake *in, struct str path, int mode, struct err *err)
{
    if (file_path_check(path, err) != 0)
        return -1;
    if (in->count == FILES_MAX)
        return err_set(err, ERR_FILES_TOO_LARGE, "a submission has %d files at most", FILES_MAX);
    for (int i = 0; i < in->count; i++)
        if (file_paths_clash(in->files[i].path, path))
            return err_set(err, ERR_BAD_FILE, "the path \"%.*s\" is there twice, or once as a directory",
                           path.n < 80 ? (int)path.n : 80, path.p);
    char *copy = str_dup(path);
    if (copy == NULL)
        return err_set(err, ERR_OVERLOADED, "no memory");
    in->files[in->count++] = (struct file_entry){
        .path = str_make(copy, path.n), .mode = (int16_t)mode, .chunk = in->fill.first + in->fill.n};
    crypto_sha256_init(&in->hash);
    in->in_file = true;
    return 0;
}

/* Into chunks. */
static bool append(struct file_intake *in, struct str piece)
{
    struct piece *p = &in->fill;
    while (piece.n > 0) {
        if (!in->in_chunk && p->n == PIECE_CHUNKS)
            return false;
        if (!in->in_chunk)
            p->lengths[p->n++] = 0;
        uint32_t *have = &p->lengths[p->n - 1];
        size_t room = INV_CHUNK_BYTES - *have, n = piece.n < room ? piece.n : room;
        if (!buf_append(&p->data, piece.p, n))
            return false;
        *have += (uint32_t)n;
        in->in_chunk = *have < INV_CHUNK_BYTES;
        piece = str_make(piece.p + n, piece.n - n);
    }
    return true;
}

int file_intake_put(struct file_intake *in, struct str piece, struct err *err)
{
    int64_t max = in->c->g->settings->max_files_bytes;
    in->total += (int64_t)piece.n;
    if (in->total > max)
        return err_set(err, ERR_FILES_TOO_LARGE, "the files exceed %lld bytes together", (long long)max);
    in->files[in->count - 1].bytes += (int64_t)piece.n;
    crypto_sha256_update(&in->hash, piece);
    if (!append(in, piece))
        return err_set(err, ERR_OVERLOADED, "no memory");
    if (!in->busy)
        step(in);
    in->waiting = file_intake_waits(in);
    return 0;
}

void file_intake_end(struct file_intake *in)
{
    crypto_sha256_final(&in->hash, in->files[in->count - 1].sha256);
    in->in_file = in->in_chunk = false;
}

void file_intake_finish(struct file_intake *in)
{
    in->finishing = true;
    if (!in->busy)
        step(in);
}
