/* What a list of invocations is asked for: its filters, read strictly from names and values. Pure: no I/O, no
 * clock.
 *
 * Times become bounds on ids, which carry the creation time: from `low` (included) to `high` (excluded). A
 * metadata filter has to read each record's metadata, so it works on a window of at most
 * LISTING_METADATA_WINDOW_MS; without created_after the window is the 24 h before created_before, or before
 * now. */
#ifndef MODEL_LISTING_H
#define MODEL_LISTING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "base/str.h"
#include "model/agent.h"
#include "model/invocation.h"

enum {
    LISTING_LIMIT_DEFAULT = 50,
    LISTING_LIMIT_MAX = 200,
    LISTING_PAIRS_MAX = 8,
    LISTING_PAIR_BYTES = 1024, /* key and value of one metadata filter */
    LISTING_METADATA_WINDOW_MS = 24 * 3600 * 1000,
};

struct listing_pair {
    char text[LISTING_PAIR_BYTES]; /* key, then value */
    uint16_t key_len, len;
};

/* The filters as they were given. Zeroed is "everything". */
struct listing {
    bool by_status;
    enum inv_state status; /* an ended one; INV_NONE: open */
    char agent[AGENT_SLUG_BYTES];
    int32_t version; /* 0: any */
    bool has_batch;
    struct uuid batch;
    struct uuid retry_of; /* zero: not given */
    bool has_after, has_before;
    wall_t after, before;
    struct listing_pair pairs[LISTING_PAIRS_MAX];
    int pair_count;
    int limit; /* 0: not given */
    bool has_limit;
};

/* Takes one parameter. 1 taken; 0 not a filter (nor limit); -1 unusable, or given twice (*err says what is
 * allowed). */
int listing_take(struct listing *l, struct str name, struct str value, struct err *err);

/* The bounds on ids, once all parameters were taken. -1 and *err when they make no sense together. */
int listing_bounds(const struct listing *l, wall_t now, struct uuid *low_out, struct uuid *high_out,
                   struct err *err);

/* The metadata filter as a JSON object that a record's must contain; nothing without one. Keys are sorted. */
void listing_metadata(const struct listing *l, struct buf *out);

/* The filters in one form, whatever the order they came in: what a cursor is bound to. limit is no part of
 * it. */
void listing_scope(const struct listing *l, struct buf *out);

/* A whole number from 1 to max. -1 and *err otherwise. */
int listing_limit(struct str value, int max, int *out, struct err *err);

#endif
