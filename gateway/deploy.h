/* Inside deploys: what an archive and a repository have in common. */
#ifndef GATEWAY_DEPLOY_H
#define GATEWAY_DEPLOY_H

#include "call.h"

/* POST /v1/agents with a JSON body. */
void agent_deploy_git(struct call *c); /* deploy_git.c */

/* Hands a version that was made to the builders. A lost enqueue is found by the dispatchers: they look for
 * builds that nobody works on. */
void deploy_enqueue(struct call *c, struct uuid version_id, struct uuid agent,
                    int32_t version); /* deploy.c */

#endif
