/* The dispatcher's configuration. */
#ifndef DISPATCHER_SETTINGS_H
#define DISPATCHER_SETTINGS_H

#include "config/config.h"

struct settings {
    char *database_url;
    char *redis_url;
    char *log_level;
    int64_t tenant_window;
    int64_t keep_versions, retire_grace_ms;
    char *e2b_api_url;
    char *e2b_sandbox_url;
    char *e2b_domain;
    struct secret *e2b_api_key;
    struct secret *webhook_private_key; /* NULL: none; webhooks wait */
    char *webhook_ports;
    char *webhook_allow;
    char *webhook_schedule;
    int64_t webhook_timeout_ms;
    int64_t webhook_pause_ms;
    int64_t webhook_disable_ms;
    int64_t webhook_concurrency;
    int64_t webhook_endpoint_concurrency;
};

extern const struct config_table settings_table;

#endif
