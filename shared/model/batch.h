/* Batches: states and limits. Pure: no I/O, no clock. The numbers of states are those of batches.state in
 * PostgreSQL. */
#ifndef MODEL_BATCH_H
#define MODEL_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum batch_state {
    BATCH_RUNNING = 0,
    BATCH_CANCELING = 1, /* what waits is being ended, what runs is being stopped */
    BATCH_COMPLETED = 2, /* all items have ended */
    BATCH_CANCELED = 3,  /* all items have ended, after a cancel */
};

/* "running" …; "unknown" for anything else. */
const char *batch_state_name(enum batch_state s);
bool batch_state_ended(enum batch_state s);

enum {
    BATCH_ITEMS_MAX = 100000,
    BATCH_BODY_MAX_BYTES = 256 * 1024 * 1024, /* as it is sent, and again when it is unpacked */
    BATCH_ITEM_MAX_BYTES = 4 * 1024 * 1024,   /* the text of one item */
    BATCH_CUSTOM_ID_MAX_BYTES = 256,
    BATCH_CONCURRENCY_MAX = 10000, /* items of one batch that are the queue's or run at once */
    BATCH_ERRORS_MAX = 20,         /* faults that a refusal names */
    BATCH_AGENTS_MAX = 256,        /* different agents, or versions, in one batch */
};

/* 1 to BATCH_CUSTOM_ID_MAX_BYTES bytes without control characters. */
bool batch_custom_id_valid(struct str s);

#endif
