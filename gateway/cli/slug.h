/* Names of agents, as the command line chooses them. */
#ifndef CLI_SLUG_H
#define CLI_SLUG_H

#include <stdbool.h>

enum { CLI_SLUG_MAX = 63 };

/* Lower-case letters, digits and hyphens, none of these first, CLI_SLUG_MAX at most. */
bool cli_is_slug(const char *s);

/* One made of a directory's name (which need not exist): 0, or told and the exit status. */
int cli_slug_of(const char *dir, char out[CLI_SLUG_MAX + 1]);

#endif
