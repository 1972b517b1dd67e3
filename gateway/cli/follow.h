/* Following an invocation's live stream to its result, over as many connections as it takes. */
#ifndef CLI_FOLLOW_H
#define CLI_FOLLOW_H

#include <stdio.h>

#include "base/id.h"
#include "cli.h"

struct follow {
    FILE *out, *err;        /* where stdout and stderr go; NULL: nowhere */
    char id[ID_TEXT_BYTES]; /* of the invocation; "" until it is told */
    struct reply result;    /* the record, when it has come; deinit it */
    char last_output;       /* the last byte of stdout */
};

/* submission: what makes the invocation and asks for its events, repeated until its id is known (it carries
 * an Idempotency-Key); NULL when f->id is set. Returns 0 with the result, or the exit status, told. With
 * --json each event is a line of JSON on stdout instead. */
int follow_run(struct cli *cli, struct follow *f, const struct api_request *submission);

#endif
