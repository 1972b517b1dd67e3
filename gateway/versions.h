/* /v1/agents/{name}/versions, /v1/agents/{name}/rollback. */
#ifndef GATEWAY_VERSIONS_H
#define GATEWAY_VERSIONS_H

#include "call.h"

void versions_list(struct call *c);
void agent_rollback(struct call *c);

#endif
