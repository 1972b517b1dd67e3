/* Names of agents, as the command line chooses them; profiles and tenants are named by the same rule. */
#ifndef CLI_SLUG_H
#define CLI_SLUG_H

#include <stdbool.h>

enum { CLI_SLUG_MAX = 63 };

/* Lower-case letters, digits and hyphens, none of these first, CLI_SLUG_MAX at most. */
bool cli_is_slug(const char *s);

/* One made of the last part of a path (which need not exist) or of a URL: 0, or told and the exit status. */
int cli_slug_of(const char *dir, char out[CLI_SLUG_MAX + 1]);

#endif
