/* Entering the cell's cgroups. What to write comes ready from sandboxd (cgroup.c there knows the
 * hierarchies). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cell.h"

static void write_file(int dir, const char *file, const char *value, bool optional)
{
    int fd = openat(dir, file, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        if (optional && errno == ENOENT)
            return;
        cell_broken(file);
    }
    if (write(fd, value, strlen(value)) < 0)
        cell_broken(file);
    close(fd);
}

static void join_group(const struct plan_group *g)
{
    if (mkdir(g->path, 0755) < 0 && errno != EEXIST)
        cell_broken(g->path);
    int dir = open(g->path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    if (dir < 0)
        cell_broken(g->path);
    for (uint32_t i = 0; i < g->setting_count; i++)
        write_file(dir, g->settings[i].file, g->settings[i].value, g->settings[i].optional);
    write_file(dir, "cgroup.procs", "0", false);
    close(dir);
}

void cell_join_groups(const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->group_count; i++)
        join_group(&plan->groups[i]);
}
