/* /v1/invocations: submit, list, read, cancel. */
#ifndef GATEWAY_INVOCATIONS_H
#define GATEWAY_INVOCATIONS_H

#include "call.h"
#include "store/settle.h"
#include "store/submit.h"

void invocation_submit(struct call *c);
void invocations_list(struct call *c); /* invocation_list.c */
void invocation_get(struct call *c);
void invocation_cancel(struct call *c);
void invocation_retry(struct call *c); /* retry.c */
void invocation_output(struct call *c);
void invocation_logs(struct call *c);
void invocation_artifacts(struct call *c); /* artifacts.c */
void invocation_artifact(struct call *c);

/* Callbacks of the gateway's submitter and settler. */
void invocation_committed(void *arg, struct submission *s, const struct err *err);
void invocation_settled(void *arg, struct outcome *o, const struct err *err);

/* The id in the call's path, or answers 404. */
bool invocation_id(struct call *c, struct uuid *id);

#endif
