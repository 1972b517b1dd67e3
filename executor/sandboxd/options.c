/* The table of configuration keys. A key added here shows in --help, --check-config and --print-config by
 * itself. */
#include "options.h"

#include "base/log.h"

#define ROW(k, kind_, field, fallback_, min_, max_, help_, ...)                                          \
    {                                                                                                    \
        .key = (k), .kind = (kind_), .offset = offsetof(struct options, field), .fallback = (fallback_), \
        .min = (min_), .max = (max_), .help = (help_), __VA_ARGS__                                       \
    }

static const struct config_row rows[] = {
    ROW("SANDPIPER_SANDBOXD_LISTEN", CONFIG_LISTEN, listen, "127.0.0.1:8084", 0, 0,
        "address:port to listen on"),
    ROW("SANDPIPER_SANDBOXD_DATA_DIR", CONFIG_STRING, data_dir, "/var/lib/sandpiper/sandboxd", 0, 0,
        "directory for the base image, disks and snapshots; one daemon at a time"),
    ROW("E2B_API_KEY", CONFIG_SECRET, api_key, NULL, 0, 0,
        "what X-API-Key must be; unset: every caller is let in"),
    ROW("SANDPIPER_SANDBOXD_MAX_SANDBOXES", CONFIG_INT, max_sandboxes, "256", 1, 4096,
        "live sandboxes at most"),
    ROW("SANDPIPER_SANDBOXD_MAX_QUEUED", CONFIG_INT, max_queued, "1024", 0, 65536,
        "creates that may wait for a cell; beyond: 503"),
    ROW("SANDPIPER_SANDBOXD_SPARE_CELLS", CONFIG_INT, spare_cells, "8", 0, 256,
        "cells kept built ahead of need"),
    ROW("SANDPIPER_SANDBOXD_BUILD_AT_ONCE", CONFIG_INT, build_at_once, "4", 1, 64,
        "cells built at the same time"),
    ROW("SANDPIPER_SANDBOXD_MEMORY", CONFIG_BYTES, memory_bytes, "2g", 16777216, INT64_MAX,
        "memory of a sandbox"),
    ROW("SANDPIPER_SANDBOXD_CPUS", CONFIG_INT, cpus, "2", 1, 1024, "CPUs' worth of time of a sandbox"),
    ROW("SANDPIPER_SANDBOXD_DISK", CONFIG_BYTES, disk_bytes, "10g", 16777216, INT64_MAX, "disk of a sandbox"),
    ROW("SANDPIPER_SANDBOXD_PIDS", CONFIG_INT, pids, "512", 8, 1000000, "processes and threads of a sandbox"),
    ROW("SANDPIPER_SANDBOXD_FILES", CONFIG_INT, files, "1024", 64, 1048576,
        "open files of each process of a sandbox"),
    ROW("SANDPIPER_SANDBOXD_MAX_TTL", CONFIG_MS, max_ttl_ms, "24h", 1000, 31536000000,
        "longest time to live"),
    ROW("SANDPIPER_SANDBOXD_MOUNTS", CONFIG_STRING, mounts, "", 0, 0,
        "host directories seen read-only in every sandbox: /host/dir:/inside/dir, separated by commas"),
    ROW("SANDPIPER_SANDBOXD_NODE_DIR", CONFIG_STRING, node_dir, "", 0, 0,
        "a Node.js installation (with bin/node) to be seen as /usr/local, where the machine's own is too "
        "old"),
    ROW("SANDPIPER_SANDBOXD_EGRESS", CONFIG_BOOL, egress, "true", 0, 0,
        "whether sandboxes may reach the network"),
    ROW("SANDPIPER_SANDBOXD_EGRESS_DENY", CONFIG_STRING, egress_deny, "169.254.0.0/16", 0, 0,
        "IPv4 networks that no sandbox may reach, separated by commas; the host's own addresses always are"),
    ROW("SANDPIPER_SANDBOXD_UID_BASE", CONFIG_INT, uid_base, "1900544000", 65536, 3758000000,
        "first of the host user ids that sandboxes run as: 65536 for each; another for each host on a "
        "machine"),
    ROW("SANDPIPER_SANDBOXD_BWRAP", CONFIG_STRING, bwrap, "/usr/bin/bwrap", 0, 0, "bubblewrap"),
    ROW("SANDPIPER_SANDBOXD_SLIRP", CONFIG_STRING, slirp, "/usr/bin/slirp4netns", 0, 0, "slirp4netns"),
    ROW("SANDPIPER_LOG_LEVEL", CONFIG_STRING, log_level, "info", 0, 0, "debug, info, warn or error",
        .check = log_level_check),
};

static const struct config_flag flags[] = {
    {"--allow-unenforced", offsetof(struct options, allow_unenforced),
     "start even where the machine cannot enforce a limit"},
};

const struct config_table options_table = {
    .daemon = "sandpiper-sandboxd",
    .about = "E2B-compatible sandboxes on this machine",
    .rows = rows,
    .count = sizeof rows / sizeof rows[0],
    .flags = flags,
    .flag_count = sizeof flags / sizeof flags[0],
};
