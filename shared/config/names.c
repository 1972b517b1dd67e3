/* The keys of all daemons and of the command line: an environment that serves them all may hold any of these.
 * A daemon that gains a key adds it here too. */
#include "config/config.h"

const char *const config_known_names[] = {
    "SANDPIPER_URL",
    "SANDPIPER_API_KEY",
    "SANDPIPER_PORT",
    "SANDPIPER_CONFIG",
    "SANDPIPER_DATABASE_URL",
    "SANDPIPER_REDIS_URL",
    "SANDPIPER_LOG_LEVEL",
    NULL,
};
