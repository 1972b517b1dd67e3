/* Configuration of sandpiper-sandboxd: the struct behind the table in options.c. */
#ifndef SANDBOXD_OPTIONS_H
#define SANDBOXD_OPTIONS_H

#include "config/config.h"

struct options {
    char *listen, *data_dir, *mounts, *node_dir, *egress_deny, *bwrap, *slirp, *log_level;
    struct secret *api_key;
    int64_t max_sandboxes, max_queued, spare_cells, build_at_once;
    int64_t memory_bytes, disk_bytes, pids, files, cpus, uid_base;
    int64_t max_ttl_ms;
    bool egress, allow_unenforced;
};

extern const struct config_table options_table;

#endif
