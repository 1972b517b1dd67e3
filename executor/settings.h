/* The executor's configuration. */
#ifndef EXECUTOR_SETTINGS_H
#define EXECUTOR_SETTINGS_H

#include "config/config.h"

struct settings {
    char *database_url;
    char *redis_url;
    char *log_level;
    char *spool_dir;
    int64_t max_jobs;
    int64_t max_builds;
    int64_t install_ms, check_ms;
    int64_t tenant_window;
    int64_t spool_bytes;
    int64_t output_bytes;
    int64_t max_artifact_bytes;
    int64_t create_deadline_ms, start_deadline_ms;
    int64_t creates_per_sec;
    int64_t live_limit;
    int64_t drain_ms;
    int64_t warm_max;
    int64_t warm_age_ms;
    char *listen;
    char *base_template, *templates;
    char *e2b_api_url;
    char *e2b_sandbox_url;
    char *e2b_domain;
    struct secret *env_private_key; /* NULL: none; jobs with secrets cannot be run */
    struct secret *e2b_api_key;
};

extern const struct config_table settings_table;

#endif
