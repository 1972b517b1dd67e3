/* Waiting for the schema: what every daemon does before it serves. Start order does not matter. */
#ifndef STORE_SCHEMA_WAIT_H
#define STORE_SCHEMA_WAIT_H

#include "base/id.h"
#include "loop/loop.h"
#include "postgres/pg.h"

struct schema_wait;

/* ready: the schema is the one this build wants (once). waiting: why it is not yet, in words for a log (once,
 * the first time). Looks at once, then each second. NULL without memory. */
struct schema_wait *schema_wait_new(struct loop *loop, struct pg *pg,
                                    void (*ready)(void *arg, struct uuid deployment),
                                    void (*waiting)(void *arg, const char *why), void *arg);
void schema_wait_free(struct schema_wait **w);

#endif
