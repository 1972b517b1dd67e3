/* Inside webhooks: one outbox row in hand, from its taking to its settling, and what its files share.
 *
 *   webhooks.c        takes rows, lanes' turns, gives rows back
 *   webhook_send.c    payload, signature, the request, what its end means
 *   webhook_ends.c    ends written together, tried until the lease is over */
#ifndef DISPATCHER_WEBHOOK_DELIVERY_H
#define DISPATCHER_WEBHOOK_DELIVERY_H

#include "http/client.h"
#include "model/webhook.h"
#include "store/records.h"
#include "store/webhook_queue.h"
#include "webhook_keys.h"
#include "webhook_lane.h"
#include "webhooks.h"

enum {
    WEBHOOK_ANSWER_BYTES = 1024,
    WEBHOOK_CONNECT_MS = 5000,
};

/* Where it stands; it is on at most one list. */
enum delivery_state {
    DELIVERY_READING, /* its record is being fetched */
    DELIVERY_WAITING, /* on its lane's list */
    DELIVERY_RUNNING, /* sent: counted by its lane */
    DELIVERY_ENDED,   /* on the list of ends */
};

struct webhook_delivery {
    struct webhooks *w;
    struct webhook_delivery *next, *prev;
    struct lane *lane;
    enum delivery_state state;
    struct webhook_due due; /* its views lead into `text` */
    struct webhook_sealed secret, previous;
    struct buf body;
    char webhook_id[WEBHOOK_ID_BYTES];
    char traceparent[TRACEPARENT_TEXT_BYTES]; /* of the request that submitted it; "" none */
    struct uuid attempt;
    mono_t taken, begun;
    struct http_transfer *transfer;
    struct webhook_end end;
    char error[200];
    char answer[WEBHOOK_ANSWER_BYTES];
    char text[]; /* url and data */
};

struct webhook_ends;

struct webhooks {
    struct dispatcher *d;
    struct pg *pg; /* of their own (webhook_session) */
    struct seal_private *private;
    struct webhook_keys *keys;
    struct http_client *http;
    struct http_guard guard;
    struct webhook_schedule schedule;
    struct lanes lanes;
    struct webhook_ends *ends;
    struct reading *readings; /* whose records are being fetched */
    struct webhook_delivery *running;
    int in_hand;
    int64_t lease_ms; /* two attempts' time, and some for the database */
    int asked;        /* rows that the last look asked for: as many were there, there may be more */
    bool taking, again, off;
    bool hungry;         /* rows were left because too many are in hand */
    int64_t lanes_after; /* where the look for parked lanes goes on */
    struct loop_timer *poll, *tick, *look, *trim;
    struct loop_task turn;
    void (*left)(void *arg); /* leaving */
    void *left_arg;
    mono_t leave_until;
    struct loop_timer *leave;
};

/* ---- webhook_send.c ---- */

/* A copy of the row. NULL without memory, or when it says more than it can. */
struct webhook_delivery *delivery_new(struct webhooks *w, const struct webhook_due *due);
void delivery_free(struct webhook_delivery *d); /* withdraws its request */

/* The payload: of an invocation's record, or of the event's own data. */
void delivery_write_record(struct webhook_delivery *d, const struct record *r);
void delivery_write_data(struct webhook_delivery *d);
bool delivery_needs_record(const struct webhook_delivery *d);

/* Sends it. webhooks_ended is called, from the loop, when it has ended. */
void delivery_start(struct webhook_delivery *d);
/* An end without an attempt: nobody is to get it any more. */
void delivery_give_up(struct webhook_delivery *d, const char *why);

/* ---- webhook_ends.c ---- */

struct webhook_ends *webhook_ends_new(struct webhooks *w);
void webhook_ends_free(struct webhook_ends **e); /* and what is on it */
/* Takes the delivery; frees it when its end is on record, or the lease is over. */
void webhook_ends_put(struct webhook_ends *e, struct webhook_delivery *d);

/* ---- webhooks.c ---- */

/* A running delivery has its end in d->end. asked_ms: what the receiver's Retry-After asked for, 0 without.
 */
void webhooks_ended(struct webhooks *w, struct webhook_delivery *d, int64_t asked_ms);
/* It is out of hand. */
void webhooks_gone(struct webhooks *w);

#endif
