/* The dispatcher's configuration table. */
#include "settings.h"

#include "base/log.h"
#include "crypto/seal.h"
#include "http/guard.h"
#include "model/webhook.h"
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
    ROW("SANDPIPER_AGENT_KEEP_VERSIONS", CONFIG_INT, keep_versions, "10", false, 0, 100000,
        "ready versions of an agent that are kept besides the one that serves; older ones are retired"),
    ROW("SANDPIPER_AGENT_RETIRE_GRACE", CONFIG_MS, retire_grace_ms, "10m", false, 1000, 86400000,
        "how long the snapshot of a retired version stays at least: longer than a submission takes"),
    ROW("E2B_API_URL", CONFIG_URL, e2b_api_url, NULL, false, 0, 0,
        "control plane; default https://api.<domain>"),
    ROW("E2B_SANDBOX_URL", CONFIG_URL, e2b_sandbox_url, NULL, false, 0, 0, "data plane; default by domain"),
    ROW("E2B_DOMAIN", CONFIG_STRING, e2b_domain, "e2b.app", false, 0, 0, "E2B's domain"),
    ROW("E2B_API_KEY", CONFIG_SECRET, e2b_api_key, NULL, true, 0, 0,
        "E2B's API key, or the sandbox host's: orphaned sandboxes are reaped with it"),
    ROW("SANDPIPER_WEBHOOK_PRIVATE_KEY", CONFIG_SECRET, webhook_private_key, NULL, false, 0, 0,
        "opens the secrets that webhooks are signed with: 'sandpiper secrets init' makes it; several are "
        "separated by white space",
        .check = seal_private_check),
    ROW("SANDPIPER_WEBHOOK_PORTS", CONFIG_STRING, webhook_ports, GUARD_PORTS_DEFAULT, false, 0, 0,
        "ports that webhooks may go to; the same for gateways", .check = guard_ports_check),
    ROW("SANDPIPER_WEBHOOK_ALLOW_ADDRESSES", CONFIG_STRING, webhook_allow, NULL, false, 0, 0,
        "networks that webhooks may go to although they are private: 10.1.0.0/16,fd00::/8",
        .check = guard_allowed_check),
    ROW("SANDPIPER_WEBHOOK_SCHEDULE", CONFIG_STRING, webhook_schedule, WEBHOOK_SCHEDULE_DEFAULT, false, 0, 0,
        "waits between the attempts of a webhook", .check = webhook_schedule_check),
    ROW("SANDPIPER_WEBHOOK_TIMEOUT", CONFIG_MS, webhook_timeout_ms, "20s", false, 100, 30000,
        "how long a receiver may take"),
    ROW("SANDPIPER_WEBHOOK_PAUSE", CONFIG_MS, webhook_pause_ms, "15s", false, 10, 300000,
        "how long a receiver that failed 10 times in a row is left alone, at first"),
    ROW("SANDPIPER_WEBHOOK_DISABLE_AFTER", CONFIG_MS, webhook_disable_ms, "120h", false, 1000, 2592000000,
        "an endpoint that has failed for so long is disabled"),
    ROW("SANDPIPER_WEBHOOK_CONCURRENCY", CONFIG_INT, webhook_concurrency, "1024", false, 2, 20000,
        "webhooks under way at once"),
    ROW("SANDPIPER_WEBHOOK_ENDPOINT_CONCURRENCY", CONFIG_INT, webhook_endpoint_concurrency, "64", false, 1,
        1000, "webhooks under way at once to one receiver"),
};

const struct config_table settings_table = {
    .daemon = "sandpiper-dispatcher",
    .about =
        "Keeps the queue honest: feeds it fairly, reclaims from dead executors, repairs, retries, reaps.",
    .rows = rows,
    .count = sizeof rows / sizeof *rows,
};
