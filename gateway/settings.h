/* The gateway's configuration. */
#ifndef GATEWAY_SETTINGS_H
#define GATEWAY_SETTINGS_H

#include "config/config.h"

struct settings {
    char *listen;
    char *database_url;
    char *redis_url;
    char *log_level;
    char *spool_dir;
    int64_t max_connections;
    int64_t max_streams;
    int64_t max_body_bytes;
    int64_t batch_spool_bytes;
    int64_t max_files_bytes;
    char *templates;
    int64_t tenant_window;
    int64_t tenant_rate, tenant_burst;
    int64_t commit_deadline_ms;
    int64_t drain_ms;
    bool reuse_port;
    struct secret *webhook_public_key; /* NULL: none; webhooks are refused */
    struct secret *env_public_key;     /* NULL: none; secrets and env are refused */
    char *webhook_ports;
    char *webhook_allow;
};

extern const struct config_table settings_table;

#endif
