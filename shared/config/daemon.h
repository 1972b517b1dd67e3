/* The frame of every daemon's main. */
#ifndef CONFIG_DAEMON_H
#define CONFIG_DAEMON_H

#include "config/config.h"

/* Loads the configuration into settings (zeroed), sets up logging as `name` at *level, ignores SIGPIPE, calls
 * run and returns the process's exit status: run's, 0 or 2 when the command line asked for something else. */
int daemon_main(const struct config_table *table, void *settings, const char *name, char *const *level,
                int argc, char **argv, int (*run)(void *arg), void *arg);

#endif
