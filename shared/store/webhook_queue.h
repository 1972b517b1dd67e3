/* The outbox as dispatchers work it off. Crosses tenants on purpose; used by no gateway.
 *
 * A row is taken with a lease: it is its owner's until due_at, when it is anybody's again. So whatever a
 * killed dispatcher had in hand comes back, and what it had sent but not settled is sent again, with the same
 * webhook-id. Rows of a lane that is full are parked: the scan for what is due does not meet them again, and
 * they are taken by their lane when it has room. */
#ifndef STORE_WEBHOOK_QUEUE_H
#define STORE_WEBHOOK_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "base/str.h"
#include "model/webhook.h"
#include "postgres/pg.h"

/* For a connection of this file's own, on its connect: commits are not waited for on the disk. What a crash
 * of PostgreSQL then forgets is a lease, or that something was delivered: it is delivered once more, which a
 * receiver has to expect in any case. The rows themselves are put into the outbox by others, durably. And
 * plans that were made while the outbox was empty do not read all of it when it is full. */
void webhook_session(struct pg *pg);

/* A row in hand, with where it goes. Views are valid during the callback. */
struct webhook_due {
    struct uuid event, endpoint; /* endpoint == event: the hook that came with it */
    int32_t tenant;
    int what; /* enum webhook_event */
    int64_t lane;
    int tries; /* made so far */
    wall_t queued_at;
    struct str data; /* JSON; empty: the invocation's record */
    bool there;      /* its endpoint or hook still is */
    bool enabled;
    struct str url;                                              /* empty: a stream */
    struct str key_id, secret, previous_key_id, previous_secret; /* sealed; previous empty: none */
    bool failing;                                                /* the endpoint's failing_since is set … */
    wall_t failing_since;
};

/* examined: rows looked at, parked ones included; as many as `limit`: there may be more. */
typedef void webhook_take_fn(void *arg, const struct webhook_due *rows, size_t n, int64_t examined,
                             const struct err *err);
/* Takes up to limit rows that are due; those of the `full` lanes are parked instead. */
int webhook_take(struct pg *pg, struct uuid owner, int limit, const int64_t *full, size_t full_n,
                 int64_t lease_ms, int64_t deadline_ms, webhook_take_fn *fn, void *arg);
/* Takes up to limit parked rows of a lane. */
int webhook_take_lane(struct pg *pg, struct uuid owner, int64_t lane, int limit, int64_t lease_ms,
                      int64_t deadline_ms, webhook_take_fn *fn, void *arg);

/* Some of the lanes that have parked rows: those after `after`, in order. */
typedef void webhook_lanes_fn(void *arg, const int64_t *lanes, size_t n, const struct err *err);
int webhook_parked_lanes(struct pg *pg, int64_t after, int limit, int64_t deadline_ms, webhook_lanes_fn *fn,
                         void *arg);

typedef void webhook_ended_fn(void *arg, const struct err *err);

/* Rows in hand that are not to be tried now: parked, nobody's. */
struct webhook_ref {
    struct uuid event, endpoint;
};
int webhook_park(struct pg *pg, struct uuid owner, const struct webhook_ref *rows, size_t n,
                 int64_t deadline_ms, webhook_ended_fn *fn, void *arg);

/* An attempt's end: a row of the log, and what becomes of the outbox row if it is still its owner's. */
struct webhook_end {
    struct uuid id; /* the attempt's: uuid_new at its start */
    struct webhook_ref ref;
    int32_t tenant;
    int what, try;
    struct str url;
    int64_t body_bytes, duration_ms;
    int status; /* 0: no answer */
    struct str error, response;
    enum webhook_verdict verdict;
    wall_t next_at;  /* WEBHOOK_RETRY */
    struct str data; /* kept for redelivery; empty: none */
    int mood;        /* of the endpoint, when this changes it: 1 it works again, -1 it began to fail */
};
int webhook_settle(struct pg *pg, struct uuid owner, const struct webhook_end *ends, size_t n,
                   int64_t deadline_ms, webhook_ended_fn *fn, void *arg);

/* No more for this endpoint, until its owner enables it. */
int webhook_disable(struct pg *pg, struct uuid endpoint, struct str reason, int64_t deadline_ms,
                    webhook_ended_fn *fn, void *arg);

/* Hands a signed delivery to whoever listens to the stream. */
int webhook_stream_put(struct pg *pg, struct uuid endpoint, struct uuid id, struct str webhook_id,
                       int64_t sent_at, struct str signature, struct str body, int64_t deadline_ms,
                       webhook_ended_fn *fn, void *arg);

/* Drops the oldest day of the log beyond keep_days, if there is one. */
int webhook_log_trim(struct pg *pg, int keep_days, int64_t deadline_ms, webhook_ended_fn *fn, void *arg);

/* Gives up rows that could not be delivered within keep_days; drops streams that nobody listens to. */
int webhook_tidy(struct pg *pg, int keep_days, int64_t deadline_ms, webhook_ended_fn *fn, void *arg);

#endif
