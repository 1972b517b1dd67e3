/* What a cell is built from: sent by sandboxd in WIRE_BUILD, carried out by the cell program (cell/).
 *
 * Plain values. Limits are kept general (directories to make, files to write) so that the cell need not know
 * which controller lives in which hierarchy: cgroup.c decides that once, at start-up. Strings borrow from the
 * message when read. */
#ifndef SANDBOXD_PLAN_H
#define SANDBOXD_PLAN_H

#include "wire.h"

enum { PLAN_MAX_GROUPS = 8, PLAN_MAX_SETTINGS = 8, PLAN_MAX_MOUNTS = 24, PLAN_MAX_DENY = 64 };

struct plan_setting {
    const char *file, *value;
    bool optional; /* the file may be missing (swap accounting is off on many machines) */
};

/* A cgroup directory of the cell's own, made, set up and entered. */
struct plan_group {
    const char *path;
    uint32_t setting_count;
    struct plan_setting settings[PLAN_MAX_SETTINGS];
};

/* A read-only tree of the host, seen in the sandbox. */
struct plan_mount {
    const char *source, *target;
};

/* An IPv4 network that the sandbox cannot reach. Address in network byte order. */
struct plan_deny {
    uint32_t address, prefix;
};

struct plan {
    uint32_t group_count;
    struct plan_group groups[PLAN_MAX_GROUPS];
    uint32_t mount_count;
    struct plan_mount mounts[PLAN_MAX_MOUNTS];
    uint32_t deny_count;
    struct plan_deny deny[PLAN_MAX_DENY];
    uint32_t uid_base;  /* the uid that is 0 inside as it stands on disk, in layers; 65536 follow */
    uint32_t run_base;  /* the host uid that is 0 inside; 65536 follow. Either uid_base or this cell's own */
    uint32_t files;     /* RLIMIT_NOFILE of a program */
    uint32_t pids;      /* its RLIMIT_NPROC: see init/process.c */
    uint64_t shm_bytes; /* size of /dev/shm */
    const char *slirp;  /* path of slirp4netns; "" for no network at all */
    const char *bwrap;  /* path of bubblewrap */
    const char *layers_dir; /* layers are named relative to it */
    const char *disk_dir;   /* where the disk image is made; it has no name there */
    const char
        *disk_blank; /* an image with an empty ext4 file system; "" for an unlimited directory in disk_dir */
    const char *disk_name; /* that directory's name */
};

void plan_put(struct wire_writer *w, const struct plan *p);

/* False when the message is malformed. */
bool plan_get(struct wire_reader *r, struct plan *p_out);

#endif
