/* What an executor leaves to those who bury it: usage that PostgreSQL has not taken yet although the sandbox
 * is gone, and the job that it was working for when it crashed. One hash a boot, `sp:will:<boot>`, which goes
 * when the executor is struck off the register. */
#ifndef STORE_QUEUE_WILL_H
#define STORE_QUEUE_WILL_H

#include "base/buf.h"
#include "store/queue.h"

enum { QUEUE_SANDBOX_BYTES = 64 };

/* A usage record, as store/settle.h has it. */
struct queue_usage {
    struct uuid id, agent;
    int32_t tenant;
    int16_t attempt;
    char sandbox[QUEUE_SANDBOX_BYTES];
    wall_t started_at; /* its program; 0: never */
    int64_t queue_ms, sandbox_start_ms, run_ms, sandbox_ms;
    int64_t cpu_ms, peak_memory_bytes; /* -1: not known */
    /* Not zero: the attempt held the sandbox from then on, and nothing else is known of it yet. */
    wall_t held_since;
};

/* fn with err NULL: Redis has it. */
int queue_will_put(struct queue *q, struct uuid boot, const struct queue_usage *u, queue_done_fn *fn,
                   void *arg);
/* It is durable now. */
int queue_will_drop(struct queue *q, struct uuid boot, struct uuid id, int16_t attempt);

struct queue_will {
    struct uuid culprit; /* zero: it did not crash, or over nobody's job */
    const struct queue_usage *usage;
    size_t usage_n;
};
typedef void queue_will_fn(void *arg, const struct queue_will *will, const struct err *err);
int queue_will_read(struct queue *q, struct uuid boot, queue_will_fn *fn, void *arg);

/* The same in Redis's own bytes, for a process that has no time for a loop any more: first the culprit's
 * command (QUEUE_WORDS.culprit_bytes of it, the id to be put in at id_at), then the one that gives up the
 * lease. False without memory or room. */
struct queue_last_words {
    size_t culprit_bytes, id_at;
};
bool queue_last_words(struct uuid boot, struct buf *out, struct queue_last_words *where);

#endif
