/* The queue on Redis: streams, leases, windows, backlog marks. The only place that knows Redis keys and Lua.
 *
 * Keys (all of them transport: any may vanish at any moment and is rebuilt from PostgreSQL):
 *   sp:epoch            which rebuild the streams belong to; absent: Redis lost its memory
 *   sp:unmarked         a rebuild has begun and tenants with open work are not marked yet
 *   sp:ident            the Redis (run_id/master_replid) that they were rebuilt on: another one is a loss
 *   sp:hold             set for a few seconds after a loss: executors re-assert, nobody enqueues
 *   sp:q:<priority>:0   streams of work that may run now, consumer group `executors`; sp:q:build for agent
 *                       builds
 *   sp:live             hash: job id -> "state attempt owner stream entry tenant"; state q(ueued) s(tarting)
 *                       r(unning); under the empty name the epoch that they belong to
 *   sp:tw               hash: tenant -> entries on streams that nobody has claimed (its window)
 *   sp:bl, sp:blg       hashes: tenant -> lowest id that waits in PostgreSQL; generation of that mark
 *   sp:fence            changes with each job that a dispatcher found by looking through PostgreSQL
 *   sp:execs, sp:x:<boot>  executors and their leases; sp:cx:<boot>  ids that boot must cancel;
 *   sp:will:<boot>  what it leaves behind (queue_will.h)
 *   sp:gov:*            the provider's governor; sp:lead the lead
 * Channels: sp:done (17 bytes a job: id, state), sp:ctl:<boot> (ids to cancel), sp:ask:<boot> and
 * sp:out:<boot> (live output: queue_output.h).
 *
 * Every call takes a typed callback that fires once, from the loop, with err set when Redis could not answer;
 * NULL callbacks are fine where the outcome does not matter. Jobs a call: at most QUEUE_BATCH. */
#ifndef STORE_QUEUE_H
#define STORE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/id.h"
#include "base/str.h"
#include "loop/loop.h"
#include "model/invocation.h"
#include "redis/redis.h"
#include "store/entry.h"

enum {
    QUEUE_BATCH = 1000,
    QUEUE_STREAM_BYTES = 24,
    QUEUE_ENTRY_BYTES = 48,
    QUEUE_TIMEOUT_MS = 5000,
    QUEUE_HOLD_MS = 3000,      /* DESIGN section 4: living executors re-assert for 3 s */
    QUEUE_LEASE_TTL_MS = 2000, /* DESIGN section 4, "Leases" */
    QUEUE_DONE_RECORD_BYTES = 17,
};

struct queue;

/* Wraps a connection (borrowed). window: entries that a tenant may have unclaimed on the streams. */
struct queue *queue_new(struct redis *redis, int window);
void queue_free(struct queue **q);

/* One number a job, in the order given. */
typedef void queue_verdicts_fn(void *arg, const int8_t *verdicts, size_t n, const struct err *err);
typedef void queue_done_fn(void *arg, const struct err *err);

/* ---- enqueueing ---- */

enum queue_source { QUEUE_FIRST = 'g', QUEUE_FOUND = 'f', QUEUE_FED = 'd' };
enum { QUEUE_KNOWN = 0, QUEUE_ADDED = 1, QUEUE_WAITS = 2 };

/* Puts entries on their streams. QUEUE_FIRST: a gateway's fresh commits (their tenant is marked when they
 * must wait), with the fence from before the first of these commits; QUEUE_FOUND: what a dispatcher found by
 * looking through PostgreSQL, perhaps before its gateway has sent it; QUEUE_FED: what no gateway sends. For
 * the last two fence is not used. Returns 0, or -1 when nothing was sent. fn may be NULL. */
int queue_enqueue(struct queue *q, enum queue_source source, struct uuid fence, const struct entry *entries,
                  size_t n, queue_verdicts_fn *fn, void *arg, struct err *err);

/* The newest fence that an answer brought; zero before. An entry whose fence has changed meanwhile is run
 * only after a look into PostgreSQL: somebody else may have queued the job, and it may have run. */
struct uuid queue_fence(const struct queue *q);

/* Marks tenants whose work waits in PostgreSQL from these ids on. */
struct queue_mark {
    int32_t tenant;
    struct uuid low;
};
int queue_mark(struct queue *q, const struct queue_mark *marks, size_t n, queue_done_fn *fn, void *arg);

struct queue_backlog {
    int32_t tenant;
    bool has_low;
    struct uuid low;
    int64_t generation;
    int32_t in_window;
};
typedef void queue_backlog_fn(void *arg, const struct queue_backlog *items, size_t n, const struct err *err);
int queue_backlog_take(struct queue *q, queue_backlog_fn *fn, void *arg);
int queue_backlog_clear(struct queue *q, const struct queue_backlog *items, size_t n);

/* ---- leases ---- */

/* What names a leased job to Redis. */
struct lease {
    struct uuid id;
    int16_t attempt;
    int32_t tenant;
    char stream[QUEUE_STREAM_BYTES];
    char entry[QUEUE_ENTRY_BYTES]; /* "-": none */
};

/* An entry as XREADGROUP gave it. */
struct queue_delivery {
    struct lease lease;
    struct entry job; /* views into the reply: valid during the callback */
    char epoch[40];
    bool first;  /* the gateway's own XADD */
    bool broken; /* not decodable: acknowledge and drop */
};
typedef void queue_read_fn(void *arg, const struct queue_delivery *items, size_t n, const struct err *err);
/* XREADGROUP on `redis` (a connection of its own when block_ms > 0). streams: NULL-ended names. COUNT is per
 * stream. from_pending: this consumer's own pending list from id 0 instead of new entries. */
int queue_read(struct redis *redis, const char *consumer, const char *const *streams, int count,
               int64_t block_ms, bool from_pending, queue_read_fn *fn, void *arg, struct err *err);

/* Creates the group (and stream) where missing; BUSYGROUP is success. */
int queue_groups_create(struct queue *q, queue_done_fn *fn, void *arg);

struct queue_claim {
    const struct lease *lease;
    const char *epoch;
};
/* 1: leased to boot; 0: not to be run (already acknowledged and deleted). */
int queue_claim(struct queue *q, struct uuid boot, const struct queue_claim *items, size_t n,
                queue_verdicts_fn *fn, void *arg);
int queue_progress(struct queue *q, struct uuid boot, const struct lease *const *items, size_t n);

/* Ends leases after the outcomes are durable; done (17-byte records) is published, may be empty. */
int queue_release(struct queue *q, struct uuid boot, const struct lease *const *items, size_t n,
                  struct str done, queue_done_fn *fn, void *arg);

struct queue_assert_item {
    const struct lease *lease;
    bool running;
};
/* 1: still ours, 0: lost. */
int queue_assert(struct queue *q, struct uuid boot, const struct queue_assert_item *items, size_t n,
                 queue_verdicts_fn *fn, void *arg);

typedef void queue_beat_fn(void *arg, struct str epoch, bool was_missing, const struct uuid *cancels,
                           size_t n, const struct err *err);
int queue_beat(struct queue *q, struct uuid boot, int running, queue_beat_fn *fn, void *arg);

struct queue_requeue_item {
    struct lease lease;        /* the lease that ends */
    const struct entry *again; /* NULL: only drop the lease */
};
/* owner NULL: entries delivered to a consumer that never leased them. 1 done, 0 somebody else has it. */
int queue_requeue(struct queue *q, const struct uuid *owner, const struct queue_requeue_item *items, size_t n,
                  queue_verdicts_fn *fn, void *arg);

/* Waits in PostgreSQL or has ended; was queued and is gone; an executor has it; Redis cannot say yet. */
enum queue_cancel { QUEUE_CANCEL_ABSENT, QUEUE_CANCEL_REMOVED, QUEUE_CANCEL_RUNNING, QUEUE_CANCEL_UNKNOWN };
typedef void queue_cancel_fn(void *arg, enum queue_cancel what, const struct err *err);
/* Tells the executor that has it, too. */
int queue_cancel(struct queue *q, struct uuid id, queue_cancel_fn *fn, void *arg, struct err *err);
/* Only takes it off the queue. */
int queue_withdraw(struct queue *q, struct uuid id, queue_cancel_fn *fn, void *arg);

/* ---- looking ---- */

struct queue_live {
    enum inv_state state; /* INV_NONE: not in Redis; else QUEUED, STARTING, RUNNING */
    int16_t attempt;
    struct uuid owner; /* zero while queued */
    struct lease lease;
};
typedef void queue_states_fn(void *arg, const struct queue_live *items, size_t n, const struct err *err);
int queue_states(struct queue *q, const struct uuid *ids, size_t n, queue_states_fn *fn, void *arg,
                 struct err *err);

/* One page of all live records. cursor "0" starts; the callback's next is "0" at the end. */
typedef void queue_scan_fn(void *arg, struct str next, const struct uuid *ids, const struct queue_live *items,
                           size_t n, const struct err *err);
int queue_scan(struct queue *q, struct str cursor, queue_scan_fn *fn, void *arg);

/* Drops the queued records and entries of jobs known to have ended. */
int queue_forget(struct queue *q, const struct queue_live *seen, size_t n);

/* ---- the dispatcher's ---- */

typedef void queue_lead_fn(void *arg, bool leading, const struct err *err);
int queue_lead(struct queue *q, struct uuid token, int64_t ttl_ms, queue_lead_fn *fn, void *arg);
/* Whether anybody leads. */
int queue_led(struct queue *q, queue_lead_fn *fn, void *arg);

/* Redis's identity: any change is a loss (DESIGN section 4). */
struct queue_identity {
    char epoch[40];  /* "" when absent */
    char now[100];   /* run_id/master_replid, as INFO says */
    char known[100]; /* the same when the streams were last rebuilt; "" when absent */
    bool hold;
    bool torn;     /* the live records are not there, or another epoch's */
    bool unmarked; /* reset, and the tenants with open work not marked since */
};
typedef void queue_identity_fn(void *arg, const struct queue_identity *id, const struct err *err);
int queue_identity(struct queue *q, queue_identity_fn *fn, void *arg);

/* Empties the transport and begins a new epoch on the Redis that id describes, unless another has begun one
 * since (done false). Every tenant with open work is to be marked then, and that told by queue_marked. */
typedef void queue_reset_fn(void *arg, bool done, const struct err *err);
int queue_reset(struct queue *q, struct uuid new_epoch, const struct queue_identity *id, queue_reset_fn *fn,
                void *arg);
int queue_marked(struct queue *q, queue_done_fn *fn, void *arg);

/* The registered executors and whether each one's lease key is there. */
typedef void queue_executors_fn(void *arg, const struct uuid *boots, const bool *alive, size_t n,
                                const struct err *err);
int queue_executors(struct queue *q, queue_executors_fn *fn, void *arg);
/* The boots of the executors that have a connection to Redis now, as Redis sees it (CLIENT LIST, by the names
 * that queue_client_name gives); a boot may come several times. */
typedef void queue_connected_fn(void *arg, const struct uuid *boots, size_t n, const struct err *err);
int queue_connected(struct queue *q, queue_connected_fn *fn, void *arg);
/* What every connection of an executor calls itself. */
enum { QUEUE_CLIENT_NAME_BYTES = 64 };
void queue_client_name(struct uuid boot, char out[QUEUE_CLIENT_NAME_BYTES]);

/* Strikes a dead executor off the register, its cancel set and its consumers; not one that lives again or has
 * entries pending. */
int queue_executor_forget(struct queue *q, struct uuid boot);
/* An executor's own leaving: its lease is given up first, so that nobody has to find it dead. */
int queue_executor_leave(struct queue *q, struct uuid boot, queue_done_fn *fn, void *arg);

/* Entries delivered to a consumer (a boot) and not acknowledged, with their bodies; up to QUEUE_BATCH a
 * stream. */
int queue_pending_of(struct queue *q, struct uuid boot, const char *stream, queue_read_fn *fn, void *arg);

/* ---- names ---- */

extern const char *const queue_streams[]; /* high, normal, low, NULL */
extern const char queue_build_stream[];
#define QUEUE_CHANNEL_DONE "sp:done"
#define QUEUE_CHANNEL_CTL "sp:ctl:"

const char *queue_stream_of(const struct entry *e);
/* Appends one sp:done record. hooked: the outbox got rows with it. */
void queue_done_put(struct buf *out, struct uuid id, enum inv_state state, bool hooked);
/* Reads record i; false past the end or for another length. */
bool queue_done_get(struct str message, size_t i, struct uuid *id, enum inv_state *state);
/* Whether any of them is hooked: then dispatchers look into the outbox. */
bool queue_done_is_hooked(struct str message);

#endif
