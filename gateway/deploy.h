/* Inside deploys: what an archive and a repository have in common. */
#ifndef GATEWAY_DEPLOY_H
#define GATEWAY_DEPLOY_H

#include "call.h"
#include "json/json.h"

/* POST /v1/agents with a JSON body, which names what is not uploaded: deploy_json.c, and what it leads to.
 * doc is the caller's. */
void agent_deploy_json(struct call *c);
void agent_deploy_git(struct call *c, const struct json *doc);
void agent_deploy_template(struct call *c, const struct json *doc);
/* A member that is text; empty when there is none. */
int deploy_text(const struct json *doc, const char *key, struct str *out, struct err *err);

/* Whether an agent may be built on that template: ERR_TEMPLATE when the operator's list has it not, or when
 * it is a snapshot of this deployment's. fn is called from the loop. 0, or -1 and *err. */
typedef void deploy_template_fn(void *arg, const struct err *err);
int deploy_template_check(struct gateway *g, const char *name, deploy_template_fn *fn, void *arg,
                          struct err *err);

/* Hands a version that was made to the builders. A lost enqueue is found by the dispatchers: they look for
 * builds that nobody works on. */
void deploy_enqueue(struct call *c, struct uuid version_id, struct uuid agent,
                    int32_t version); /* deploy.c */

#endif
