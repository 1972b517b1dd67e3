/* Finding and using cgroup hierarchies (cgroup.h).
 *
 * v1: the parent is made below the daemon's own group, so that limits set on the daemon's service hold for
 * its sandboxes. v2: a group that has processes cannot hand controllers down, so the parent is made at the
 * top of the mounted tree. The names of the parents are noted in <data_dir>/cgroups before they are made:
 * after a crash the next run kills what is left in them and removes them. To add a controller: a row in
 * `controllers`, its settings in cgroups_plan's callers below. */
#include "cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/id.h"
#include "base/str.h"

enum controller { CTL_MEMORY, CTL_PIDS, CTL_CPU, CTL_CPUACCT, CTL_FREEZER, CTL_COUNT };

struct controller_row {
    const char *v1, *v2; /* the name in each version; v2 "": needs no controller, every v2 group has it */
    const char *what;    /* what cannot be enforced without it; NULL: only reported */
};

static const struct controller_row controllers[CTL_COUNT] = {
    [CTL_MEMORY] = {"memory", "memory", "memory limit (no cgroup memory controller)"},
    [CTL_PIDS] = {"pids", "pids", "process limit (no cgroup pids controller)"},
    [CTL_CPU] = {"cpu", "cpu", "CPU limit (no cgroup cpu controller)"},
    [CTL_CPUACCT] = {"cpuacct", "", NULL},
    [CTL_FREEZER] = {"freezer", "", NULL},
};

enum {
    PARENT_SHARES_V1 = 512,
    PARENT_WEIGHT_V2 = 50,
    OWN_PROCESSES = 3, /* bubblewrap, the supervisor, slirp4netns */
    SOCKETS_SHARE = 8  /* of the memory, for buffers of sockets */
};

struct hierarchy {
    int version; /* 0: absent */
    char parent[CGROUP_PATH_BYTES];
};

struct cgroups {
    struct hierarchy at[CTL_COUNT];
    char state_path[CGROUP_PATH_BYTES];
    char memory[24], sockets[24], pids[24], quota[24], max_v2[48];
};

/* ---- small files ---- */

static bool write_text(const char *dir, const char *file, const char *text)
{
    char path[CGROUP_PATH_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return ok;
}

static bool read_text(const char *dir, const char *file, char *out, size_t out_bytes)
{
    char path[CGROUP_PATH_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, out, out_bytes - 1);
    close(fd);
    out[n > 0 ? n : 0] = '\0';
    return n >= 0;
}

static int64_t read_number(const char *dir, const char *file)
{
    char text[64];
    int64_t v;
    if (!read_text(dir, file, text, sizeof text))
        return -1;
    return str_to_i64(str_make(text, strcspn(text, "\n")), &v) ? v : -1;
}

/* The number after "key " in a file of such lines. */
static int64_t read_keyed(const char *dir, const char *file, const char *key)
{
    char text[4096];
    int64_t v;
    if (!read_text(dir, file, text, sizeof text))
        return -1;
    struct str rest = str_of(text), line;
    while (str_split(&rest, '\n', &line)) {
        struct str name;
        if (str_split(&line, ' ', &name) && str_eq_c(name, key))
            return str_to_i64(line, &v) ? v : -1;
    }
    return -1;
}

/* ---- finding ---- */

static bool has_word(const char *list, const char *word, const char *separators)
{
    size_t n = strlen(word);
    for (const char *p = list; *p != '\0'; p += strspn(p, separators)) {
        size_t m = strcspn(p, separators);
        if (m == n && memcmp(p, word, n) == 0)
            return true;
        p += m;
    }
    return false;
}

/* This process's group in the v1 hierarchy of a controller, as /proc/self/cgroup says: "7:cpu,cpuacct:/path".
 */
static bool own_group(const char *controller, char *out, size_t out_bytes)
{
    char line[1024];
    bool found = false;
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL) {
        struct str rest = str_make(line, strcspn(line, "\n")), number, names;
        char list[128];
        if (!str_split(&rest, ':', &number) || !str_split(&rest, ':', &names))
            continue;
        found = str_copy(names, list, sizeof list) && has_word(list, controller, ",") &&
                str_copy(rest, out, out_bytes);
    }
    if (f != NULL)
        fclose(f);
    return found;
}

struct mount_line {
    char root[256], point[128], type[16], options[256];
};

/* One line of /proc/self/mountinfo, proc(5): id parent dev root point opts [tags] - type source
 * super-options. */
static bool parse_mount(const char *line, struct mount_line *m)
{
    const char *dash = strstr(line, " - ");
    return dash != NULL && sscanf(line, "%*s %*s %*s %255s %127s", m->root, m->point) == 2 &&
           sscanf(dash, " - %15s %*s %255s", m->type, m->options) == 2;
}

static void place_v1(struct cgroups *c, enum controller ctl, const struct mount_line *m, const char *name)
{
    char own[256];
    if (!own_group(controllers[ctl].v1, own, sizeof own))
        return;
    size_t root = strcmp(m->root, "/") == 0 ? 0 : strlen(m->root);
    const char *below =
        strncmp(own, m->root, root) == 0 ? own + root : ""; /* a container sees its own part only */
    if (strcmp(below, "/") == 0)
        below = "";
    int n = snprintf(c->at[ctl].parent, CGROUP_PATH_BYTES, "%s%s/%s", m->point, below, name);
    if (n > 0 && n < CGROUP_PATH_BYTES - 80)
        c->at[ctl].version = 1;
}

static void place_v2(struct cgroups *c, const struct mount_line *m, const char *name)
{
    char available[256];
    if (!read_text(m->point, "cgroup.controllers", available, sizeof available))
        return;
    for (int i = 0; i < CTL_COUNT; i++) {
        bool has = controllers[i].v2[0] == '\0' || has_word(available, controllers[i].v2, " \n");
        if (!has || c->at[i].version != 0)
            continue;
        int n = snprintf(c->at[i].parent, CGROUP_PATH_BYTES, "%s/%s", m->point, name);
        if (n > 0 && n < CGROUP_PATH_BYTES - 80)
            c->at[i].version = 2;
    }
}

/* A controller is in one hierarchy at a time; v1 first, because v2 also offers what needs no controller. */
static void find(struct cgroups *c, const char *name)
{
    char line[2048];
    struct mount_line m, v2 = {.type = ""};
    FILE *f = fopen("/proc/self/mountinfo", "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (!parse_mount(line, &m))
            continue;
        if (strcmp(m.type, "cgroup2") == 0)
            v2 = m;
        if (strcmp(m.type, "cgroup") != 0)
            continue;
        for (int i = 0; i < CTL_COUNT; i++)
            if (c->at[i].version == 0 && has_word(m.options, controllers[i].v1, ","))
                place_v1(c, (enum controller)i, &m, name);
    }
    if (f != NULL)
        fclose(f);
    if (v2.type[0] != '\0')
        place_v2(c, &v2, name);
}

/* ---- leftovers ---- */

static void kill_group(const char *dir)
{
    char text[4096];
    write_text(dir, "freezer.state", "THAWED");
    write_text(dir, "cgroup.freeze", "0");
    if (!read_text(dir, "cgroup.procs", text, sizeof text))
        return;
    struct str rest = str_of(text), line;
    int64_t pid;
    while (str_split(&rest, '\n', &line))
        if (str_to_i64(line, &pid) && pid > 1 && pid != getpid())
            kill((pid_t)pid, SIGKILL);
}

static bool remove_tree(const char *parent)
{
    DIR *d = opendir(parent);
    const struct dirent *e;
    if (d == NULL)
        return true;
    while ((e = readdir(d)) != NULL) {
        char path[2 * CGROUP_PATH_BYTES];
        if (e->d_type != DT_DIR || e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", parent, e->d_name);
        if (rmdir(path) < 0)
            kill_group(path);
        rmdir(path);
    }
    closedir(d);
    return rmdir(parent) == 0 || errno == ENOENT;
}

/* Up to five seconds: killed processes take a moment to leave. */
static void remove_leftovers(const char *state_path)
{
    char parent[CGROUP_PATH_BYTES];
    FILE *f = fopen(state_path, "re");
    while (f != NULL && fgets(parent, sizeof parent, f) != NULL) {
        parent[strcspn(parent, "\n")] = '\0';
        const struct timespec pause = {.tv_nsec = 20000000};
        for (int i = 0; i < 250 && strstr(parent, "/sandpiper-") != NULL && !remove_tree(parent); i++)
            nanosleep(&pause, NULL);
    }
    if (f != NULL)
        fclose(f);
}

static int note_parents(const struct cgroups *c, struct err *err)
{
    FILE *f = fopen(c->state_path, "we");
    if (f == NULL)
        return err_set(err, ERR_IO, "%s: %s", c->state_path, strerror(errno));
    for (int i = 0; i < CTL_COUNT; i++)
        if (c->at[i].version != 0)
            fprintf(f, "%s\n", c->at[i].parent);
    fclose(f);
    return 0;
}

/* ---- making ---- */

/* Hands the controllers down from the top of v2 to the parent's children. */
static bool delegate_v2(const char *parent, const char *controller)
{
    char top[CGROUP_PATH_BYTES], text[32];
    snprintf(top, sizeof top, "%s", parent);
    *strrchr(top, '/') = '\0';
    snprintf(text, sizeof text, "+%s", controller);
    return write_text(top, "cgroup.subtree_control", text) &&
           write_text(parent, "cgroup.subtree_control", text);
}

static bool make_parent(struct hierarchy *h, enum controller ctl)
{
    char text[16];
    if (h->version == 0 || (mkdir(h->parent, 0755) < 0 && errno != EEXIST))
        return false;
    if (h->version == 2 && controllers[ctl].v2[0] != '\0' && !delegate_v2(h->parent, controllers[ctl].v2))
        return false;
    if (h->version == 1 && ctl == CTL_MEMORY)
        write_text(h->parent, "memory.use_hierarchy", "1"); /* already so on new kernels */
    if (ctl == CTL_CPU) {
        snprintf(text, sizeof text, "%d", h->version == 1 ? PARENT_SHARES_V1 : PARENT_WEIGHT_V2);
        write_text(h->parent, h->version == 1 ? "cpu.shares" : "cpu.weight", text);
    }
    return true;
}

static void make_parents(struct cgroups *c, struct buf *missing)
{
    for (int i = 0; i < CTL_COUNT; i++) {
        if (make_parent(&c->at[i], (enum controller)i))
            continue;
        c->at[i].version = 0;
        if (controllers[i].what == NULL)
            continue;
        buf_printf(missing, "%s%s", missing->len > 0 ? ", " : "", controllers[i].what);
    }
}

struct cgroups *cgroups_open(const char *data_dir, const struct cgroup_limits *limits, struct buf *missing,
                             struct err *err)
{
    struct cgroups *c = calloc(1, sizeof *c);
    char name[40];
    uint32_t random;
    if (c == NULL) {
        err_set(err, ERR_NO_MEMORY, "cgroups");
        return NULL;
    }
    random_bytes(&random, sizeof random);
    snprintf(name, sizeof name, "sandpiper-%08x", random);
    snprintf(c->state_path, sizeof c->state_path, "%s/cgroups", data_dir);
    snprintf(c->memory, sizeof c->memory, "%lld", (long long)limits->memory_bytes);
    snprintf(c->sockets, sizeof c->sockets, "%lld", (long long)limits->memory_bytes / SOCKETS_SHARE);
    snprintf(c->pids, sizeof c->pids, "%lld", (long long)limits->pids + OWN_PROCESSES);
    snprintf(c->quota, sizeof c->quota, "%lld", (long long)limits->cpus * 100000);
    snprintf(c->max_v2, sizeof c->max_v2, "%lld 100000", (long long)limits->cpus * 100000);
    remove_leftovers(c->state_path);
    find(c, name);
    if (note_parents(c, err) != 0)
        cgroups_close(&c);
    else
        make_parents(c, missing);
    return c;
}

void cgroups_close(struct cgroups **c)
{
    if (*c == NULL)
        return;
    for (int i = 0; i < CTL_COUNT; i++)
        if ((*c)->at[i].version != 0)
            remove_tree((*c)->at[i].parent);
    unlink((*c)->state_path);
    free(*c);
    *c = NULL;
}

/* ---- a cell's groups ---- */

static void add_setting(struct plan_group *g, const char *file, const char *value, bool optional)
{
    INVARIANT(g->setting_count < PLAN_MAX_SETTINGS);
    g->settings[g->setting_count++] =
        (struct plan_setting){.file = file, .value = value, .optional = optional};
}

static void add_settings(const struct cgroups *c, enum controller ctl, struct plan_group *g)
{
    bool v1 = c->at[ctl].version == 1;
    if (ctl == CTL_MEMORY) {
        add_setting(g, v1 ? "memory.limit_in_bytes" : "memory.max", c->memory, false);
        add_setting(g, v1 ? "memory.memsw.limit_in_bytes" : "memory.swap.max", v1 ? c->memory : "0", true);
        if (v1) /* v2 counts buffers of sockets with the rest */
            add_setting(g, "memory.kmem.tcp.limit_in_bytes", c->sockets, true);
    } else if (ctl == CTL_PIDS) {
        add_setting(g, "pids.max", c->pids, false);
    } else if (ctl == CTL_CPU) {
        if (v1)
            add_setting(g, "cpu.cfs_period_us", "100000", false);
        add_setting(g, v1 ? "cpu.cfs_quota_us" : "cpu.max", v1 ? c->quota : c->max_v2, false);
    }
}

static struct plan_group *group_at(struct plan *plan, struct cgroup_room *room, const char *parent,
                                   const char *name)
{
    char path[CGROUP_PATH_BYTES];
    snprintf(path, sizeof path, "%.*s/%s", CGROUP_PATH_BYTES - 64, parent, name);
    for (uint32_t i = 0; i < plan->group_count; i++)
        if (strcmp(plan->groups[i].path, path) == 0)
            return &plan->groups[i];
    struct plan_group *g = &plan->groups[plan->group_count];
    memcpy(room->paths[plan->group_count], path, sizeof path);
    *g = (struct plan_group){.path = room->paths[plan->group_count++]};
    return g;
}

void cgroups_plan(const struct cgroups *c, const char *name, struct cgroup_room *room, struct plan *plan)
{
    plan->group_count = 0;
    for (int i = 0; i < CTL_COUNT; i++)
        if (c->at[i].version != 0)
            add_settings(c, (enum controller)i, group_at(plan, room, c->at[i].parent, name));
}

static bool cell_dir(const struct cgroups *c, enum controller ctl, const char *name,
                     char out[CGROUP_PATH_BYTES])
{
    if (c->at[ctl].version == 0)
        return false;
    snprintf(out, CGROUP_PATH_BYTES, "%.*s/%s", CGROUP_PATH_BYTES - 64, c->at[ctl].parent, name);
    return true;
}

void cgroups_usage(const struct cgroups *c, const char *name, struct cgroup_usage *out)
{
    char dir[CGROUP_PATH_BYTES];
    *out = (struct cgroup_usage){-1, -1, -1, -1};
    if (cell_dir(c, CTL_MEMORY, name, dir)) {
        bool v1 = c->at[CTL_MEMORY].version == 1;
        out->memory_bytes = read_number(dir, v1 ? "memory.usage_in_bytes" : "memory.current");
        out->memory_peak_bytes = read_number(dir, v1 ? "memory.max_usage_in_bytes" : "memory.peak");
        out->oom_kills = read_keyed(dir, v1 ? "memory.oom_control" : "memory.events", "oom_kill");
    }
    if (!cell_dir(c, CTL_CPUACCT, name, dir))
        return;
    if (c->at[CTL_CPUACCT].version == 1) {
        int64_t ns = read_number(dir, "cpuacct.usage");
        out->cpu_us = ns < 0 ? -1 : ns / 1000;
    } else {
        out->cpu_us = read_keyed(dir, "cpu.stat", "usage_usec");
    }
}

bool cgroups_freeze(const struct cgroups *c, const char *name, bool freeze)
{
    char dir[CGROUP_PATH_BYTES];
    if (!cell_dir(c, CTL_FREEZER, name, dir))
        return false;
    if (c->at[CTL_FREEZER].version == 1)
        return write_text(dir, "freezer.state", freeze ? "FROZEN" : "THAWED");
    return write_text(dir, "cgroup.freeze", freeze ? "1" : "0");
}

bool cgroups_remove(const struct cgroups *c, const char *name)
{
    char dir[CGROUP_PATH_BYTES];
    bool gone = true;
    for (int i = 0; i < CTL_COUNT; i++) {
        if (!cell_dir(c, (enum controller)i, name, dir))
            continue;
        if (rmdir(dir) < 0 && errno != ENOENT) {
            kill_group(dir); /* slirp4netns, should it not end by itself: it is in no pid namespace */
            gone = false;
        }
    }
    return gone;
}
