/* A submission with files as a form, in an unlinked file that is mapped: memory stays small. */
#ifndef CLI_ATTACH_H
#define CLI_ATTACH_H

#include "cli.h"

struct attach_form {
    void *map; /* NULL: not made yet */
    size_t bytes;
    char content_type[96]; /* a header */
};

/* items: PATH, or PATH=NAME. The same submission with the same files gives the same bytes, so it may be sent
 * again under its Idempotency-Key. 0, or told and the exit status. */
int attach_make(const struct cli_list *items, struct str document, struct attach_form *out);
void attach_deinit(struct attach_form *f);

#endif
