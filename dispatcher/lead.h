/* The lead: a key in Redis that only avoids duplicate effort. Besides, when this process may act on what it
 * sees in Redis: never within 3 s after a (re)connect or a loss (DESIGN section 4). */
#ifndef DISPATCHER_LEAD_H
#define DISPATCHER_LEAD_H

#include "dispatcher.h"

struct lead;
struct lead *lead_new(struct dispatcher *d);
void lead_free(struct lead **l);

/* Gives the lead up, when it is held: another takes it within a second. left: called once, at the latest
 * after a second. */
void lead_leave(struct lead *l, void (*left)(void *arg), void *arg);

/* Leading, and Redis is whole: queue duties may run. */
bool leading(const struct lead *l);
/* Leading, and Redis has answered without a loss for at least ms. */
bool leading_calmly(const struct lead *l, int64_t ms);

/* The connection came or went; Redis lost something: the calm begins anew. */
void lead_redis_state(struct lead *l, bool connected);
void lead_disturbed(struct lead *l);
/* watch.c: Redis is being rebuilt (nothing may be enqueued), or whole again. */
void lead_set_whole(struct lead *l, bool whole);

#endif
