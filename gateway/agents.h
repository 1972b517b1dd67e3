/* /v1/agents: deploy, list, read. */
#ifndef GATEWAY_AGENTS_H
#define GATEWAY_AGENTS_H

#include "call.h"

struct agent_origin;
struct json_writer;

void agent_deploy_call(struct call *c); /* deploy.c */
void agents_list(struct call *c);
void agent_show(struct call *c);
void agent_delete_call(struct call *c);

/* Answers with one agent's record, `status` as given; 404 without one. */
void agent_answer(struct call *c, struct str slug, int status);
/* The same with the version that a deploy made, or found. */
void agent_answer_deploy(struct call *c, struct str slug, int32_t version, int status);

/* "source": where a version comes from. */
void agent_write_source(struct json_writer *w, const struct agent_origin *git);

#endif
