/* What a stream entry carries: everything an executor needs to decide and mostly all it needs to run; no
 * secret.
 *
 * The body is one packed field (little-endian, a version byte first), so that an XADD has three fields and a
 * reader parses once. Decoding trusts nothing: entries may come from an older or broken writer. */
#ifndef STORE_ENTRY_H
#define STORE_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/str.h"
#include "model/invocation.h"
#include "model/traceparent.h"

enum entry_kind { ENTRY_INVOCATION = 1, ENTRY_BUILD = 2 };

struct entry {
    enum entry_kind kind;
    struct uuid id; /* the invocation, or the agent version */
    int32_t tenant;
    struct uuid agent;
    int32_t version;
    int16_t attempt; /* from 1 */
    int16_t max_attempts, retry_on, reruns, blames;
    int16_t own; /* attempts so far that the program itself ended: those that the caller pays */
    enum inv_priority priority;
    int32_t timeout_ms;
    wall_t queue_deadline; /* not started by then: expired */
    wall_t ready;          /* when it could first have run: created, or a retry's not_before */
    struct traceparent trace;
    bool env;          /* an environment came with it: sealed, in PostgreSQL */
    struct uuid files; /* the set that came along (store/files.h); zero: none */
    uint32_t prompt_bytes;
    bool prompt_inline; /* prompt holds it; else it is in PostgreSQL */
    struct str prompt;  /* a view into the decoded body */
};

enum { ENTRY_MAX_BYTES = INV_ENTRY_PROMPT_BYTES + 272 };

/* Appends; false when out is full. */
bool entry_encode(const struct entry *e, struct buf *out);
/* Strict: false unless all of body is one entry. e->prompt points into body. */
bool entry_decode(struct str body, struct entry *e);

#endif
