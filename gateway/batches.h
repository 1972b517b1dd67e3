/* Batches over HTTP. */
#ifndef GATEWAY_BATCHES_H
#define GATEWAY_BATCHES_H

#include "call.h"
#include "store/batches.h"

/* Handlers of routes. */
void batch_upload(struct call *c);      /* POST /v1/batches: batch_upload.c */
void batches_list_call(struct call *c); /* batches.c */
void batch_show(struct call *c);
void batch_cancel_call(struct call *c);
void batch_results_call(struct call *c); /* batch_results.c */

/* The id in the path; answers 404 when it is none. */
bool batch_id(struct call *c, struct uuid *id);

/* The record with live counts; the status by whether the batch has ended. */
void batch_answer(struct call *c, struct uuid id, int open_status, int ended_status);

/* ---- batch_json.c ---- */

/* Of the open items, those that executors have. */
struct batch_live {
    int32_t starting, running;
    bool stale; /* Redis could not answer: all open ones count as queued */
};
void batch_write(const struct batch *b, const struct batch_live *live, struct buf *out);
/* "/v1/batches/bat_…" */
enum { BATCH_PATH_BYTES = ID_TEXT_BYTES + 24 };
void batch_path(struct uuid id, char out[BATCH_PATH_BYTES]);

#endif
