/* The executor's configuration table. */
#include "settings.h"

#include "base/log.h"
#include "crypto/seal.h"
#include "model/template.h"
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
    ROW("SANDPIPER_SPOOL_DIR", CONFIG_STRING, spool_dir, "/tmp", false, 0, 0,
        "directory for unlinked temporary files (large outputs)"),
    ROW("SANDPIPER_EXECUTOR_JOBS", CONFIG_INT, max_jobs, "200", false, 1, 20000,
        "invocations that run at once in this process"),
    ROW("SANDPIPER_EXECUTOR_BUILDS", CONFIG_INT, max_builds, "2", false, 0, 100,
        "agent builds that run at once in this process"),
    ROW("SANDPIPER_INSTALL_LIMIT", CONFIG_MS, install_ms, "10m", false, 1000, 3600000,
        "how long an agent's install step may take"),
    ROW("SANDPIPER_CHECK_LIMIT", CONFIG_MS, check_ms, "2m", false, 1000, 3600000,
        "how long an agent's check may take"),
    ROW("SANDPIPER_TENANT_WINDOW", CONFIG_INT, tenant_window, "512", false, 1, 100000,
        "unclaimed jobs that a tenant may have on the streams; the same for all daemons"),
    ROW("SANDPIPER_EXECUTOR_SPOOL_BYTES", CONFIG_BYTES, spool_bytes, "4g", false, 1048576, 1LL << 50,
        "disk that outputs may take; when it is full nothing more is claimed"),
    ROW("SANDPIPER_OUTPUT_BYTES", CONFIG_BYTES, output_bytes, "10m", false, 1024, 1LL << 30,
        "output kept of one invocation; more is cut and marked"),
    ROW("SANDPIPER_EXECUTOR_MAX_ARTIFACT_BYTES", CONFIG_BYTES, max_artifact_bytes, "256m", false, 0,
        1LL << 40, "artifacts kept of one invocation; what is beyond it is left out, and marked"),
    ROW("SANDPIPER_CREATE_DEADLINE", CONFIG_MS, create_deadline_ms, "80s", false, 1000, 600000,
        "how long creating a sandbox may take; E2B's own limit is 70 s"),
    ROW("SANDPIPER_START_DEADLINE", CONFIG_MS, start_deadline_ms, "30s", false, 1000, 600000,
        "how long starting the program in a sandbox may take, and how long uploading a large prompt before"),
    ROW("SANDPIPER_E2B_CREATES_PER_SECOND", CONFIG_INT, creates_per_sec, "0", false, 0, 100000,
        "the provider's quota for creates, for the whole fleet; 0: unlimited"),
    ROW("SANDPIPER_E2B_LIVE_SANDBOXES", CONFIG_INT, live_limit, "0", false, 0, 1000000,
        "the provider's quota of live sandboxes, for the whole fleet; 0: unlimited"),
    ROW("SANDPIPER_EXECUTOR_DRAIN", CONFIG_MS, drain_ms, "150s", false, 0, 3700000,
        "on SIGTERM, how long running jobs may take to end before they are handed back"),
    ROW("SANDPIPER_EXECUTOR_WARM", CONFIG_INT, warm_max, "32", false, 0, 10000,
        "sandboxes kept ready in this process for agents with a warm_pool; 0: none"),
    ROW("SANDPIPER_EXECUTOR_WARM_AGE", CONFIG_MS, warm_age_ms, "10m", false, 1000, 3000000,
        "how long one is kept ready; its life at the provider is this and what a job may take"),
    ROW("SANDPIPER_EXECUTOR_LISTEN", CONFIG_STRING, listen, "", false, 0, 0,
        "address:port of /metrics and /healthz; nothing listens unless it is set"),
    ROW("SANDPIPER_ENV_PRIVATE_KEY", CONFIG_SECRET, env_private_key, NULL, false, 0, 0,
        "opens agents' secrets and submissions' env: 'sandpiper secrets init' makes it; several, one a line, "
        "while keys are rotated",
        .check = seal_private_check),
    ROW("SANDPIPER_BASE_TEMPLATE", CONFIG_STRING, base_template, "base", false, 0, 0,
        "the template that agents are built on which name none"),
    ROW("SANDPIPER_TEMPLATES", CONFIG_STRING, templates, "*", false, 0, 0,
        "the templates that agents may name, with commas; * for all, or none; the same for gateways",
        .check = template_list_check),
    ROW("E2B_API_URL", CONFIG_URL, e2b_api_url, NULL, false, 0, 0,
        "control plane; default https://api.<domain>"),
    ROW("E2B_SANDBOX_URL", CONFIG_URL, e2b_sandbox_url, NULL, false, 0, 0, "data plane; default by domain"),
    ROW("E2B_DOMAIN", CONFIG_STRING, e2b_domain, "e2b.app", false, 0, 0, "E2B's domain"),
    ROW("E2B_API_KEY", CONFIG_SECRET, e2b_api_key, NULL, true, 0, 0, "E2B's API key, or the sandbox host's"),
};

const struct config_table settings_table = {
    .daemon = "sandpiper-executor",
    .about = "Claims jobs from the streams, runs each in a sandbox, records and publishes the outcome.",
    .rows = rows,
    .count = sizeof rows / sizeof *rows,
};
