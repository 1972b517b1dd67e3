/* Settling: the one place that ends attempts. Whoever ends one (executor, cancel, expiry, reaper) writes it
 * here.
 *
 * One statement per group writes results (first writer wins, by primary key), the webhooks that they call
 * for, usage (one row an attempt that held a sandbox, whoever wins), and the attempts that follow. So a late
 * attempt can never overwrite an outcome, and a retry is allocated in the transaction that ends the attempt
 * before it. */
#ifndef STORE_SETTLE_H
#define STORE_SETTLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "model/invocation.h"
#include "store/writer.h"

/* How an attempt ended. The owner keeps its views valid until the answer. */
struct outcome {
    struct writer_row row; /* row.key: the invocation's id */
    int32_t tenant;
    struct uuid agent;
    int16_t attempt;
    struct uuid boot;     /* the writer's: tells winners from losers after a lost COMMIT reply */
    struct uuid executor; /* whose attempt it was; zero: nobody's, or not known */
    wall_t started_at;    /* its program; 0: never */
    wall_t finished_at;

    enum { OUTCOME_RESULT, OUTCOME_RETRY, OUTCOME_USAGE_ONLY } what;

    /* OUTCOME_RESULT */
    enum inv_state state;
    bool has_exit_code;
    int32_t exit_code;
    struct str signal;   /* "" none */
    enum err_code error; /* ERR_NONE: none */
    struct str error_message;
    bool output_in_blobs; /* written before with blob_put */
    struct str output;
    int64_t output_bytes;
    bool output_truncated;
    bool output_redacted; /* values of secrets were taken out of it */
    bool logs_in_blobs;
    struct str logs;
    int64_t logs_bytes;
    bool logs_truncated;
    int16_t artifacts; /* in the set of this attempt, stored before (store/files.h) */
    bool artifacts_truncated;

    /* OUTCOME_RETRY: the attempt after this one */
    wall_t not_before;
    struct str reason;
    int16_t reruns, blames;

    /* any: the sandbox that the attempt held */
    bool has_usage;
    struct str sandbox;
    int64_t queue_ms, sandbox_start_ms, run_ms, sandbox_ms;
    int64_t cpu_ms, peak_memory_bytes; /* -1: not known */
    struct inv_cost cost;              /* what the program itself told of its usage */

    /* answer */
    bool won;    /* RESULT: this outcome is on record; RETRY: the next attempt is ours to queue */
    bool hooked; /* somebody's webhooks were put into the outbox with it: dispatchers are to be told */
};

struct settler;

/* err NULL: durable (see won). Otherwise as writer.h. */
typedef void settle_done_fn(void *arg, struct outcome *o, const struct err *err);

struct settler *settler_new(struct loop *loop, struct pg *small, struct pg *large, settle_done_fn *done,
                            void *arg, size_t max_bytes);
void settler_free(struct settler **s);

/* Takes the outcome until `done`; tried until deadline_ms from now. */
int settle_put(struct settler *s, struct outcome *o, int64_t deadline_ms, struct err *err);
size_t settle_waiting(const struct settler *s);
size_t settle_waiting_bytes(const struct settler *s);

#endif
