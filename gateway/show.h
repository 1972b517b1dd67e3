/* Answering with an invocation's record: fetched, its live state looked up, optionally after waiting. */
#ifndef GATEWAY_SHOW_H
#define GATEWAY_SHOW_H

#include "call.h"
#include "store/records.h"

/* Fetches the record of id (tenant of the call) and answers: `status` for one that has ended, `open_status`
 * for one that has not (with Location and Retry-After when 202); 404 when there is none. wait_ms > 0: an open
 * one is waited for first. */
void show_invocation(struct call *c, struct uuid id, int64_t wait_ms, int open_status);

/* As above for a submission just committed: waits without fetching first. */
void show_after_commit(struct call *c, struct uuid id, int64_t wait_ms);

/* `?wait=N` or else `Prefer: wait=N` in milliseconds, capped at INV_WAIT_MAX_SEC; 0 without; -1 malformed
 * (*err). Sets the answer's Preference-Applied. */
int64_t show_wait(struct call *c, struct err *err);

#endif
