/* Profiles: which gateway, and as whom. A file each in ~/.config/sandpiper (XDG_CONFIG_HOME), readable by its
 * owner alone; `current` there names the one that is used when nothing else is said. */
#ifndef CLI_PROFILE_H
#define CLI_PROFILE_H

#include <stdbool.h>

#include "cli.h"

enum { PROFILE_NAME_MAX = 63, PROFILE_URL_BYTES = 512, PROFILE_KEY_BYTES = 256 };

struct profile {
    char name[PROFILE_NAME_MAX + 1];
    char url[PROFILE_URL_BYTES]; /* "" when it names none */
    char key[PROFILE_KEY_BYTES]; /* "" without; to be wiped */
};

/* The one to use: chosen (--profile), SANDPIPER_PROFILE's, the current one. 1 found, 0 there is none, -1
 * told: it was named and cannot be read. */
int profile_load(const char *chosen, struct profile *out);

#endif
