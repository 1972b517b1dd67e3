/* The invocation record as JSON (DESIGN section 7). */
#ifndef STORE_RECORD_JSON_H
#define STORE_RECORD_JSON_H

#include "base/buf.h"
#include "store/records.h"

/* What is known of an invocation that has not ended. */
struct live_state {
    enum inv_state state;
    int16_t attempt; /* 0: not said */
    bool stale;      /* Redis could not answer: the last durable fact */
};

/* Appends the record; live is NULL for one that has ended. */
void record_write(const struct record *r, const struct live_state *live, struct buf *out);

/* The same for lists: without the members that hold prompt and output. */
void record_write_brief(const struct record *r, const struct live_state *live, struct buf *out);

/* The record of one that has ended, as webhooks carry it: without the prompt, and with its output only up to
 * RECORD_EVENT_OUTPUT_BYTES (beyond: null, and output_url says where it is), so that it stays small. */
enum { RECORD_EVENT_OUTPUT_BYTES = 8 * 1024, RECORD_EVENT_BYTES = 1024 * 1024 /* at most */ };
void record_write_event(const struct record *r, struct buf *out);

/* The same for results of batches: with output, without prompt. */
void record_write_result(const struct record *r, struct buf *out);

/* The state of an open record that Redis does not know: it waits in PostgreSQL. */
enum inv_state record_waiting_state(const struct record *r, wall_t now);

/* At most: prompt and output of control characters grow sixfold (2 × 384 KiB), a hundred paths of files and
 * of artifacts twofold, their URLs threefold (750 KiB). */
enum { RECORD_JSON_BYTES = 2 * 1024 * 1024 };

#endif
