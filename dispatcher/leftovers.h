/* Sandboxes that a living executor left behind: one of a create whose answer was lost, and which it could not
 * look up; one that it could not destroy in time. The executor knows of none of them any more, and its life
 * keeps them from being orphans; but their nonces name their attempts, and PostgreSQL knows whether those are
 * over. */
#ifndef DISPATCHER_LEFTOVERS_H
#define DISPATCHER_LEFTOVERS_H

#include "dispatcher.h"
#include "sandbox/provider.h"

/* Told once for each, from the loop; never from inside the call. */
typedef void leftover_fn(void *arg, const struct sandbox_listed *s);

/* Picks those of living executors out of a list, and asks. What cannot be asked now is asked in the next
 * pass. items are copied. */
void leftovers_look(struct dispatcher *d, const struct sandbox_listed *items, size_t n, leftover_fn *fn,
                    void *arg);

#endif
