/* What an ended invocation is run again from: its row, and the hook that came with it. */
#ifndef STORE_RETRY_SOURCE_H
#define STORE_RETRY_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/id.h"
#include "model/invocation.h"
#include "postgres/pg.h"
#include "store/webhooks.h"

/* Views are valid during the callback. */
struct retry_source {
    struct uuid agent;
    struct str slug;
    int32_t version;
    enum inv_priority priority;
    int32_t timeout_ms;
    int64_t queue_timeout_ms; /* without the time until its not_before */
    int16_t max_attempts, retry_on;
    struct str prompt; /* empty when it is large */
    int32_t prompt_bytes;
    struct str metadata, traceparent; /* empty: none */
    enum inv_state state;             /* INV_NONE: it has not ended */
    struct str env, env_key;          /* sealed; env empty: none */
    struct uuid files;                /* zero: none came along */
    bool hooked;
    struct webhook_hook hook;
};

/* NULL without *err: the tenant has no such invocation. */
typedef void retry_source_fn(void *arg, const struct retry_source *source, const struct err *err);
int retry_source_get(struct pg *pg, struct uuid id, int32_t tenant, int64_t deadline_ms, retry_source_fn *fn,
                     void *arg, struct err *err);

#endif
