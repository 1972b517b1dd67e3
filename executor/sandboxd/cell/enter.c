/* The last step: this process becomes root of a user namespace of its own, then bubblewrap.
 *
 * Inside, uid 0 is the host's run_base and so on: root inside is nobody outside. The map must be written from
 * the outside, by a helper that stays behind for it. The namespace is made under that id, because the kernel
 * counts what happens inside against its maker too. bubblewrap then finds itself root and makes the other
 * namespaces (pid, ipc, uts, mount) within it; the supervisor becomes pid 1. It keeps the few capabilities,
 * over this namespace only, that a supervisor needs: to start processes as another user and to write files
 * for them. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../ids.h"
#include "cell.h"

enum { MAX_ARGS = 160 };

static const char *const supervisor_caps[] = {"CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP",     "CAP_KILL",
                                              "CAP_CHOWN",  "CAP_FOWNER", "CAP_DAC_OVERRIDE"};

static void write_map(pid_t pid, const char *which, uint32_t base)
{
    char path[64], line[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, which);
    int n = snprintf(line, sizeof line, "0 %u %d\n", base, IDS_COUNT);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, line, (size_t)n) != n)
        _exit(errno != 0 ? errno : 1);
    close(fd);
}

_Noreturn static void map_from_outside(int go, pid_t cell, uint32_t base)
{
    char byte;
    if (read(go, &byte, 1) != 1)
        _exit(EPIPE);
    write_map(cell, "uid_map", base);
    write_map(cell, "gid_map", base);
    _exit(0);
}

static void become_inner_root(uint32_t base)
{
    int go[2], status;
    pid_t cell = getpid();
    if (pipe2(go, O_CLOEXEC) < 0)
        cell_broken("pipe");
    pid_t helper = fork();
    if (helper < 0)
        cell_broken("fork");
    if (helper == 0) {
        close(go[1]);
        map_from_outside(go[0], cell, base);
    }
    close(go[0]);
    if (setresgid(-1, base, -1) < 0 || setresuid(-1, base, -1) < 0 || unshare(CLONE_NEWUSER) < 0)
        cell_broken("user namespace");
    if (write(go[1], "g", 1) != 1)
        cell_broken("user namespace");
    close(go[1]);
    if (waitpid(helper, &status, 0) != helper)
        cell_broken("user namespace map");
    errno = WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
    if (status != 0)
        cell_broken("user namespace map");
    if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
        cell_broken("inner root");
}

struct args {
    const char *v[MAX_ARGS];
    int n;
};

static void add(struct args *a, const char *arg)
{
    if (a->n >= MAX_ARGS - 1)
        cell_broken("too many arguments");
    a->v[a->n++] = arg;
}

static void add3(struct args *a, const char *option, const char *x, const char *y)
{
    add(a, option);
    add(a, x);
    if (y != NULL)
        add(a, y);
}

/* /dev is of memory: nobody writes there but to /dev/shm, which has a size. */
static void add_devices(struct args *a, const struct plan *plan)
{
    static char size[24];
    snprintf(size, sizeof size, "%llu", (unsigned long long)plan->shm_bytes);
    add3(a, "--dev", "/dev", NULL);
    add3(a, "--dev-bind", CELL_PTS, "/dev/pts");
    add3(a, "--perms", "1777", NULL);
    add3(a, "--size", size, NULL);
    add3(a, "--tmpfs", "/dev/shm", NULL);
    add3(a, "--remount-ro", "/dev", NULL);
}

static void add_mounts(struct args *a, const struct plan *plan)
{
    static char names[PLAN_MAX_MOUNTS][sizeof CELL_ROOM + 16];
    add3(a, "--bind", CELL_ROOT, "/");
    for (uint32_t i = 0; i < plan->mount_count; i++) {
        snprintf(names[i], sizeof names[i], CELL_ROOM "/m%u", i);
        add3(a, "--ro-bind", names[i], plan->mounts[i].target);
    }
    add3(a, "--proc", "/proc", NULL);
    add_devices(a, plan);
}

_Noreturn void cell_enter(const struct plan *plan, const char *hostname, int seccomp_fd)
{
    char fd_text[16], program_path[32], files[16], pids[16];
    struct args a = {.n = 0};
    /* An open file of our own: bubblewrap reads it from where the descriptor stands. */
    snprintf(program_path, sizeof program_path, "/proc/self/fd/%d", seccomp_fd);
    int program = open(program_path, O_RDONLY);
    if (program < 0)
        cell_broken("seccomp program");
    snprintf(fd_text, sizeof fd_text, "%d", program);
    become_inner_root(plan->run_base);
    snprintf(files, sizeof files, "%u", plan->files);
    snprintf(pids, sizeof pids, "%u", plan->pids);

    add(&a, "bwrap");
    add(&a, "--die-with-parent");
    add(&a, "--as-pid-1");
    add(&a, "--unshare-pid");
    add(&a, "--unshare-ipc");
    add(&a, "--unshare-uts");
    add(&a, "--new-session");
    add(&a, "--clearenv");
    add3(&a, "--hostname", hostname, NULL);
    add3(&a, "--seccomp", fd_text, NULL);
    add3(&a, "--cap-drop", "ALL", NULL);
    for (size_t i = 0; i < sizeof supervisor_caps / sizeof supervisor_caps[0]; i++)
        add3(&a, "--cap-add", supervisor_caps[i], NULL);
    add_mounts(&a, plan);
    add3(&a, "--chdir", "/", NULL);
    add(&a, "/.sandpiper/init");
    add(&a, files);
    add(&a, pids);
    a.v[a.n] = NULL;
    execv(plan->bwrap, (char *const *)a.v);
    cell_broken("bubblewrap");
}
