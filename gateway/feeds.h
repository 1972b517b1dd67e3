/* Watched jobs: where each one runs, how far its output is, and the bytes, fetched once for all its readers
 * here that stand at the same place (store/queue_output.h).
 *
 * A feed lives while it has readers. It asks Redis now and then who has the job, and that executor for
 * output. A reader takes pieces while it is open; it stands at `next` of each stream of its attempt. Nothing
 * is kept here: a reader that is behind has its own pieces fetched, in turn with the others'.
 *
 * Callbacks come from the loop; no reader may leave in `moved` or `piece`. */
#ifndef GATEWAY_FEEDS_H
#define GATEWAY_FEEDS_H

#include "gateway.h"
#include "store/queue_output.h"
#include "store/records.h"

struct feeds;
struct feed;

/* Embedded in its owner. */
struct feed_reader {
    struct feed_reader *prev, *next;
    struct feed *feed; /* NULL: of none */
    bool open;         /* takes pieces */
    bool whole;        /* of an attempt that is over: nothing of it is missing */
    int16_t attempt;   /* 0: none yet */
    int64_t at[OUTPUT_STREAMS];
};

struct feed_events {
    /* Its state or attempt is another, or is known now. */
    void (*moved)(struct feed_reader *r);
    /* The bytes at r->at of this stream; r->at is moved on by the callee. */
    void (*piece)(struct feed_reader *r, enum output_stream stream, struct str bytes);
    /* The invocation has ended, or (record NULL) this gateway stops. The reader has left the feed. */
    void (*ended)(struct feed_reader *r, const struct record *record);
};

struct feeds *feeds_new(struct gateway *g, const struct feed_events *events, struct err *err);
void feeds_free(struct feeds **f);

/* Joins the feed of an open invocation, of which so much is known. False without memory. */
bool feed_join(struct feeds *fs, struct feed_reader *r, struct uuid id, int32_t tenant, int16_t attempt,
               enum inv_state state);
/* Leaves; fine when in none. */
void feed_leave(struct feed_reader *r);
/* The reader opened or moved. */
void feed_wake(struct feed_reader *r);

struct feed_state {
    bool known; /* Redis or an executor was asked */
    bool stale; /* Redis could not answer: the last durable fact */
    enum inv_state state;
    int16_t attempt;
};
struct feed_state feed_state_of(const struct feed_reader *r);

/* The gateway's connection to Redis is back. */
void feeds_redis_up(struct feeds *fs);

#endif
