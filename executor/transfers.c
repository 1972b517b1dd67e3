/* Turns. */
#include "transfers.h"

#include <stdlib.h>
#include <utlist.h>

struct transfers {
    struct loop *loop;
    struct transfer_turn *line;
    int held;
};

struct transfers *transfers_new(struct loop *loop)
{
    struct transfers *t = calloc(1, sizeof *t);
    if (t != NULL)
        t->loop = loop;
    return t;
}

void transfers_free(struct transfers **t)
{
    free(*t);
    *t = NULL;
}

static void call_up(void *arg)
{
    struct transfer_turn *turn = arg;
    turn->fn(turn->arg);
}

static void next(struct transfers *t)
{
    struct transfer_turn *turn = t->line;
    if (turn == NULL || t->held >= TRANSFERS_MAX)
        return;
    DL_DELETE(t->line, turn);
    turn->state = TURN_HELD;
    t->held++;
    loop_task_post(t->loop, &turn->task, call_up, turn);
}

void transfer_ask(struct transfers *t, struct transfer_turn *turn, void (*fn)(void *arg), void *arg)
{
    turn->fn = fn;
    turn->arg = arg;
    turn->state = TURN_WAITS;
    DL_APPEND(t->line, turn);
    next(t);
}

void transfer_done(struct transfers *t, struct transfer_turn *turn)
{
    if (turn->state == TURN_WAITS)
        DL_DELETE(t->line, turn);
    if (turn->state == TURN_HELD)
        t->held--;
    loop_task_cancel(t->loop, &turn->task);
    turn->state = TURN_NONE;
    next(t);
}
