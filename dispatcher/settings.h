/* The dispatcher's configuration. */
#ifndef DISPATCHER_SETTINGS_H
#define DISPATCHER_SETTINGS_H

#include "config/config.h"

struct settings {
    char *database_url;
    char *redis_url;
    char *log_level;
    int64_t tenant_window;
    char *e2b_api_url;
    char *e2b_sandbox_url;
    char *e2b_domain;
    struct secret *e2b_api_key;
};

extern const struct config_table settings_table;

#endif
