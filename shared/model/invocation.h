/* Invocations: states, priorities, limits. Pure: no I/O, no clock.
 *
 * States tell the truth (DESIGN section 1, promise 3): nothing is filed under another name. The numbers are
 * those of results.status in PostgreSQL; states that have not ended have no number there, they come from
 * Redis. */
#ifndef MODEL_INVOCATION_H
#define MODEL_INVOCATION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/id.h"
#include "base/str.h"

enum inv_state {
    INV_SCHEDULED = -4, /* waits for its not_before, or for a retry's backoff */
    INV_QUEUED = -3,
    INV_STARTING = -2,
    INV_RUNNING = -1,
    INV_NONE = 0,
    INV_SUCCEEDED = 1, /* exit 0 */
    INV_FAILED = 2,    /* the program's own exit code or signal */
    INV_TIMED_OUT = 3,
    INV_CANCELED = 4,
    INV_EXPIRED = 5, /* not started within its queue limit */
    INV_ERROR = 6,   /* our side or the provider's, after the retries were spent */
};

/* "succeeded" …; "unknown" for anything else. */
const char *inv_state_name(enum inv_state s);
bool inv_state_ended(enum inv_state s);
/* INV_NONE when there is no such state. */
enum inv_state inv_state_parse(struct str name);

enum inv_priority { INV_HIGH = 0, INV_NORMAL = 1, INV_LOW = 2, INV_PRIORITIES = 3 };
bool inv_priority_parse(struct str name, enum inv_priority *out);
const char *inv_priority_name(enum inv_priority p);

/* retry.on, as bits of invocations.retry_on */
enum { INV_RETRY_FAILED = 1, INV_RETRY_TIMED_OUT = 2 };

/* DESIGN section 7, "Default limits", and section 4. */
enum {
    INV_TIMEOUT_DEFAULT_MS = 120 * 1000,
    INV_TIMEOUT_MAX_MS = 3600 * 1000,
    INV_QUEUE_TIMEOUT_DEFAULT_MS = 24 * 3600 * 1000,
    INV_PROMPT_MAX_BYTES = 4 * 1024 * 1024,
    INV_METADATA_MAX_BYTES = 16 * 1024,
    INV_BODY_MAX_BYTES = 8 * 1024 * 1024,
    INV_OUTPUT_MAX_BYTES = 10 * 1024 * 1024,
    INV_LOGS_MAX_BYTES = 1024 * 1024,
    INV_INLINE_BYTES = 64 * 1024,      /* prompt and output inside a record */
    INV_ENTRY_PROMPT_BYTES = 4 * 1024, /* prompt inside a stream entry */
    INV_MAX_ATTEMPTS = 20,             /* retry.max_attempts at most; and re-runs of any kind in all */
    INV_MAX_LOST_RUNS = 3,             /* sandboxes lost after the program's start */
    INV_MAX_BLAMES = 3,                /* executors brought down */
    INV_BACKOFF_FIRST_MS = 1000,
    INV_BACKOFF_MAX_MS = 60 * 1000,
    INV_WAIT_MAX_SEC = 300,
    INV_CHUNK_BYTES = 256 * 1024, /* a row of blobs */
};
#define INV_QUEUE_TIMEOUT_MAX_MS (30LL * 24 * 3600 * 1000)
#define INV_NOT_BEFORE_MAX_MS (30LL * 24 * 3600 * 1000)

/* What happened to an attempt, and what that asks for. */
struct inv_attempt_end {
    enum inv_state state; /* the state it would end in */
    bool started;         /* the program had started */
    bool ours;            /* the provider's or our failure, not the program's own outcome */
    int attempt;          /* its number, from 1 */
    int own;          /* attempts before it that the program itself ended: what the caller's count is about */
    int max_attempts; /* the caller's */
    int retry_on;     /* the caller's bits */
    int reruns;       /* runs lost after the start before this one */
    int64_t queue_left_ms; /* of the queue limit */
};

/* What a program says it used. */
struct inv_cost {
    bool has_input, has_output, has_cost;
    int64_t input_tokens, output_tokens;
    double cost_usd;
};

enum inv_verdict { INV_SETTLE, INV_RETRY };

/* The wait after an attempt: exponential with full jitter, that is anything from 0 to 1 s doubling to 60 s by
 * attempt, all of it equally likely (what failed together must not come back together). random: 32 fresh
 * bits. */
int64_t inv_backoff_ms(int attempt, uint32_t random);

/* Whether the attempt's end is the invocation's end (DESIGN section 4, "Retries"). For INV_RETRY
 * *backoff_ms_out is the wait before the next attempt, as above. */
enum inv_verdict inv_judge(const struct inv_attempt_end *end, uint32_t random, int64_t *backoff_ms_out);

#endif
