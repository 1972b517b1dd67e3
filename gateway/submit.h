/* A submission on its way to its commit: what POST /v1/invocations and a retry by hand have in common. */
#ifndef GATEWAY_SUBMIT_H
#define GATEWAY_SUBMIT_H

#include "call.h"
#include "handoff.h"
#include "submission.h"
#include "targets.h"

/* The call's data. What its views point into lives here until the commit. */
struct submit {
    struct submission sub; /* first: the submitter hands it back */
    struct call *c;
    struct json *doc;
    char *key;
    struct handoff_ticket *ticket;
    struct submission_agent agent;
    int64_t wait_ms;
    bool stream; /* events are asked for */
    mono_t began;
    struct webhook_input *hook; /* NULL: none */
    struct buf env;             /* its environment, sealed; empty: none */
    bool env_given;             /* body and document hold it in clear */
    struct http_body *body;     /* the document's text */
    struct arena *arena;        /* of a retry: what it repeats */
    struct file_intake *files;  /* those that come along; NULL: none */
    struct form *form;          /* the body's, when it is one; else NULL */
};

/* Makes it, at the head of `bytes`, and reads the headers. NULL: the call was answered. */
struct submit *submit_new(struct call *c, size_t bytes);

/* What its Idempotency-Key is bound to: method, path and raw body. */
void submit_fingerprint(struct submit *s, const char *method_path, struct str body);

/* The document is there: read into the submission. -1 and *err. */
int submit_read(struct submit *s, struct err *err);

/* The last steps (a target_fn of its call): the target is checked, the submission committed, the call
 * answered. */
void submit_target(struct call *c, const struct agent_target *t, const struct err *err);

#endif
