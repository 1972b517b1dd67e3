/* A batch on its way: its rows in unlinked temporary files, in the form that COPY reads. A gateway that dies
 * leaves nothing of them. What all of them hold together is bounded (SANDPIPER_GATEWAY_BATCH_SPOOL_BYTES). */
#ifndef GATEWAY_BATCH_SPOOL_H
#define GATEWAY_BATCH_SPOOL_H

#include "gateway.h"
#include "store/agents.h"
#include "store/batch_copy.h"

struct batch_spool;
/* NULL and *err without memory or a file. */
struct batch_spool *batch_spool_new(struct gateway *g, struct err *err);
void batch_spool_free(struct batch_spool **s);

/* What of an item is filled in when it is read back. */
struct batch_spool_late {
    uint16_t agent; /* a number in the table of batch_spool_fill */
    bool timeout, queue_timeout;
};
int batch_spool_put(struct batch_spool *s, const struct batch_item *item, const struct batch_spool_late *late,
                    struct err *err);
/* No more comes. */
int batch_spool_end(struct batch_spool *s, struct err *err);
/* Whether there are rows of a stream. */
bool batch_spool_has(const struct batch_spool *s, enum batch_stream stream);
/* Items that begin later. */
int32_t batch_spool_delayed(const struct batch_spool *s);

struct batch_spool_fill {
    struct uuid first;                  /* of the items' series */
    const struct agent_target *targets; /* by number */
    enum inv_priority priority;
    int32_t timeout_ms; /* for items without; 0: their agent's, or the system's */
    int64_t queue_timeout_ms;
};
/* Reads from the beginning; as batch_source_fn, arg is the spool. */
void batch_spool_rewind(struct batch_spool *s, const struct batch_spool_fill *fill);
int batch_spool_source(void *arg, enum batch_stream stream, struct str *piece_out);

#endif
