/* /v1/usage: sums. */
#ifndef GATEWAY_USAGE_H
#define GATEWAY_USAGE_H

#include "call.h"

void usage_call(struct call *c);

#endif
