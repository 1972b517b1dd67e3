/* The dispatcher's configuration table. */
#include "settings.h"

#include "base/log.h"
#include "postgres/pg.h"
#include "redis/redis.h"

#define ROW(k, kind_, field, fallback_, required_, min_, max_, help_, ...)                                \
    {                                                                                                     \
        .key = (k), .kind = (kind_), .offset = offsetof(struct settings, field), .fallback = (fallback_), \
        .required = (required_), .min = (min_), .max = (max_), .help = (help_), __VA_ARGS__               \
    }

static const struct config_row rows[] = {
    ROW("SANDPIPER_DATABASE_URL", CONFIG_STRING, database_url, NULL, true, 0, 0,
        "PostgreSQL, as libpq reads it: postgresql://user@host/db", .check = pg_url_check),
    ROW("SANDPIPER_REDIS_URL", CONFIG_STRING, redis_url, NULL, true, 0, 0,
        "Redis: redis://[user:password@]host[:port][/db] or unix:///path", .check = redis_url_check),
    ROW("SANDPIPER_LOG_LEVEL", CONFIG_STRING, log_level, "info", false, 0, 0, "debug, info, warn or error",
        .check = log_level_check),
    ROW("SANDPIPER_TENANT_WINDOW", CONFIG_INT, tenant_window, "512", false, 1, 100000,
        "unclaimed jobs that a tenant may have on the streams; the same for all daemons"),
    ROW("E2B_API_URL", CONFIG_URL, e2b_api_url, NULL, false, 0, 0,
        "control plane; default https://api.<domain>"),
    ROW("E2B_SANDBOX_URL", CONFIG_URL, e2b_sandbox_url, NULL, false, 0, 0, "data plane; default by domain"),
    ROW("E2B_DOMAIN", CONFIG_STRING, e2b_domain, "e2b.app", false, 0, 0, "E2B's domain"),
    ROW("E2B_API_KEY", CONFIG_SECRET, e2b_api_key, NULL, true, 0, 0,
        "E2B's API key, or the sandbox host's: orphaned sandboxes are reaped with it"),
};

const struct config_table settings_table = {
    .daemon = "sandpiper-dispatcher",
    .about =
        "Keeps the queue honest: feeds it fairly, reclaims from dead executors, repairs, retries, reaps.",
    .rows = rows,
    .count = sizeof rows / sizeof *rows,
};
