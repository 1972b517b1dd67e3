/* What a sandbox's nonce says (DESIGN section 4, "Orphans").
 *
 * Each attempt creates one sandbox at most, so (invocation, attempt) names a create. The nonce is the
 * invocation's UUIDv7 with its six constant bits (version, variant) carrying the attempt, 1 to 63; later
 * attempts carry 0. So whoever reaps a dead executor's sandbox knows whose usage to write, with Redis empty
 * or not. */
#ifndef STORE_NONCE_H
#define STORE_NONCE_H

#include "base/id.h"

struct uuid nonce_make(struct uuid id, int attempt);
/* *attempt_out is 0 when the nonce does not say. */
struct uuid nonce_read(struct uuid nonce, int *attempt_out);

#endif
