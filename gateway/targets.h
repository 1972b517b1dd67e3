/* Which agent version a submission means: slugs resolved, answers cached for a second (so a new version
 * serves within a second everywhere), at most TARGET_CACHE of them; agents that cannot run are not cached. */
#ifndef GATEWAY_TARGETS_H
#define GATEWAY_TARGETS_H

#include "call.h"
#include "store/agents.h"

enum { TARGET_CACHE_MS = 1000, TARGET_CACHE = 4096 };

struct targets;
struct targets *targets_new(struct gateway *g);
void targets_free(struct targets **t);

/* fn is called at once for a cached answer, else from the loop while the call lives. */
/* The agent has changed, or may have: the next submission asks again. */
void targets_forget(struct targets *t, int32_t tenant, struct str slug);

typedef void target_fn(struct call *c, const struct agent_target *target, const struct err *err);
void target_resolve(struct targets *t, struct call *c, struct str slug, int32_t version, target_fn *fn);

#endif
