/* An attempt's prompt: small ones came with the entry, middling ones are in the row, large ones in chunks. */
#include <stdlib.h>
#include <string.h>

#include "base/culprit.h"
#include "run.h"
#include "store/records.h"

enum { STORE_MS = 30000 };

/* Answers from PostgreSQL find their job again by id. */
struct fetch {
    struct executor *x;
    struct uuid id;
    int16_t attempt;
    size_t have; /* of the prompt, when it was asked */
};

static struct fetch *fetch_new(struct job *j)
{
    struct fetch *f = malloc(sizeof *f);
    INVARIANT(f != NULL); /* bounded by the jobs of this process */
    *f = (struct fetch){.x = j->x, .id = j->lease.id, .attempt = j->lease.attempt, .have = j->entry.prompt.n};
    return f;
}

static struct job *fetch_job(void *arg)
{
    struct fetch *f = arg;
    struct job *j = run_current(f->x, f->id, STEP_PROMPT);
    if (j != NULL && (j->lease.attempt != f->attempt || j->entry.prompt.n != f->have))
        j = NULL; /* an answer to an attempt before */
    free(f);
    return j;
}

static void next_chunk(struct job *j);

/* Appends a piece; the whole prompt goes on to the next step. */
static void take_prompt(struct job *j, struct str piece)
{
    size_t have = j->entry.prompt.n;
    if (piece.n == 0 || piece.n > j->entry.prompt_bytes - have) {
        run_end_error(j, ERR_INTERNAL, "the stored prompt is incomplete");
        return;
    }
    memcpy(j->prompt + have, piece.p, piece.n);
    j->entry.prompt = str_make(j->prompt, have + piece.n);
    if (j->entry.prompt.n == j->entry.prompt_bytes)
        flow_next(&j->flow);
    else
        next_chunk(j);
}

static void on_chunk(void *arg, struct str data, const struct err *err)
{
    struct job *j = fetch_job(arg);
    CULPRIT(j != NULL ? j->lease.id : culprit_now());
    if (j != NULL && err != NULL)
        run_end_ours(j, ERR_UNAVAILABLE, err->msg);
    else if (j != NULL)
        take_prompt(j, data);
}

static void next_chunk(struct job *j)
{
    struct err err = ERR_INIT;
    struct fetch *f = fetch_new(j);
    if (blob_get(j->x->read, j->lease.id, BLOB_PROMPT, 0, (int32_t)(j->entry.prompt.n / INV_CHUNK_BYTES),
                 STORE_MS, on_chunk, f, &err) == 0)
        return;
    free(f);
    run_end_ours(j, ERR_UNAVAILABLE, err.msg);
}

static void on_record(void *arg, const struct record *records, size_t n, const struct err *err)
{
    struct job *j = fetch_job(arg);
    if (j == NULL)
        return;
    CULPRIT(j->lease.id);
    if (err != NULL)
        run_end_ours(j, ERR_UNAVAILABLE, err->msg);
    else
        take_prompt(j, n == 1 ? records[0].prompt : str_of(NULL));
}

void enter_prompt(void *self)
{
    struct job *j = self;
    struct err err = ERR_INIT;
    if (j->entry.prompt_inline || j->entry.prompt_bytes == 0) {
        flow_next(&j->flow);
        return;
    }
    j->prompt = malloc(j->entry.prompt_bytes);
    if (j->prompt == NULL) {
        run_end_ours(j, ERR_NO_MEMORY, "no memory for the prompt");
        return;
    }
    if (j->entry.prompt_bytes > INV_INLINE_BYTES) {
        next_chunk(j);
        return;
    }
    const struct record_key key = {.id = j->lease.id, .tenant = j->lease.tenant};
    struct fetch *f = fetch_new(j);
    if (records_get(j->x->read, &key, 1, STORE_MS, on_record, f, &err) == 0)
        return;
    free(f);
    run_end_ours(j, ERR_UNAVAILABLE, err.msg);
}
