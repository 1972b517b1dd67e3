/* Accepting invocations: the rows that a 2xx stands for.
 *
 * Plain submissions share group commits (writer.h). Those with an Idempotency-Key commit one by one on a
 * connection of their own, so that nobody else waits on a key's lock. */
#ifndef STORE_SUBMIT_H
#define STORE_SUBMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/id.h"
#include "crypto/crypto.h"
#include "model/invocation.h"
#include "model/traceparent.h"
#include "store/webhooks.h"
#include "store/writer.h"

struct submitter;

/* A submission; the owner allocates it, and keeps its views valid until the answer. */
struct submission {
    struct writer_row row; /* row.key is the invocation's id; set by submit_put */
    int32_t tenant;
    struct uuid api_key;
    struct uuid agent;
    int32_t version;
    enum inv_priority priority;
    int32_t timeout_ms;
    int64_t queue_timeout_ms;
    int16_t max_attempts, retry_on;
    struct str prompt;
    struct uuid retry_of;  /* the ended invocation that it repeats; zero: none */
    int32_t prompt_copied; /* bytes of its large prompt, which is copied in the database; else 0 */
    struct uuid files;     /* the set that came along, stored before (store/files.h); zero: none */
    struct str metadata;   /* JSON text; empty: none */
    struct traceparent trace;
    wall_t not_before;          /* 0: at once; queue_timeout_ms then covers the time until it, too */
    struct webhook_hook *hook;  /* the owner's; NULL: none */
    struct str env, env_key;    /* its environment, sealed, and the key's id; env empty: none */
    struct str idempotency_key; /* empty: none */
    uint8_t fingerprint[SHA256_BYTES];
    bool replayed; /* answer: the key was used before; row.key is that invocation's id */
};

/* err NULL: committed (replayed: was committed by an earlier request). ERR_IDEMPOTENCY_MISMATCH;
 * ERR_UNAVAILABLE; ERR_OUTCOME_UNKNOWN; ERR_PG_DATA. */
typedef void submit_done_fn(void *arg, struct submission *s, const struct err *err);

/* Connections are borrowed: small and large for groups, keyed for idempotent ones. max_bytes caps
 * what waits, for each of the two ways. */
struct submitter *submitter_new(struct loop *loop, struct pg *small, struct pg *large, struct pg *keyed,
                                submit_done_fn *done, void *arg, size_t max_bytes);
void submitter_free(struct submitter **s);

/* Bytes of its prompt, given or copied. */
int32_t submission_prompt_bytes(const struct submission *s);

/* Gives the submission its id (now: ids follow commits closely) and takes it until `done`. deadline_ms from
 * now. */
int submit_put(struct submitter *s, struct submission *sub, int64_t deadline_ms, struct err *err);

#endif
