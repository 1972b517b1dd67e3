/* Bearer keys: from the Authorization header to a tenant and scopes.
 *
 * Looked up by SHA-256; answers are cached for AUTH_CACHE_MS, at most AUTH_CACHE_KEYS of them. Revoked keys
 * are told by pub/sub (auth_forget): AUTH_CACHE_MS is how long one may still work when that message is lost.
 * Unknown keys are not cached: each costs its caller a query. */
#ifndef GATEWAY_AUTH_H
#define GATEWAY_AUTH_H

#include "call.h"

enum { AUTH_CACHE_MS = 5000, AUTH_CACHE_KEYS = 4096 };

struct auth;
struct auth *auth_new(struct gateway *g);
void auth_free(struct auth **a);

/* Fills c->tenant, c->api_key and c->scopes and calls `next` (at once for a cached key), or answers 401 /
 * 503.
 */
void auth_check(struct auth *a, struct call *c, void (*next)(struct call *c));

/* The key was revoked. */
void auth_forget(struct auth *a, struct uuid id);

#endif
