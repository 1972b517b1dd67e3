/* Files of jobs on their way in and out: so many jobs at once, the others wait in the order they came. Each
 * that has its turn holds one file in the spool directory or one piece in memory, so this bounds both. */
#ifndef EXECUTOR_TRANSFERS_H
#define EXECUTOR_TRANSFERS_H

#include "loop/loop.h"

enum { TRANSFERS_MAX = 16 };

struct transfers;
struct transfers *transfers_new(struct loop *loop);
void transfers_free(struct transfers **t);

/* Embedded in whoever waits, zeroed. */
struct transfer_turn {
    struct transfer_turn *prev, *next; /* while it waits */
    enum { TURN_NONE, TURN_WAITS, TURN_HELD } state;
    void (*fn)(void *arg);
    void *arg;
    struct loop_task task;
};

/* fn is called from the loop when it is its turn. */
void transfer_ask(struct transfers *t, struct transfer_turn *turn, void (*fn)(void *arg), void *arg);

/* Gives the turn back, or no longer waits; fine twice. */
void transfer_done(struct transfers *t, struct transfer_turn *turn);

#endif
