/* What a caller asks for: the JSON object of one submission, as it stands in the body of POST
 * /v1/invocations. */
#ifndef GATEWAY_SUBMISSION_H
#define GATEWAY_SUBMISSION_H

#include "json/json.h"
#include "store/submit.h"

/* Whom it is for; a view into the document. version 0: the serving one. */
struct submission_agent {
    struct str slug;
    int32_t version;
};

/* Reads the document (an object) into *sub, whose views point into it, and *agent (which may hold a
 * default beforehand). timeout_ms and max_attempts stay 0 when the caller gave none. own: names that the
 * caller reads itself
 * ("webhook" among them, or it is refused), NULL-ended, or NULL. -1 and *err: the first fault, as the
 * answer's code and detail. */
int submission_read(const struct json *doc, const char *const *own, struct submission *sub,
                    struct submission_agent *agent, struct err *err);

#endif
