/* /v1/agents/{name}/secrets. */
#ifndef GATEWAY_SECRETS_H
#define GATEWAY_SECRETS_H

#include "call.h"

void secrets_list_call(struct call *c);
void secret_put_call(struct call *c);
void secret_delete_call(struct call *c);

#endif
