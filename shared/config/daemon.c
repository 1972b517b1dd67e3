/* The frame of every daemon's main. */
#include "config/daemon.h"

#include <signal.h>
#include <sys/resource.h>

#include "base/failpoint.h"
#include "base/log.h"

/* No core, which would hold secrets: 1 is less than any, and alone of all limits holds for a program that
 * cores are piped to as well (the kernel's own mark for "none"). */
static void refuse_cores(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_CORE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max > 0 ? 1 : 0;
    setrlimit(RLIMIT_CORE, &limit);
}

int daemon_main(const struct config_table *table, void *settings, const char *name, char *const *level,
                int argc, char **argv, int (*run)(void *arg), void *arg)
{
    enum log_level least = LOG_INFO;
    switch (config_load(table, argc, argv, settings)) {
    case CONFIG_EXIT_OK:
        return 0;
    case CONFIG_EXIT_BAD:
        return 2;
    case CONFIG_RUN:
        break;
    }
    if (*level != NULL)
        log_level_parse(str_of(*level), &least);
    log_setup(name, least);
    signal(SIGPIPE, SIG_IGN);
    refuse_cores();
    struct err err = ERR_INIT;
    if (failpoint_open(&err) != 0) {
        log_error("cannot start", LF_ERR(&err));
        config_unload(table, settings);
        return 2;
    }
    int status = run(arg);
    config_unload(table, settings);
    return status;
}
