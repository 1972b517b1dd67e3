/* Idmapped mounts (ids.h). A namespace is held by a descriptor: the child that made it is gone when
 * ids_namespace returns. */
#include "ids.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

static int write_map(pid_t pid, const char *which, uint32_t disk_base, uint32_t run_base)
{
    char path[64], map[96];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, which);
    int n = snprintf(map, sizeof map, "0 0 1\n%u %u %d\n", disk_base, run_base, IDS_COUNT);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t written = write(fd, map, (size_t)n);
    close(fd);
    return written == n ? 0 : -1;
}

/* In the child: a namespace, a word, and waiting for the end of the pipe. */
_Noreturn static void hold_namespace(int say, int wait)
{
    char byte;
    if (unshare(CLONE_NEWUSER) < 0 || write(say, "u", 1) != 1)
        _exit(1);
    while (read(wait, &byte, 1) < 0 && errno == EINTR) {
    }
    _exit(0);
}

static int take_namespace(pid_t child, int said, uint32_t disk_base, uint32_t run_base)
{
    char path[64], byte;
    errno = EPERM;
    if (read(said, &byte, 1) != 1 || write_map(child, "uid_map", disk_base, run_base) < 0 ||
        write_map(child, "gid_map", disk_base, run_base) < 0)
        return -1;
    snprintf(path, sizeof path, "/proc/%d/ns/user", (int)child);
    return open(path, O_RDONLY | O_CLOEXEC);
}

int ids_namespace(uint32_t disk_base, uint32_t run_base)
{
    int up[2], down[2], status;
    if (pipe2(up, O_CLOEXEC) < 0)
        return -1;
    if (pipe2(down, O_CLOEXEC) < 0) {
        close(up[0]);
        close(up[1]);
        return -1;
    }
    pid_t child = fork();
    if (child == 0) {
        close(up[0]);
        close(down[1]);
        hold_namespace(up[1], down[0]);
    }
    close(up[1]);
    close(down[0]);
    int ns = child > 0 ? take_namespace(child, up[0], disk_base, run_base) : -1;
    int error = errno;
    close(up[0]);
    close(down[1]);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    errno = error;
    return ns;
}

int ids_tree(const char *path, int ids)
{
    int tree = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)ids};
    if (tree < 0 || ids < 0 || mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof attr) == 0)
        return tree;
    int error = errno;
    close(tree);
    errno = error;
    return -1;
}
