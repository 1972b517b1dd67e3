/* The contract to read: /docs (all operations and schemas on one page) and /problems/{code} (RFC 9457
 * `type`). Rendered from api/openapi.json, api/problems.json and the error table; nothing on these pages
 * comes from anywhere else. The schema of agent.json is served as it is. */
#ifndef GATEWAY_DOCS_H
#define GATEWAY_DOCS_H

#include "call.h"
#include "contract.h"

struct docs;
struct docs *docs_new(const struct contract *contract, struct err *err);
void docs_free(struct docs **d);

void docs_contract(struct call *c);     /* GET /openapi.json */
void docs_agent_schema(struct call *c); /* GET /schemas/agent.json */
void docs_page(struct call *c);         /* GET /docs */
void docs_problem(struct call *c);      /* GET /problems/{code} */

#endif
