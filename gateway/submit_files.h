/* The files of a submission: in its document, or as the parts of a form. */
#ifndef GATEWAY_SUBMIT_FILES_H
#define GATEWAY_SUBMIT_FILES_H

#include "file_intake.h"
#include "submit.h"

/* The member `files` of the document, which was read; then the target is resolved. */
void submit_inline_files(struct submit *s);

/* Whether the request's body is said to be multipart/form-data. */
bool submit_is_form(const struct call *c);

/* Reads the body as a form: the part `invocation`, then the parts `files`; then the target is resolved. */
void submit_form(struct submit *s);
void submit_form_free(struct form **form);

#endif
