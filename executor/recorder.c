/* Outcomes on their way. A job passes: chunks (when it has large streams) -> outcome -> release. */
#include "recorder.h"

#include <stdlib.h>
#include <utlist.h>

#include "base/culprit.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "collect.h"
#include "store/records.h"
#include "will.h"

enum {
    TRY_MS = 60000,
    CHUNK_MS = 30000,
    RETRY_MS = 500,
    WAITING_BYTES = 256 * 1024 * 1024,
};

/* A lease to release, with what to tell; outlives its job. */
struct release {
    struct release *prev, *next;
    struct lease lease;
    bool tell, hooked;
    enum inv_state state;
    bool sent;
    struct recorder *r;
    bool back; /* handed back to the queue as `again` */
    struct entry again;
    char *prompt;
};

struct recorder {
    struct executor *x;
    struct settler *settler;
    struct release *releases; /* those not confirmed */
    struct job *held;         /* outcomes for which there was no room, by held_next */
    struct loop_task turn;
    struct loop_timer *again;
};

/* One job's chunks going out, one at a time. */
struct chunks {
    struct job *j;
    enum blob_kind kind;
    int32_t chunk;
    char *piece;
    struct loop_timer *again;
};

static void on_settled(void *arg, struct outcome *o, const struct err *err);
static void send_releases(void *arg);
static void next_chunk(void *arg);
static void record(struct job *j);
static void refused(struct job *j);

static void release_free(struct release *e)
{
    free(e->prompt);
    free(e);
}

struct recorder *recorder_new(struct executor *x)
{
    struct recorder *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    r->x = x;
    r->settler = settler_new(x->loop, x->write_small, x->write_large, on_settled, r, WAITING_BYTES);
    r->again = loop_timer_new(x->loop, send_releases, r);
    if (r->settler == NULL || r->again == NULL)
        recorder_free(&r);
    return r;
}

void recorder_free(struct recorder **pr)
{
    if (pr == NULL || *pr == NULL)
        return;
    struct recorder *r = *pr;
    struct release *e, *next;
    settler_free(&r->settler);
    DL_FOREACH_SAFE(r->releases, e, next)
    {
        release_free(e);
    }
    loop_task_cancel(r->x->loop, &r->turn);
    loop_timer_free(&r->again);
    free(r);
    *pr = NULL;
}

static struct job *job_of(struct outcome *o)
{
    return (struct job *)((char *)o - offsetof(struct job, outcome));
}

/* ---- large streams ---- */

static struct spool *spool_of(struct chunks *c)
{
    return c->kind == BLOB_OUTPUT ? &c->j->out : &c->j->err;
}

static bool is_large(const struct spool *s)
{
    return s->size > INV_INLINE_BYTES;
}

static void chunks_end(struct chunks *c)
{
    struct job *j = c->j;
    loop_timer_free(&c->again);
    free(c->piece);
    free(c);
    record(j);
}

static void on_chunk(void *arg, const struct err *err)
{
    struct chunks *c = arg;
    CULPRIT(c->j->lease.id);
    if (err != NULL && err->code == ERR_PG_DATA) {
        refused(c->j);
        chunks_end(c);
        return;
    }
    if (err != NULL) { /* PostgreSQL is away: idempotent, so again in a moment */
        loop_timer_start(c->again, RETRY_MS);
        return;
    }
    FAILPOINT(executor_chunk);
    c->chunk++;
    next_chunk(c);
}

static void next_chunk(void *arg)
{
    struct chunks *c = arg;
    struct job *j = c->j;
    int64_t at = (int64_t)c->chunk * INV_CHUNK_BYTES;
    if (!is_large(spool_of(c)) || at >= spool_of(c)->size) {
        if (c->kind == BLOB_LOGS) {
            chunks_end(c);
            return;
        }
        c->kind = BLOB_LOGS;
        c->chunk = 0;
        next_chunk(c);
        return;
    }
    int64_t left = spool_of(c)->size - at;
    int64_t n =
        spool_read(spool_of(c), at, c->piece, left < INV_CHUNK_BYTES ? (size_t)left : INV_CHUNK_BYTES);
    if (n <= 0) { /* the disk failed */
        refused(j);
        chunks_end(c);
        return;
    }
    if (blob_put(j->x->write_large, j->lease.id, c->kind, j->lease.attempt, c->chunk,
                 str_make(c->piece, (size_t)n), CHUNK_MS, on_chunk, c, NULL) != 0)
        loop_timer_start(c->again, RETRY_MS);
}

/* What the job left cannot be stored: our failure, and the truth about it. The usage stays. */
static void refused(struct job *j)
{
    struct outcome *o = &j->outcome;
    spool_deinit(&j->out);
    spool_deinit(&j->err);
    j->out.size = j->err.size = 0;
    j->out.truncated = j->out.seen > 0;
    j->err.truncated = j->err.seen > 0;
    buf_clear(&j->output_copy);
    buf_clear(&j->logs_copy);
    if (o->what != OUTCOME_RESULT)
        return;
    o->state = INV_ERROR;
    o->error = ERR_INTERNAL;
    o->error_message = STR("the outcome could not be stored");
    o->has_exit_code = false;
    o->signal = str_of(NULL);
}

static void start_chunks(struct job *j)
{
    struct chunks *c = calloc(1, sizeof *c);
    if (c != NULL) {
        *c = (struct chunks){.j = j, .kind = BLOB_OUTPUT, .piece = malloc(INV_CHUNK_BYTES)};
        c->again = loop_timer_new(j->x->loop, next_chunk, c);
    }
    INVARIANT(c != NULL && c->piece != NULL && c->again != NULL); /* dying re-runs the job; lying would not */
    next_chunk(c);
}

/* ---- the outcome ---- */

static void take_stream(struct spool *s, struct buf *copy, struct str *view, int64_t *bytes, bool *truncated,
                        bool *in_blobs)
{
    *bytes = s->size;
    *truncated = s->truncated || s->gap;
    *in_blobs = is_large(s);
    *view = str_of(NULL);
    if (*in_blobs)
        return;
    char *to = buf_reserve(copy, (size_t)s->size);
    if (to != NULL && spool_read(s, 0, to, (size_t)s->size) == s->size)
        buf_commit(copy, (size_t)s->size);
    *view = buf_view(copy);
    *truncated = *truncated || copy->len < (size_t)s->size; /* no memory, or the disk failed */
    *bytes = (int64_t)copy->len;
}

/* While too much waits, outcomes stay in their spools. */
static bool has_room(const struct recorder *r)
{
    return settle_waiting_bytes(r->settler) < WAITING_BYTES - 4 * INV_INLINE_BYTES;
}

static void hold(struct recorder *r, struct job *j)
{
    j->held_next = r->held;
    r->held = j;
}

static void record(struct job *j)
{
    CULPRIT(j->lease.id);
    FAILPOINT(executor_settling);
    struct outcome *o = &j->outcome;
    if (!has_room(j->x->recorder)) {
        hold(j->x->recorder, j);
        return;
    }
    if (o->what == OUTCOME_RESULT) {
        take_stream(&j->out, &j->output_copy, &o->output, &o->output_bytes, &o->output_truncated,
                    &o->output_in_blobs);
        take_stream(&j->err, &j->logs_copy, &o->logs, &o->logs_bytes, &o->logs_truncated, &o->logs_in_blobs);
    }
    struct err err;
    if (settle_put(j->x->recorder->settler, o, TRY_MS, &err) != 0)
        hold(j->x->recorder, j);
}

void recorder_put(struct recorder *r, struct job *j)
{
    (void)r;
    struct outcome *o = &j->outcome;
    job_enter(j, JOB_RECORDING);
    j->ended_at = loop_now(j->x->loop);
    spool_finish(&j->out);
    spool_finish(&j->err);
    if (o->what == OUTCOME_RESULT && (is_large(&j->out) || is_large(&j->err)))
        start_chunks(j);
    else
        record(j);
}

/* Tried until PostgreSQL is back: the job stays ours, its lease is kept by the heartbeat. */
static void on_settled(void *arg, struct outcome *o, const struct err *err)
{
    struct recorder *r = arg;
    struct job *j = job_of(o);
    CULPRIT(j->lease.id);
    if (err != NULL && err->code != ERR_PG_DATA) {
        log_warn("an outcome could not be recorded yet", LF_ERR(err));
        if (settle_put(r->settler, o, TRY_MS, NULL) != 0)
            hold(r, j);
        return;
    }
    if (err != NULL)
        log_error("the database refused an outcome", LF_ERR(err));
    if (err != NULL &&
        j->refusals++ < 2) { /* the invocation must end all the same: without what may offend */
        if (j->refusals == 2 || o->what != OUTCOME_RESULT)
            o->has_usage = false;
        refused(j);
        record(j);
        return;
    }
    if (o->what == OUTCOME_RETRY)
        FAILPOINT(executor_retried);
    else
        FAILPOINT(executor_settled);
    recorder_release(r, j);
    for (struct job *next; (next = r->held) != NULL && has_room(r);) {
        r->held = next->held_next;
        record(next);
    }
}

/* ---- releases ---- */

void recorder_release(struct recorder *r, struct job *j)
{
    struct release *e = calloc(1, sizeof *e);
    INVARIANT(e != NULL); /* bounded by the jobs of this process */
    struct outcome *o = &j->outcome;
    *e = (struct release){.r = r,
                          .lease = j->lease,
                          .tell = o->what == OUTCOME_RESULT && o->won && j->entry.kind == ENTRY_INVOCATION,
                          .hooked = o->hooked,
                          .state = o->state};
    DL_APPEND(r->releases, e);
    job_enter(j, JOB_RELEASING);
    will_settled(r->x->will, j);
    collect_settled(j);
    job_destroy_sandbox(j);
    job_free(j);
    loop_task_post(r->x->loop, &r->turn, send_releases, r);
}

void recorder_hand_back(struct recorder *r, struct job *j)
{
    struct release *e = calloc(1, sizeof *e);
    INVARIANT(e != NULL); /* bounded by the jobs of this process */
    *e = (struct release){.r = r, .lease = j->lease, .back = true, .again = j->entry, .prompt = j->prompt};
    j->prompt = NULL;
    if (!e->again.prompt_inline)
        e->again.prompt = str_of(NULL);
    DL_APPEND(r->releases, e);
    job_enter(j, JOB_RELEASING);
    will_settled(r->x->will, j);
    job_destroy_sandbox(j);
    job_free(j);
    loop_task_post(r->x->loop, &r->turn, send_releases, r);
}

static void on_back(void *arg, const int8_t *verdicts, size_t n, const struct err *err)
{
    struct release *e = arg;
    FAILPOINT(executor_handed_back);
    (void)verdicts, (void)n; /* 0: somebody else has it, after a rebuild */
    if (err != NULL) {
        e->sent = false;
        loop_timer_start(e->r->again, RETRY_MS);
        return;
    }
    DL_DELETE(e->r->releases, e);
    release_free(e);
}

static void send_back(struct release *e)
{
    const struct queue_requeue_item item = {.lease = e->lease, .again = &e->again};
    FAILPOINT(executor_back);
    e->sent = queue_requeue(e->r->x->queue, &e->r->x->boot, &item, 1, on_back, e) == 0;
    if (!e->sent)
        loop_timer_start(e->r->again, RETRY_MS);
}

struct sent {
    struct recorder *r;
    size_t n;
    struct release *items[QUEUE_BATCH];
};

static void on_released(void *arg, const struct err *err)
{
    struct sent *s = arg;
    FAILPOINT(executor_released);
    for (size_t i = 0; i < s->n; i++) {
        if (err != NULL) {
            s->items[i]->sent = false;
            continue;
        }
        DL_DELETE(s->r->releases, s->items[i]);
        release_free(s->items[i]);
    }
    if (err != NULL)
        loop_timer_start(s->r->again, RETRY_MS);
    free(s);
}

static void send_releases(void *arg)
{
    struct recorder *r = arg;
    struct sent *s = redis_connected(r->x->redis) ? calloc(1, sizeof *s) : NULL;
    if (s == NULL)
        return; /* recorder_redis_up */
    const struct lease *leases[QUEUE_BATCH];
    struct buf done;
    struct release *e;
    buf_init(&done, QUEUE_BATCH * QUEUE_DONE_RECORD_BYTES);
    s->r = r;
    DL_FOREACH(r->releases, e)
    {
        if (e->sent)
            continue;
        if (e->back) {
            send_back(e);
            continue;
        }
        if (s->n == QUEUE_BATCH) { /* the rest in the next turn */
            loop_task_post(r->x->loop, &r->turn, send_releases, r);
            break;
        }
        if (e->tell)
            queue_done_put(&done, e->lease.id, e->state, e->hooked);
        e->sent = true;
        leases[s->n] = &e->lease;
        s->items[s->n++] = e;
    }
    if (s->n == 0)
        free(s);
    else if (queue_release(r->x->queue, r->x->boot, leases, s->n, buf_view(&done), on_released, s) != 0) {
        struct err refused;
        err_set(&refused, ERR_REDIS, "refused");
        on_released(s, &refused);
    }
    buf_deinit(&done);
}

bool recorder_idle(const struct recorder *r)
{
    return r->releases == NULL;
}

void recorder_redis_up(struct recorder *r)
{
    loop_task_post(r->x->loop, &r->turn, send_releases, r);
}
