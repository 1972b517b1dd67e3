/* /v1/webhooks: standing endpoints, their deliveries and their streams. */
#ifndef GATEWAY_WEBHOOKS_H
#define GATEWAY_WEBHOOKS_H

#include "call.h"

/* webhooks.c: the endpoints themselves */
void webhook_create_call(struct call *c);
void webhooks_list(struct call *c);
void webhook_show(struct call *c);
void webhook_change_call(struct call *c);
void webhook_delete_call(struct call *c);
void webhook_enable(struct call *c);
void webhook_rotate_call(struct call *c);

/* webhook_log.c: what was sent, and sending again */
void webhook_test_call(struct call *c);
void webhook_redeliver_call(struct call *c);
void webhook_replay_call(struct call *c);
void webhook_deliveries(struct call *c);
void hook_deliveries(struct call *c); /* of an invocation's own hook */
void hook_redeliver(struct call *c);

/* webhook_stream.c */
void webhook_stream(struct call *c);

/* ---- between these files ---- */

/* The id in the path; false when it is none, and that is answered. */
bool webhook_id_of(struct call *c, struct uuid *id);

/* Reads the body (an object, or nothing at all), then calls fn with it; doc is parsed and the caller's until
 * the call ends. */
typedef void webhook_body_fn(struct call *c, const struct json *doc);
void webhook_read_body(struct call *c, webhook_body_fn *fn);

/* Tells dispatchers that the outbox has something. */
void webhook_poke(struct call *c, struct uuid event);

#endif
