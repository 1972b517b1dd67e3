/* Webhooks: the outbox worked off. On every dispatcher, whatever Redis does: a message of sp:done only makes
 * it sooner than the next look. */
#ifndef DISPATCHER_WEBHOOKS_H
#define DISPATCHER_WEBHOOKS_H

#include "dispatcher.h"

struct webhooks;

/* Without a private key it only says so, in the log. NULL and *err without memory, or with unusable settings.
 */
struct webhooks *webhooks_new(struct dispatcher *d, struct err *err);
void webhooks_free(struct webhooks **w);

/* Something was put into the outbox. */
void webhooks_wake(struct webhooks *w);

/* Takes no more, gives back what waits, lets what is under way end (some seconds at most), then calls fn. */
void webhooks_leave(struct webhooks *w, void (*fn)(void *arg), void *arg);

#endif
