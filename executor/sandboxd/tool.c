/* posix_spawn around the tools of the base system that do a job better than code of ours would (tool.h). */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TREE_FDS = 32, TOOL_MS = 120000 };

pid_t tool_spawn(const char *const *argv, struct err *err)
{
    pid_t pid;
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    int error = posix_spawnp(&pid, argv[0], &files, &attr, (char *const *)argv,
                             (char *const[]){"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", NULL});
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    if (error == 0)
        return pid;
    return err_set(err, ERR_IO, "cannot run %s: %s", argv[0], strerror(error));
}

/* Waits for the end of a child, or makes one. False when its time was over. */
static bool await(pid_t pid)
{
    struct pollfd end = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
    int n = -1;
    while (end.fd >= 0 && (n = poll(&end, 1, TOOL_MS)) < 0 && errno == EINTR) {
    }
    if (end.fd >= 0)
        close(end.fd);
    if (n == 0)
        kill(pid, SIGKILL);
    return n != 0;
}

int tool_run(const char *const *argv, struct err *err)
{
    int status;
    pid_t pid = tool_spawn(argv, err);
    if (pid < 0)
        return -1;
    bool in_time = await(pid);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_set(err, ERR_IO, "%s: %s", argv[0], strerror(errno));
    if (!in_time)
        return err_set(err, ERR_TIMEOUT, "%s did not end within %d s", argv[0], TOOL_MS / 1000);
    if (status == 0)
        return 0;
    return err_set(err, ERR_IO, "%s failed (status %d)", argv[0],
                   WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    (void)where;
    return remove(path);
}

int tool_remove_tree(const char *path, struct err *err)
{
    if (nftw(path, remove_one, TREE_FDS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) == 0 || errno == ENOENT)
        return 0;
    return err_set(err, ERR_IO, "cannot remove %s: %s", path, strerror(errno));
}
