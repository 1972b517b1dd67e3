/* Deploying a template of the sandbox provider: what the command line says of it, as the API's body. */
#ifndef CLI_FROM_TEMPLATE_H
#define CLI_FROM_TEMPLATE_H

#include "base/buf.h"

/* NULL: not given. Beside template a file with agent.json's keys, or the others. */
struct from_template {
    const char *template, *file, *entry, *install, *check;
};

/* 0, or told and the exit status. */
int from_template_check(const struct from_template *t);
/* The body into out; name may be NULL. 0, or told and the exit status. */
int from_template_body(const struct from_template *t, const char *name, struct buf *out);

#endif
