/* Reading invocations back: the durable half of a record. Live states come from the queue. */
#ifndef STORE_RECORDS_H
#define STORE_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "base/str.h"
#include "model/invocation.h"
#include "postgres/pg.h"

/* One invocation. Views are valid during the callback. */
struct record {
    struct uuid id;
    int32_t tenant;
    struct str agent; /* slug */
    int32_t version;
    enum inv_priority priority;
    int32_t timeout_ms;
    struct str prompt; /* empty and !prompt_inline when it is large */
    bool prompt_inline;
    int32_t prompt_bytes;
    struct str metadata; /* JSON; empty: none */
    bool has_batch;
    struct uuid batch;
    struct str custom_id;   /* in its batch; empty without */
    struct str traceparent; /* empty: none */
    struct uuid retry_of;   /* zero: none */
    bool canceling;         /* a cancel is on record */
    int16_t attempt;        /* the newest allocated */
    wall_t not_before;      /* of the newest attempt, 0 for the first */
    struct str attempts;    /* record_attempts.h; empty: one at most */
    struct str files;       /* record_files.h; empty: none came along, or not asked for */

    enum inv_state state; /* an ended state, or INV_NONE */
    int16_t result_attempt;
    bool has_exit_code;
    int32_t exit_code;
    struct str signal, error_code, error_message;
    struct str output;
    bool output_inline;
    int64_t output_bytes;
    bool output_truncated, output_redacted;
    struct str logs;
    bool logs_inline;
    int64_t logs_bytes;
    bool logs_truncated;
    wall_t started_at, finished_at;
    struct str artifacts;     /* record_files.h; empty: none, or not asked for */
    bool artifacts_truncated; /* some were left out */

    struct uuid executor; /* of the attempt that gave the result; zero: nobody ran it */
    struct str sandbox;   /* empty: it held none */
    bool has_usage;       /* of that attempt */
    int64_t queue_ms, sandbox_start_ms, run_ms, sandbox_ms, cpu_ms, peak_memory_bytes; /* -1: not known */
    int64_t input_tokens, output_tokens;                                               /* -1: not reported */
    double cost_usd;                                                                   /* below 0: the same */
};

struct record_key {
    struct uuid id;
    int32_t tenant;
};

/* records holds those of the keys that exist for their tenant, in any order. */
typedef void records_fn(void *arg, const struct record *records, size_t n, const struct err *err);
/* 1 to 1,000 keys. -1 and *err when refused. */
int records_get(struct pg *pg, const struct record_key *keys, size_t n, int64_t deadline_ms, records_fn *fn,
                void *arg, struct err *err);

/* The same without prompts, outputs and logs (their sizes are there), for lists. */
int records_get_brief(struct pg *pg, const struct record_key *keys, size_t n, int64_t deadline_ms,
                      records_fn *fn, void *arg, struct err *err);

/* Those that have ended, bodies included. */
int records_get_ended(struct pg *pg, const struct record_key *keys, size_t n, int64_t deadline_ms,
                      records_fn *fn, void *arg, struct err *err);

/* Which of them have ended, in any order: an index probe a key, so that thousands of ids can be asked after
 * again and again. ids is valid during the callback. 1 to 1,000 keys. -1 and *err when refused. */
typedef void records_which_fn(void *arg, const struct uuid *ids, size_t n, const struct err *err);
int records_which_ended(struct pg *pg, const struct record_key *keys, size_t n, int64_t deadline_ms,
                        records_which_fn *fn, void *arg, struct err *err);

/* Those that have ended, with outputs, without prompts and logs. */
int records_get_results(struct pg *pg, const struct record_key *keys, size_t n, int64_t deadline_ms,
                        records_fn *fn, void *arg, struct err *err);

/* Those that have ended, as webhooks carry them: without prompt and logs, and with outputs up to
 * RECORD_EVENT_OUTPUT_BYTES (record_json.h) only. */
int records_get_event(struct pg *pg, const struct record_key *keys, size_t n, int64_t deadline_ms,
                      records_fn *fn, void *arg, struct err *err);

/* Chunks of a large value: prompt (1), output (2), logs (3); attempt 0 for the prompt. One chunk a call; data
 * is empty past the end. */
enum blob_kind { BLOB_PROMPT = 1, BLOB_OUTPUT = 2, BLOB_LOGS = 3 };
typedef void blob_chunk_fn(void *arg, struct str data, const struct err *err);
int blob_get(struct pg *pg, struct uuid id, enum blob_kind kind, int16_t attempt, int32_t chunk,
             int64_t deadline_ms, blob_chunk_fn *fn, void *arg, struct err *err);
typedef void blob_put_fn(void *arg, const struct err *err);
/* Idempotent. data at most INV_CHUNK_BYTES. */
int blob_put(struct pg *pg, struct uuid id, enum blob_kind kind, int16_t attempt, int32_t chunk,
             struct str data, int64_t deadline_ms, blob_put_fn *fn, void *arg, struct err *err);

/* Puts a cancel on record. found: the invocation exists for the tenant; ended: it has a result already. */
typedef void cancel_put_fn(void *arg, bool found, enum inv_state ended, const struct err *err);
int cancel_put(struct pg *pg, struct uuid id, int32_t tenant, int64_t deadline_ms, cancel_put_fn *fn,
               void *arg, struct err *err);

#endif
