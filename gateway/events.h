/* Live streams: Server-Sent Events of an invocation (event_text.h has their form).
 *
 * A stream begins with the invocation's status, or where the client's Last-Event-ID stands; then status,
 * stdout and stderr as they come; at the end what is left of both, from PostgreSQL, and `result` with the
 * whole record. One that ends without `result` is to be resumed, at any gateway. */
#ifndef GATEWAY_EVENTS_H
#define GATEWAY_EVENTS_H

#include "call.h"
#include "event_text.h"
#include "feeds.h"
#include "waiters.h"

struct streams;
struct streams *streams_new(struct gateway *g, struct err *err);
void streams_free(struct streams **s);
void streams_redis_up(struct streams *s);

/* GET /v1/invocations/{id}/events */
void events_get(struct call *c);
/* Whether there is room for one more: a submission that asks for events is refused before it is committed. */
bool events_room(const struct gateway *g);
/* The answer to a submission that asked for events: replayed, it may have ended long ago. False when it
 * cannot be given: answer as usual. */
bool events_after_commit(struct call *c, struct uuid id, bool replayed);

/* ---- between events.c and events_end.c: one stream ---- */

struct stream {
    struct feed_reader reader; /* first: feeds hand it back */
    struct streams *all;
    struct call *c;
    struct uuid id;
    bool posted;                                   /* by a submission: its first event tells the id */
    bool started;                                  /* the head is sent */
    bool paused;                                   /* the client has much to take yet */
    bool told;                                     /* its end was told of before its record was read */
    bool stopping;                                 /* this gateway stops */
    bool ending;                                   /* what is left comes from PostgreSQL */
    bool busy;                                     /* a query of it is under way */
    enum inv_state sent;                           /* the status last told */
    int16_t sent_attempt;                          /* 0: none told */
    size_t unsent;                                 /* bytes written since the client had taken nearly all */
    char carry[OUTPUT_STREAMS][EVENT_CARRY_BYTES]; /* of a character whose rest has not come: */
    uint8_t carried[OUTPUT_STREAMS];               /* the last so many bytes before reader.at */
    int64_t end[OUTPUT_STREAMS];                   /* when ending */
    struct waiter *waiter;                         /* while its record is read */
    struct stream *prev, *next;                    /* by the time of the last event, oldest first */
    mono_t wrote;
};

/* Where it stands, as an event's id says it: what is carried was not sent. */
struct event_position stream_position(const struct stream *s);
/* Takes bytes at reader.at; last: nothing follows, so nothing is carried. False without memory. */
bool stream_put(struct stream *s, enum output_stream stream, struct str bytes, bool last);
/* Writes a composed event. */
void stream_write(struct stream *s, struct str text);
/* Nothing more until the client has taken nearly all. */
void stream_pause(struct stream *s);
void stream_status(struct stream *s, struct feed_state state);
/* Leaves an attempt that is over: what of it was not sent, and is nowhere any more, is said. */
void stream_leave(struct stream *s);
/* Stands at the beginning of this attempt. */
void stream_enter(struct stream *s, int16_t attempt);
/* Says that bytes cannot be had any more: of each stream from `from` to `to` (-1: nobody knows), where they
 * differ. */
void stream_gap(struct stream *s, const int64_t from[OUTPUT_STREAMS], const int64_t to[OUTPUT_STREAMS]);
/* Ends the answer; the stream is gone then. */
void stream_close(struct stream *s);

/* events_end.c: sends what is left by the record of its end, then `result`. Called again whenever the stream
 * can go on. */
void stream_finish(struct stream *s, const struct record *r);
/* The same without a record at hand. */
void stream_finish_later(struct stream *s);

#endif
