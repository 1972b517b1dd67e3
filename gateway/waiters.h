/* Callers that wait for outcomes, by invocation id.
 *
 * Told by `sp:done` (ids looked up here, bodies fetched in one query), and besides by re-reading all
 * outstanding ids every 2 s and after each (re)connect: a lost message costs latency, never a hang. */
#ifndef GATEWAY_WAITERS_H
#define GATEWAY_WAITERS_H

#include "gateway.h"
#include "store/records.h"

struct waiters;
struct waiter;

/* record NULL: the time is up. From the loop; the waiter is gone then. */
typedef void waiter_fn(void *arg, const struct record *record);

struct waiters *waiters_new(struct gateway *g);
void waiters_free(struct waiters **w);

/* Waits at most ms. NULL without memory. Add it before looking whether the invocation has ended already. */
struct waiter *waiter_add(struct waiters *w, struct uuid id, int32_t tenant, int64_t ms, waiter_fn *fn,
                          void *arg);
void waiter_remove(struct waiter **waiter);

/* This gateway stops: everybody's time is up within a second, and nobody new waits. */
void waiters_drain(struct waiters *w);
bool waiters_draining(const struct waiters *w);

/* A message of sp:done; and: the subscription is (back) up. */
void waiters_done(struct waiters *w, struct str message);
void waiters_reread(struct waiters *w);

#endif
