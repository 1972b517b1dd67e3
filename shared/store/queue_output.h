/* Live output on its way from the executor that has it to the gateways that show it.
 *
 * A gateway asks, an executor answers: by pub/sub, one channel for each process. Nothing of it is stored in
 * Redis, and a job that nobody asks for costs no command. What is asked for names its bytes (attempt, stream,
 * offset), so a message that is lost is asked for again, and one that comes twice is seen to be known.
 *
 *   watch   "tell me when there is more than this, or its phase is another": answered once, at once when it
 * is so already; with up to OUTPUT_INLINE_BYTES of each stream. Renews the watch, which an executor forgets
 * after OUTPUT_WATCH_MS. fetch   "this stream from this offset": answered at once with up to
 * OUTPUT_PIECE_BYTES.
 *
 * Messages are fixed-width fields, big-endian, after one byte of version. */
#ifndef STORE_QUEUE_OUTPUT_H
#define STORE_QUEUE_OUTPUT_H

#include "store/queue.h"

enum {
    OUTPUT_PIECE_BYTES = 32 * 1024,
    OUTPUT_INLINE_BYTES = 1024,
    OUTPUT_WATCH_MS = 10000,
    OUTPUT_ASKS_MAX = 500, /* of one message */
    OUTPUT_CHANNEL_BYTES = 64,
};

enum output_stream { OUTPUT_STDOUT, OUTPUT_STDERR, OUTPUT_STREAMS };

/* What the executor says of an attempt. */
enum output_phase {
    OUTPUT_GONE,     /* it does not have it (any more) */
    OUTPUT_STARTING, /* its program has not started */
    OUTPUT_RUNNING,
    OUTPUT_OVER, /* the attempt has ended and the invocation goes on with the next: the sizes are final */
    OUTPUT_PHASES,
};

enum output_ask_kind { OUTPUT_WATCH, OUTPUT_FETCH_STDOUT, OUTPUT_FETCH_STDERR, OUTPUT_ASK_KINDS };

struct output_ask {
    struct uuid id;
    int16_t attempt;
    enum output_ask_kind kind;
    enum output_phase phase;      /* watch: the one known */
    int64_t seen[OUTPUT_STREAMS]; /* watch: the sizes known */
    int64_t offset;               /* fetch */
};

/* An answer. Views are into the message. */
struct output_part {
    struct uuid id;
    int16_t attempt;
    enum output_ask_kind to; /* what it answers */
    enum output_phase phase;
    int64_t size[OUTPUT_STREAMS];   /* kept so far */
    int64_t offset[OUTPUT_STREAMS]; /* of bytes */
    struct str bytes[OUTPUT_STREAMS];
};

/* A message of asks: begun with the asking gateway, then up to OUTPUT_ASKS_MAX of them. */
void output_asks_begin(struct buf *out, struct uuid gateway);
void output_asks_put(struct buf *out, const struct output_ask *ask);
size_t output_asks_count(struct str message);
/* False when the message is not one. */
bool output_asks_open(struct str message, struct uuid *gateway_out);
bool output_asks_get(struct str message, size_t i, struct output_ask *out);

bool output_part_encode(const struct output_part *part, struct buf *out);
bool output_part_decode(struct str message, struct output_part *out);

/* The channels that an executor hears asks on, and a gateway answers. */
void output_ask_channel(struct uuid executor, char out[OUTPUT_CHANNEL_BYTES]);
void output_part_channel(struct uuid gateway, char out[OUTPUT_CHANNEL_BYTES]);

/* Publish. 0, or -1 when nothing was sent. */
int queue_output_ask(struct queue *q, struct uuid executor, struct str message);
int queue_output_answer(struct queue *q, struct uuid gateway, struct str message, queue_done_fn *fn,
                        void *arg);

#endif
