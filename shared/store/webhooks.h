/* Webhooks as gateways see them: standing endpoints, hooks of single submissions, the log. Every function
 * takes the tenant. Delivery is webhook_queue.h.
 *
 * Secrets arrive here sealed and leave here sealed; only dispatchers can open them. */
#ifndef STORE_WEBHOOKS_H
#define STORE_WEBHOOKS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "base/str.h"
#include "crypto/seal.h"
#include "crypto/webhook_sign.h"
#include "model/webhook.h"
#include "postgres/pg.h"

enum { WEBHOOK_ENDPOINTS_MAX = 50 /* of a tenant */, WEBHOOK_REPLAY_MAX = 10000 /* events a call */ };

/* A signing secret as it is stored. */
struct webhook_sealed {
    char key_id[SEAL_KEY_ID_BYTES];
    uint8_t b[WEBHOOK_SECRET_MAX_BYTES + SEAL_OVERHEAD_BYTES];
    size_t n;
};
static inline struct str webhook_sealed_view(const struct webhook_sealed *s)
{
    return str_make((const char *)s->b, s->n);
}

/* Deliveries of one lane share a receiver: what bounds and breaks them counts by it. An endpoint has a lane
 * of its own; all of a tenant's hooks to one origin ("https://host:443") have one together. */
int64_t webhook_lane_of_endpoint(struct uuid id);
int64_t webhook_lane_of_origin(int32_t tenant, struct str origin);

/* ---- endpoints ---- */

struct webhook_endpoint {
    struct uuid id;
    struct str url; /* empty: a stream */
    int32_t events; /* bits */
    struct str description;
    bool enabled;
    struct str disabled_reason;
    wall_t disabled_at, failing_since, previous_until, created_at; /* 0: none */
};

/* Those that there are, by id; none when there is no such endpoint of the tenant. */
typedef void webhook_endpoints_fn(void *arg, const struct webhook_endpoint *list, size_t n,
                                  const struct err *err);

struct webhook_new {
    struct uuid id; /* given by the caller: uuid_new */
    struct str url; /* empty: a stream */
    int32_t events;
    struct str description;
    struct webhook_sealed secret;
};
/* n is 0 when the tenant has WEBHOOK_ENDPOINTS_MAX already. */
int webhook_create(struct pg *pg, int32_t tenant, const struct webhook_new *w, int64_t deadline_ms,
                   webhook_endpoints_fn *fn, void *arg, struct err *err);

/* One by id, or (id zero) the first `limit` after `after`. */
int webhooks_get(struct pg *pg, int32_t tenant, struct uuid id, struct uuid after, int limit,
                 int64_t deadline_ms, webhook_endpoints_fn *fn, void *arg, struct err *err);

/* What is to be another way; p == NULL, 0 and NULL leave a thing as it is. */
struct webhook_change {
    struct str url, description;
    int32_t events;
    const bool *enabled; /* enabling forgets why it was disabled and since when it fails */
};
int webhook_change(struct pg *pg, int32_t tenant, struct uuid id, const struct webhook_change *change,
                   int64_t deadline_ms, webhook_endpoints_fn *fn, void *arg, struct err *err);

/* The new secret signs from now on, the one before it besides for overlap_ms. */
int webhook_rotate(struct pg *pg, int32_t tenant, struct uuid id, const struct webhook_sealed *secret,
                   int64_t overlap_ms, int64_t deadline_ms, webhook_endpoints_fn *fn, void *arg,
                   struct err *err);

/* Deletes it and what it has yet to get. */
int webhook_delete(struct pg *pg, int32_t tenant, struct uuid id, int64_t deadline_ms,
                   webhook_endpoints_fn *fn, void *arg, struct err *err);

/* ---- putting events into the outbox ---- */

/* queued: rows put there. found: the endpoint (or hook) is there and enabled. */
typedef void webhook_queued_fn(void *arg, bool found, int64_t queued, struct uuid last,
                               const struct err *err);

/* A webhook.test event of that id for one endpoint. data: JSON. */
int webhook_test(struct pg *pg, int32_t tenant, struct uuid endpoint, struct uuid event, struct str data,
                 int64_t deadline_ms, webhook_queued_fn *fn, void *arg, struct err *err);

/* An event once more, with a fresh schedule. endpoint is the event's own id for the hook that came with it.
 */
int webhook_redeliver(struct pg *pg, int32_t tenant, struct uuid endpoint, struct uuid event,
                      int64_t deadline_ms, webhook_queued_fn *fn, void *arg, struct err *err);

/* Events of invocations with after < id < before that the endpoint wants; all of them, or only those that it
 * did not get. At most WEBHOOK_REPLAY_MAX, oldest first; `last` is where to go on when so many were found. */
int webhook_replay(struct pg *pg, int32_t tenant, struct uuid endpoint, struct uuid after, struct uuid before,
                   bool all, int64_t deadline_ms, webhook_queued_fn *fn, void *arg, struct err *err);

/* ---- hooks that come with a submission or a batch ---- */

struct webhook_hook {
    struct str url;
    int64_t lane;
    struct webhook_sealed secret;
};
#define WEBHOOK_HOOK_COLUMNS "id, tenant, url, lane, key_id, secret"

/* Puts a hook on record under the id of what it belongs to, before that is committed itself: a hook without
 * its event never does anything. For batches; submissions write theirs in their own statement. The event is
 * then put by SQL, in the transaction of what it tells of:
 *   SELECT sandpiper_event(<id>, <tenant>, <WEBHOOK_BATCH_COMPLETED>::int2, <the "data" of the payload, JSON
 * text>) */
typedef void webhook_done_fn(void *arg, const struct err *err);
int webhook_hook_put(struct pg *pg, int32_t tenant, struct uuid id, const struct webhook_hook *hook,
                     int64_t deadline_ms, webhook_done_fn *fn, void *arg, struct err *err);

/* ---- the log ---- */

struct webhook_attempt {
    struct uuid id, event_id; /* the id carries the time */
    int event;
    int16_t try;
    struct str url;
    int32_t body_bytes, duration_ms;
    int16_t status; /* 0: no answer */
    struct str error, response;
    enum webhook_verdict verdict;
    wall_t next_at;
};
typedef void webhook_attempts_fn(void *arg, const struct webhook_attempt *list, size_t n,
                                 const struct err *err);
/* The newest first, those before `before` (zero: from the newest). endpoint: as in webhook_redeliver. */
int webhook_attempts_get(struct pg *pg, int32_t tenant, struct uuid endpoint, struct uuid before, int limit,
                         int64_t deadline_ms, webhook_attempts_fn *fn, void *arg, struct err *err);

/* ---- streams ---- */

struct webhook_streamed {
    struct uuid id;
    struct str webhook_id, signature, body;
    int64_t sent_at;
};
/* found: the stream is there. Those after `after`, the oldest first; those up to it are dropped. */
typedef void webhook_streamed_fn(void *arg, bool found, const struct webhook_streamed *list, size_t n,
                                 const struct err *err);
int webhook_stream_get(struct pg *pg, int32_t tenant, struct uuid endpoint, struct uuid after, int limit,
                       int64_t deadline_ms, webhook_streamed_fn *fn, void *arg, struct err *err);

#endif
