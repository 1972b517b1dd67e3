/* Lanes: what bounds deliveries to one receiver, so that one that hangs takes its own share and nobody
 * else's.
 *
 * A lane's limit begins small, grows by one with each success and halves with each failure. After
 * LANE_FAILURES failures in a row its breaker opens: nothing is sent for a while, then one probe, whose
 * success closes it and whose failure opens it for twice as long. Lanes that have not succeeded yet may hold
 * half of all places together at most. Pure: no I/O; time is given. */
#ifndef DISPATCHER_WEBHOOK_LANE_H
#define DISPATCHER_WEBHOOK_LANE_H

#include <stdbool.h>
#include <stdint.h>

#include <uthash.h>

#include "base/clock.h"

enum {
    LANE_FIRST = 4,     /* a new lane's limit */
    LANE_FAILURES = 10, /* in a row: the breaker opens */
    LANE_PAUSE_MAX_MS = 5 * 60 * 1000,
    LANE_ASKED_MAX_MS = 3600 * 1000, /* what Retry-After can hold up a lane for */
};

enum lane_state { LANE_CLOSED, LANE_OPEN, LANE_HALF_OPEN };

struct webhook_delivery;

struct lane {
    int64_t id;
    UT_hash_handle hh;
    enum lane_state state;
    mono_t until;     /* LANE_OPEN: when a probe may go */
    int64_t pause_ms; /* the next opening's length */
    int limit, running, failures;
    bool proven;                      /* its last delivery succeeded */
    bool has_parked, taking;          /* rows wait in the outbox; some are being taken */
    struct webhook_delivery *waiting; /* in hand, the oldest first */
    int waiting_n;
    struct lane *next_dirty; /* those that something happened to */
    bool dirty;
    bool asked_full; /* the last look for due rows parked those of this lane */
    mono_t used;
};

struct lanes {
    struct lane *all; /* by id */
    struct lane *dirty;
    int64_t cursor; /* the lane whose turn it is when places are scarce */
    bool starved;   /* one had to leave deliveries waiting, because all places were taken */
    int max, max_each;
    int64_t pause_ms; /* the first opening's length */
    int running, unproven;
};

/* The lane, made when it is new; NULL without memory. */
struct lane *lane_get(struct lanes *ls, int64_t id, mono_t now);
void lanes_free(struct lanes *ls); /* waiting deliveries must be gone */
/* Forgets it when it holds nothing and says nothing. */
bool lane_forget(struct lanes *ls, struct lane *l, mono_t now);

bool lane_may_start(const struct lanes *ls, const struct lane *l);
/* No use to take more of its rows. */
bool lane_is_full(const struct lanes *ls, const struct lane *l);
void lane_started(struct lanes *ls, struct lane *l, mono_t now);
/* asked_ms: what a Retry-After asked for, 0 without. jitter: 0 to 99. Whether the breaker opened by this. */
bool lane_ended(struct lanes *ls, struct lane *l, bool success, int64_t asked_ms, int jitter, mono_t now);
/* An open lane whose time is up becomes half open: true. */
bool lane_wake(struct lane *l, mono_t now);

#endif
