/* /v1/keys: API keys. */
#ifndef GATEWAY_KEYS_H
#define GATEWAY_KEYS_H

#include "call.h"

void keys_list(struct call *c);
void key_create_call(struct call *c);
void key_show(struct call *c); /* "self" is the one that asks */
void key_revoke_call(struct call *c);

#endif
