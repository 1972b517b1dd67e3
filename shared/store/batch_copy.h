/* Accepting a batch: its rows in the form that COPY reads, and the one transaction that loads them.
 *
 * Rows are made while a batch is validated, long before it is known whether it will be accepted; what is not
 * known then (ids, which version an agent's name means, limits that follow from it) is filled in on the way
 * to the database, at places that are the same in every row. */
#ifndef STORE_BATCH_COPY_H
#define STORE_BATCH_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"
#include "model/batch.h"
#include "postgres/pg.h"
#include "store/submit.h"

/* ---- rows ---- */

/* Of sub: limits, retry, prompt (left out when it is large: its chunks are rows of their own), metadata and
 * trace. */
struct batch_item {
    const struct submission *sub;
    int32_t tenant;
    struct uuid api_key, batch;
    struct str custom_id;
    struct str trace; /* as text; empty: none */
};
void batch_item_put(struct buf *out, const struct batch_item *item);

/* What is filled in. */
struct batch_item_late {
    struct uuid id, agent;
    int32_t version;
    enum inv_priority priority;
    int32_t timeout_ms;             /* 0: as it stands */
    int16_t max_attempts, retry_on; /* where the item says none; max_attempts > 0 */
    int64_t queue_timeout_ms; /* in place of the default; what stands there beyond that is kept. 0: as it
                                 stands */
};
void batch_item_fill(char *row, const struct batch_item_late *late);

/* A chunk of a large prompt; its id is filled in as above. */
void batch_chunk_put(struct buf *out, int32_t chunk, struct str data);
/* The hook of an item, and when it is to begin; likewise. */
void batch_hook_put(struct buf *out, int32_t tenant, const struct webhook_hook *hook);
void batch_start_put(struct buf *out, int32_t tenant, wall_t not_before);
/* The id of any of these three. */
void batch_id_fill(char *row, struct uuid id);

/* Before the first row and after the last one of each COPY. */
extern const struct str batch_copy_header, batch_copy_trailer;

/* ---- the transaction ---- */

struct batch_new {
    struct uuid id;
    int32_t tenant;
    struct uuid api_key;
    enum inv_priority priority;
    int32_t max_concurrency; /* 0: none */
    int32_t total;
    struct uuid first;          /* of the items' series */
    struct str metadata;        /* JSON; empty: none */
    struct str idempotency_key; /* empty: none */
    uint8_t fingerprint[SHA256_BYTES];
    bool chunks, hooks; /* there are large prompts, hooks of items */
    int32_t delayed;    /* items that begin later */
};

/* Streams of rows that the caller gives: header, rows, trailer. As pg_source_fn. */
enum batch_stream {
    BATCH_STREAM_ITEMS = 0,
    BATCH_STREAM_CHUNKS,
    BATCH_STREAM_HOOKS,
    BATCH_STREAM_STARTS,
    BATCH_STREAMS
};
typedef int batch_source_fn(void *arg, enum batch_stream stream, struct str *piece_out);

/* ERR_CONFLICT: the idempotency key is taken (batch_admit tells by what). ERR_OUTCOME_UNKNOWN: perhaps
 * committed: batch_get tells. ERR_UNAVAILABLE, ERR_PG_DATA: not committed. */
typedef void batch_load_fn(void *arg, const struct err *err);
/* `pg` is a connection for loads alone. source is called until fn is. */
int batch_load(struct pg *pg, const struct batch_new *batch, batch_source_fn *source, int64_t deadline_ms,
               batch_load_fn *fn, void *arg, struct err *err);

/* What there is before a batch is loaded. */
struct batch_admission {
    int open;          /* the tenant's batches that have not ended */
    bool key_taken;    /* the idempotency key is somebody's (an expired one is dropped) */
    bool same;         /* with this fingerprint */
    struct uuid owner; /* whose */
};
typedef void batch_admit_fn(void *arg, const struct batch_admission *a, const struct err *err);
int batch_admit(struct pg *pg, int32_t tenant, struct str key, const uint8_t fingerprint[SHA256_BYTES],
                int64_t deadline_ms, batch_admit_fn *fn, void *arg, struct err *err);

#endif
