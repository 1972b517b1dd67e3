/* /v1/agents/{name}/versions, /v1/agents/{name}/rollback. */
#ifndef GATEWAY_VERSIONS_H
#define GATEWAY_VERSIONS_H

#include "call.h"

void versions_list(struct call *c);
void version_show(struct call *c);
void version_log(struct call *c); /* build_log.c */
void agent_rollback(struct call *c);

/* The version's number that the path names; false: answered. */
bool version_of_path(struct call *c, int32_t *out);

#endif
