/* Templates of the sandbox provider, as agents name them: [team/]name[:tag]. Pure. */
#ifndef MODEL_TEMPLATE_H
#define MODEL_TEMPLATE_H

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"

enum { TEMPLATE_BYTES = 129 };

/* What TEMPLATE_FORM says: letters, digits, '.', '_' and '-', a team before a slash, a tag behind a colon. */
bool template_valid(struct str name);
#define TEMPLATE_FORM "a template's id or name, such as \"my-template\", \"team/name\" or \"name:tag\""

/* Whether a list of the operator's lets agents name this one. The list has names with commas between them:
 * one without a tag allows every tag. "*" allows all templates, "none" no template. Case counts. */
bool template_allowed(const char *list, struct str name);
/* 0, or -1 and *err: the list cannot be read. */
int template_list_check(const char *list, struct err *err);

#endif
