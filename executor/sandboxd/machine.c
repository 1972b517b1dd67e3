/* Looking the machine over (machine.h), and turning the configuration into a plan. */
#include "machine.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/log.h"
#include "ids.h"

static void lacks(struct buf *missing, const char *what)
{
    buf_printf(missing, "%s%s", missing->len > 0 ? ", " : "", what);
}

/* A word of a line in a file of /proc. */
static bool proc_has(const char *path, const char *word)
{
    char line[256];
    bool found = false;
    FILE *f = fopen(path, "re");
    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL)
        found = strstr(line, word) != NULL;
    if (f != NULL)
        fclose(f);
    return found;
}

static bool has_namespace(const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/ns/%s", name);
    return access(path, F_OK) == 0;
}

/* sysctl user.max_user_namespaces = 0 switches them off. */
static bool userns_allowed(void)
{
    char text[32] = "";
    int fd = open("/proc/sys/user/max_user_namespaces", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    if (fd >= 0)
        close(fd);
    return has_namespace("user") && (n <= 0 || strcmp(text, "0\n") != 0);
}

int machine_check(const struct options *o, struct err *err)
{
    struct buf missing;
    buf_init(&missing, 1024);
    if (geteuid() != 0)
        lacks(&missing, "root (start it with sudo)");
    else if (prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN) != 1)
        lacks(&missing, "CAP_SYS_ADMIN (a privileged container or none)");
    if (!userns_allowed())
        lacks(&missing, "user namespaces");
    if (!has_namespace("pid") || !has_namespace("net") || !has_namespace("ipc") || !has_namespace("uts"))
        lacks(&missing, "kernel namespaces");
    if (access(o->bwrap, X_OK) != 0)
        lacks(&missing, "bubblewrap (package bubblewrap)");
    /* overlay may be a module that the first mount loads: only its absence from both places counts */
    if (!proc_has("/proc/filesystems", "overlay") && access("/lib/modules", F_OK) != 0)
        lacks(&missing, "overlayfs");
    int bad = 0;
    if (missing.len > 0)
        bad = err_set(err, ERR_UNAVAILABLE, "this machine lacks: %s", buf_cstr(&missing));
    buf_deinit(&missing);
    return bad;
}

static bool in_path(const char *program)
{
    static const char *const dirs[] = {"/usr/sbin", "/usr/bin", "/sbin", "/bin"};
    char path[128];
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", dirs[i], program);
        if (access(path, X_OK) == 0)
            return true;
    }
    return false;
}

void machine_check_limits(const struct options *o, struct buf *missing, bool *disk_out)
{
    bool loop = access("/dev/loop-control", R_OK | W_OK) == 0, mkfs = in_path("mkfs.ext4");
    *disk_out = loop && mkfs;
    if (!loop)
        lacks(missing, "disk limit (no /dev/loop-control)");
    if (!mkfs)
        lacks(missing, "disk limit (no mkfs.ext4: package e2fsprogs)");
    if (!o->egress)
        return;
    if (access(o->slirp, X_OK) != 0)
        lacks(missing, "network (no slirp4netns: package slirp4netns)");
    else if (access("/dev/net/tun", R_OK | W_OK) != 0)
        lacks(missing, "network (no /dev/net/tun)");
}

/* overlayfs over idmapped mounts came with 5.19; the data directory's file system must allow them too, which
 * only trying tells. */
bool machine_own_ids(const struct options *o)
{
    struct utsname name;
    int major = 0, minor = 0;
    if (uname(&name) < 0 || sscanf(name.release, "%d.%d", &major, &minor) != 2 || major < 5 ||
        (major == 5 && minor < 19))
        return false;
    int ids = ids_namespace((uint32_t)o->uid_base, (uint32_t)o->uid_base + IDS_COUNT);
    int tree = ids >= 0 ? ids_tree(o->data_dir, ids) : -1;
    if (ids >= 0)
        close(ids);
    if (tree >= 0)
        close(tree);
    return tree >= 0;
}

void machine_check_files(const struct options *o)
{
    char text[32] = "";
    int64_t max;
    int fd = open("/proc/sys/fs/file-max", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    if (fd >= 0)
        close(fd);
    if (n <= 0 || !str_to_i64(str_make(text, strcspn(text, "\n")), &max) || o->pids * o->files <= max / 4)
        return;
    log_warn("one sandbox may open more than a quarter of the machine's files: raise the sysctl fs.file-max, "
             "or lower "
             "SANDPIPER_SANDBOXD_FILES or SANDPIPER_SANDBOXD_PIDS",
             LF_INT("sandbox", o->pids * o->files), LF_INT("machine", max));
}

struct advice {
    const char *word, *text;
};

/* The first whose word the reason holds. */
static const struct advice advices[] = {
    {"slirp4netns", "slirp4netns needs a root directory that was entered by pivot_root (no plain chroot), "
                    "/dev/net/tun and network namespaces; SANDPIPER_SANDBOXD_EGRESS=false does without it"},
    {"bubblewrap: ",
     "SANDPIPER_SANDBOXD_BWRAP must name a bubblewrap that every user may run, not below /tmp"},
    {"bubblewrap ended",
     "bubblewrap needs user, mount and pid namespaces and a root directory that was entered by "
     "pivot_root (no plain chroot, no unprivileged container)"},
    {"overlay", "overlayfs must take the data directory as a layer: put SANDPIPER_SANDBOXD_DATA_DIR on ext4, "
                "xfs or btrfs"},
    {"loop", "loop devices are used up or not allowed here: see /dev/loop-control and losetup -a"},
    {"in time", "the machine is too slow or too busy to make a sandbox within the deadline"},
    {"", "sandboxes need a machine of their own or a privileged container"},
};

const char *machine_advice(const char *why)
{
    size_t i = 0;
    while (strstr(why, advices[i].word) == NULL)
        i++;
    return advices[i].text;
}

/* ---- the plan ---- */

static int add_mount(struct plan *p, const char *source, const char *target, struct err *err)
{
    struct stat st;
    if (p->mount_count == PLAN_MAX_MOUNTS)
        return err_set(err, ERR_CONFIG, "too many mounts");
    if (stat(source, &st) < 0)
        return err_set(err, ERR_CONFIG, "mount %s: %s", source, strerror(errno));
    p->mounts[p->mount_count++] = (struct plan_mount){source, target};
    return 0;
}

/* "/a:/b,/c:/d": cut in place. */
static int add_mounts(struct plan *p, char *text, struct err *err)
{
    char *save = NULL;
    for (char *item = strtok_r(text, ",", &save); item != NULL; item = strtok_r(NULL, ",", &save)) {
        char *colon = strchr(item, ':');
        if (item[0] != '/' || colon == NULL || colon[1] != '/')
            return err_set(err, ERR_CONFIG, "SANDPIPER_SANDBOXD_MOUNTS: /host/dir:/inside/dir is expected");
        *colon = '\0';
        if (add_mount(p, item, colon + 1, err) != 0)
            return -1;
    }
    return 0;
}

static int add_deny(struct plan *p, uint32_t address, uint32_t prefix, struct err *err)
{
    if (p->deny_count == PLAN_MAX_DENY)
        return err_set(err, ERR_CONFIG, "too many denied networks");
    uint32_t mask = prefix == 0 ? 0 : htonl(~0U << (32 - prefix));
    p->deny[p->deny_count++] = (struct plan_deny){address & mask, prefix};
    return 0;
}

static int add_denied(struct plan *p, char *text, struct err *err)
{
    char *save = NULL;
    for (char *item = strtok_r(text, ", ", &save); item != NULL; item = strtok_r(NULL, ", ", &save)) {
        char *slash = strchr(item, '/');
        uint64_t prefix = 32;
        struct in_addr address;
        if (slash != NULL)
            *slash = '\0';
        if (inet_pton(AF_INET, item, &address) != 1 ||
            (slash != NULL && !str_to_u64(str_of(slash + 1), &prefix)) || prefix < 1 || prefix > 32)
            return err_set(err, ERR_CONFIG,
                           "SANDPIPER_SANDBOXD_EGRESS_DENY: a network such as 10.0.0.0/8 is expected");
        if (add_deny(p, address.s_addr, (uint32_t)prefix, err) != 0)
            return -1;
    }
    return 0;
}

/* slirp4netns would reach services of this machine under its own addresses; they are not the sandboxes'
 * business. */
static int deny_own_addresses(struct plan *p, struct err *err)
{
    struct ifaddrs *list, *i;
    int bad = 0;
    if (getifaddrs(&list) < 0)
        return err_set(err, ERR_IO, "getifaddrs: %s", strerror(errno));
    for (i = list; i != NULL && bad == 0; i = i->ifa_next) {
        if (i->ifa_addr == NULL || i->ifa_addr->sa_family != AF_INET)
            continue;
        struct sockaddr_in own;
        memcpy(&own, i->ifa_addr, sizeof own);
        if ((ntohl(own.sin_addr.s_addr) >> 24) != 127)
            bad = add_deny(p, own.sin_addr.s_addr, 32, err);
    }
    freeifaddrs(list);
    return bad;
}

int machine_plan(const struct options *o, bool disk_limited, struct machine_plan *m, struct err *err)
{
    struct plan *p = &m->plan;
    snprintf(m->paths[0], sizeof m->paths[0], "%s/disks", o->data_dir);
    if (disk_limited)
        snprintf(m->paths[1], sizeof m->paths[1], "%s/blank.img", o->data_dir);
    snprintf(m->paths[2], sizeof m->paths[2], "%s", o->data_dir);
    snprintf(m->mounts, sizeof m->mounts, "%s", o->mounts);
    snprintf(m->deny, sizeof m->deny, "%s", o->egress_deny);
    bool egress = o->egress && access(o->slirp, X_OK) == 0 && access("/dev/net/tun", R_OK | W_OK) == 0;
    p->uid_base = (uint32_t)o->uid_base;
    p->files = (uint32_t)o->files;
    p->pids = (uint32_t)o->pids;
    p->shm_bytes = (uint64_t)o->memory_bytes / 2;
    p->bwrap = o->bwrap;
    p->slirp = egress ? o->slirp : "";
    p->disk_dir = m->paths[0];
    p->disk_blank = m->paths[1];
    p->layers_dir = m->paths[2];
    if (add_mount(p, "/usr", "/usr", err) != 0)
        return -1;
    if (o->node_dir != NULL && o->node_dir[0] != '\0' && add_mount(p, o->node_dir, "/usr/local", err) != 0)
        return -1;
    return add_mounts(p, m->mounts, err) != 0 || add_denied(p, m->deny, err) != 0 ||
                   deny_own_addresses(p, err) != 0
               ? -1
               : 0;
}
