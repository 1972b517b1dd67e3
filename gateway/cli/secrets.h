/* The parts of `secrets`. */
#ifndef CLI_SECRETS_H
#define CLI_SECRETS_H

#include "cli.h"

/* seal_keys.c: makes the pairs of keys that are not in that directory yet. */
int secrets_init(struct cli *cli, const char *dir);

/* rotate.c: seals anew what another key than the new one sealed. Files: the private keys, old and new; the
 * new public one. */
int secrets_rotate(struct cli *cli, const char *database, const char *private_file, const char *public_file);

#endif
