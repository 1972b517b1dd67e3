/* Bearer keys: from the Authorization header to a tenant.
 *
 * Looked up by SHA-256; answers are cached for AUTH_CACHE_MS (that is how long a revoked key may still work),
 * at most AUTH_CACHE_KEYS of them. Unknown keys are not cached: each costs its caller a query. */
#ifndef GATEWAY_AUTH_H
#define GATEWAY_AUTH_H

#include "call.h"

enum { AUTH_CACHE_MS = 5000, AUTH_CACHE_KEYS = 4096 };

struct auth;
struct auth *auth_new(struct gateway *g);
void auth_free(struct auth **a);

/* Fills c->tenant and c->api_key and calls `next` (at once for a cached key), or answers 401 / 503. */
void auth_check(struct auth *a, struct call *c, void (*next)(struct call *c));

#endif
