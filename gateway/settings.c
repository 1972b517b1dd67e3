/* The gateway's configuration table. */
#include "settings.h"

#include "base/log.h"
#include "crypto/seal.h"
#include "http/guard.h"
#include "model/template.h"
#include "postgres/pg.h"
#include "redis/redis.h"

#define ROW(k, kind_, field, fallback_, required_, min_, max_, help_, ...)                                \
    {                                                                                                     \
        .key = (k), .kind = (kind_), .offset = offsetof(struct settings, field), .fallback = (fallback_), \
        .required = (required_), .min = (min_), .max = (max_), .help = (help_), __VA_ARGS__               \
    }

static const struct config_row rows[] = {
    ROW("SANDPIPER_GATEWAY_LISTEN", CONFIG_LISTEN, listen, "127.0.0.1:8080", false, 0, 0,
        "address and port of the HTTP API"),
    ROW("SANDPIPER_DATABASE_URL", CONFIG_STRING, database_url, NULL, true, 0, 0,
        "PostgreSQL, as libpq reads it: postgresql://user@host/db", .check = pg_url_check),
    ROW("SANDPIPER_REDIS_URL", CONFIG_STRING, redis_url, NULL, true, 0, 0,
        "Redis: redis://[user:password@]host[:port][/db] or unix:///path", .check = redis_url_check),
    ROW("SANDPIPER_LOG_LEVEL", CONFIG_STRING, log_level, "info", false, 0, 0, "debug, info, warn or error",
        .check = log_level_check),
    ROW("SANDPIPER_SPOOL_DIR", CONFIG_STRING, spool_dir, "/tmp", false, 0, 0,
        "directory for unlinked temporary files (uploads)"),
    ROW("SANDPIPER_GATEWAY_MAX_CONNECTIONS", CONFIG_INT, max_connections, "12000", false, 1, 1000000,
        "client connections; beyond it the longest quiet one is closed, or 503"),
    ROW("SANDPIPER_GATEWAY_MAX_STREAMS", CONFIG_INT, max_streams, "6000", false, 0, 1000000,
        "live streams (server-sent events) at once; beyond it 503"),
    ROW("SANDPIPER_GATEWAY_MAX_BODY_BYTES", CONFIG_BYTES, max_body_bytes, "256m", false, 8388608,
        1099511627776, "what the bodies of all requests may hold together; beyond it 503"),
    ROW("SANDPIPER_GATEWAY_BATCH_SPOOL_BYTES", CONFIG_BYTES, batch_spool_bytes, "2g", false, 1048576,
        1099511627776, "what batches may hold together in the spool directory until they are committed"),
    ROW("SANDPIPER_GATEWAY_MAX_FILES_BYTES", CONFIG_BYTES, max_files_bytes, "256m", false, 1, 1073741824,
        "what the files of one submission may hold together; beyond it 413"),
    ROW("SANDPIPER_TEMPLATES", CONFIG_STRING, templates, "*", false, 0, 0,
        "the provider's templates that agents may be built on, with commas; * for all, or none; the same for "
        "executors",
        .check = template_list_check),
    ROW("SANDPIPER_TENANT_WINDOW", CONFIG_INT, tenant_window, "512", false, 1, 100000,
        "unclaimed jobs that a tenant may have on the streams; the same for all daemons"),
    ROW("SANDPIPER_TENANT_REQUESTS_PER_SECOND", CONFIG_INT, tenant_rate, "0", false, 0, 1000000,
        "requests a second that a tenant may send to this gateway; beyond it 429; 0: any number"),
    ROW("SANDPIPER_TENANT_BURST", CONFIG_INT, tenant_burst, "0", false, 0, 100000000,
        "how many of them at once after a rest; 0: ten seconds' worth"),
    ROW("SANDPIPER_COMMIT_DEADLINE", CONFIG_MS, commit_deadline_ms, "10s", false, 100, 60000,
        "how long a submission waits for its commit before 503"),
    ROW("SANDPIPER_GATEWAY_DRAIN", CONFIG_MS, drain_ms, "30s", false, 0, 600000,
        "on SIGTERM, how long running requests may take to end"),
    ROW("SANDPIPER_GATEWAY_REUSE_PORT", CONFIG_BOOL, reuse_port, "false", false, 0, 0,
        "let several gateways listen on one port (SO_REUSEPORT)"),
    ROW("SANDPIPER_WEBHOOK_PUBLIC_KEY", CONFIG_SECRET, webhook_public_key, NULL, false, 0, 0,
        "seals the secrets that webhooks are signed with: 'sandpiper secrets init' makes it",
        .check = seal_public_check),
    ROW("SANDPIPER_ENV_PUBLIC_KEY", CONFIG_SECRET, env_public_key, NULL, false, 0, 0,
        "seals agents' secrets and submissions' env: 'sandpiper secrets init' makes it",
        .check = seal_public_check),
    ROW("SANDPIPER_WEBHOOK_PORTS", CONFIG_STRING, webhook_ports, GUARD_PORTS_DEFAULT, false, 0, 0,
        "ports that webhooks may go to; the same for dispatchers", .check = guard_ports_check),
    ROW("SANDPIPER_WEBHOOK_ALLOW_ADDRESSES", CONFIG_STRING, webhook_allow, NULL, false, 0, 0,
        "networks that webhooks may go to although they are private: 10.1.0.0/16,fd00::/8",
        .check = guard_allowed_check),
};

const struct config_table settings_table = {
    .daemon = "sandpiper-gateway",
    .about = "The HTTP API: authenticates, validates, commits, enqueues; answers polls and waits.",
    .rows = rows,
    .count = sizeof rows / sizeof *rows,
};
