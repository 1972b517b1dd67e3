/* Programs: their start, their signals, their end.
 *
 * Each is the leader of a session of its own, runs as the user asked for with no capability left, and has the
 * pipes that came with the request as its standard streams, or a terminal. A file that cannot be executed
 * ends with status 127 and a line on stderr, as a shell would have it: E2B's envd starts programs through
 * one. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "init.h"

enum { MAX_PROCESSES = 1024, MAX_STRINGS = 4096, DEFAULT_ENV = 4 };

struct leader {
    pid_t pid; /* 0: free */
    uint32_t ticket;
    int terminal; /* the master side, for its size; -1 without */
};

static struct leader leaders[MAX_PROCESSES];

struct request {
    struct user user;
    char cwd[PATH_MAX];
    uint32_t flags, cols, rows;
    const char *argv[MAX_STRINGS + 1];
    const char *env[MAX_STRINGS + DEFAULT_ENV + 1];
    size_t env_count;
    char defaults[DEFAULT_ENV][PATH_MAX + 16];
};

static struct rlimit files_limit = {1024, 1024}, pids_limit = {1024, 1024};

static struct request request; /* one at a time: parsed, forked, done */

static struct leader *leader_of(pid_t pid)
{
    for (int i = 0; i < MAX_PROCESSES; i++)
        if (leaders[i].pid == pid)
            return &leaders[i];
    return NULL;
}

void child_reset(void)
{
    sigset_t none;
    for (int s = 1; s < NSIG; s++)
        signal(s, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, "100", 3) != 3) { /* the supervisor's score stays: worse, not wrong */
    }
    close(fd);
}

/* A later value of the same name replaces an earlier one. */
static void env_put(struct request *q, const char *pair)
{
    const char *equals = strchr(pair, '=');
    if (equals == NULL || equals == pair)
        return;
    size_t n = (size_t)(equals - pair) + 1;
    for (size_t i = 0; i < q->env_count; i++) {
        if (strncmp(q->env[i], pair, n) != 0)
            continue;
        q->env[i] = pair;
        return;
    }
    q->env[q->env_count++] = pair;
}

static void env_defaults(struct request *q)
{
    q->env_count = 0;
    snprintf(q->defaults[0], sizeof q->defaults[0], "PATH=/usr/local/bin:/usr/bin:/bin%s",
             q->user.uid == 0 ? ":/usr/local/sbin:/usr/sbin:/sbin" : "");
    snprintf(q->defaults[1], sizeof q->defaults[1], "HOME=%s", q->user.home);
    snprintf(q->defaults[2], sizeof q->defaults[2], "USER=%s", q->user.name);
    snprintf(q->defaults[3], sizeof q->defaults[3], "LOGNAME=%s", q->user.name);
    for (int i = 0; i < DEFAULT_ENV; i++)
        env_put(q, q->defaults[i]);
}

static uint32_t get_count(struct wire_reader *r)
{
    uint32_t n = wire_get_u32(r);
    if (n > MAX_STRINGS)
        r->bad = true;
    return r->bad ? 0 : n;
}

/* Answers and returns false when the request cannot be carried out. */
static bool request_read(uint32_t ticket, struct wire_reader *r, struct request *q)
{
    const char *name = wire_get_cstr(r), *cwd = wire_get_cstr(r);
    struct stat st;
    q->flags = wire_get_u32(r);
    q->cols = wire_get_u32(r);
    q->rows = wire_get_u32(r);
    uint32_t argc = get_count(r);
    for (uint32_t i = 0; i < argc; i++)
        q->argv[i] = wire_get_cstr(r);
    q->argv[argc] = NULL;
    if (!user_find(name, &q->user)) {
        answer_failed(ticket, WIRE_FAULT_NO_USER, "user '%s' does not exist", name);
        return false;
    }
    env_defaults(q);
    uint32_t envc = get_count(r);
    for (uint32_t i = 0; i < envc; i++)
        env_put(q, wire_get_cstr(r));
    q->env[q->env_count] = NULL;
    if (r->bad || argc == 0) {
        answer_failed(ticket, WIRE_FAULT_INVALID, "malformed request");
        return false;
    }
    if (!user_path(&q->user, cwd, q->cwd) || stat(q->cwd, &st) < 0 || !S_ISDIR(st.st_mode)) {
        answer_failed(ticket, WIRE_FAULT_INVALID, "cwd '%s' does not exist", cwd);
        return false;
    }
    return true;
}

void process_limit(unsigned long files, unsigned long pids)
{
    files_limit = (struct rlimit){files, files};
    pids_limit = (struct rlimit){pids, pids};
}

/* What no cgroup counts: descriptors of the machine's table; and a crash leaves no dump with the host.
 *
 * Processes are counted by a cgroup, but that refuses a fork late, with the address space copied and a lock
 * held that is the whole machine's: a fork bomb then holds up every other fork. The user's own limit refuses
 * at once. */
static void set_limits(void)
{
    const struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_NOFILE, &files_limit) < 0 || setrlimit(RLIMIT_NPROC, &pids_limit) < 0 ||
        setrlimit(RLIMIT_CORE, &none) < 0)
        _exit(126);
}

/* Everything goes: user, groups, and each capability set. no_new_privs is on since bubblewrap. */
static void become_user(const struct user *u)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}, {0}};
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
        if (u->uid != 0)
            prctl(PR_CAPBSET_DROP, cap);
    if (setgroups(0, NULL) < 0 || setresgid(u->gid, u->gid, u->gid) < 0 ||
        setresuid(u->uid, u->uid, u->uid) < 0)
        _exit(126);
    if (u->uid != 0 && syscall(SYS_capset, &head, none) < 0)
        _exit(126);
}

_Noreturn static void child_run(const struct request *q, const int stdio[3], bool terminal)
{
    char text[PATH_MAX + 64];
    child_reset();
    set_limits();
    setsid();
    for (int i = 0; i < 3; i++)
        if (dup2(stdio[i], i) < 0)
            _exit(126);
    if (terminal && ioctl(0, TIOCSCTTY, 0) < 0)
        _exit(126);
    become_user(&q->user);
    umask(022);
    if (chdir(q->cwd) < 0) {
        dprintf(2, "cannot enter %s: %s\n", q->cwd, strerror(errno));
        _exit(126);
    }
    environ = (char **)q->env; /* execvp looks PATH up here */
    execvp(q->argv[0], (char *const *)q->argv);
    int n = snprintf(text, sizeof text, "/bin/sh: 1: exec: %s: %s\n", q->argv[0],
                     errno == ENOENT ? "not found" : strerror(errno));
    if (n > 0 && write(2, text, (size_t)n) < 0)
        _exit(126);
    _exit(errno == ENOENT ? 127 : 126);
}

/* A terminal; the slave side in *slave_out belongs to the user. -1 when there is none. */
static int terminal_open(const struct request *q, int *slave_out)
{
    struct winsize size = {.ws_col = (unsigned short)q->cols, .ws_row = (unsigned short)q->rows};
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    int unlock = 0;
    if (master < 0)
        return -1;
    int slave = ioctl(master, TIOCSPTLCK, &unlock) == 0
                    ? ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)
                    : -1;
    if (slave < 0 || fchown(slave, q->user.uid, q->user.gid) < 0 || ioctl(master, TIOCSWINSZ, &size) < 0) {
        if (slave >= 0)
            close(slave);
        close(master);
        return -1;
    }
    *slave_out = slave;
    return master;
}

static void answer_started(uint32_t ticket, pid_t pid, int terminal)
{
    uint8_t msg[32];
    struct wire_writer w;
    wire_begin(&w, msg, sizeof msg, WIRE_STARTED, ticket);
    wire_put_u32(&w, (uint32_t)pid);
    wire_send(WIRE_SOCKET, msg, w.len, &terminal, terminal >= 0 ? 1 : 0);
}

static void launch(uint32_t ticket, struct leader *slot, const int stdio[3], int terminal)
{
    pid_t pid = fork();
    if (pid == 0)
        child_run(&request, stdio, terminal >= 0);
    if (pid < 0) {
        answer_failed(ticket, WIRE_FAULT_LIMIT, "cannot start a process: %s", strerror(errno));
        if (terminal >= 0)
            close(terminal);
        return;
    }
    *slot = (struct leader){.pid = pid, .ticket = ticket, .terminal = terminal};
    answer_started(ticket, pid, terminal);
}

static void start_on_terminal(uint32_t ticket, struct leader *slot)
{
    int slave = -1;
    int master = terminal_open(&request, &slave);
    if (master < 0) {
        answer_failed(ticket, WIRE_FAULT_INTERNAL, "no terminal: %s", strerror(errno));
        return;
    }
    launch(ticket, slot, (int[]){slave, slave, slave}, master);
    close(slave);
}

void process_start(uint32_t ticket, struct wire_reader *r, const int *fds, int fd_count)
{
    struct leader *slot = leader_of(0);
    if (!request_read(ticket, r, &request))
        return;
    bool terminal = (request.flags & WIRE_START_PTY) != 0;
    if (slot == NULL)
        answer_failed(ticket, WIRE_FAULT_LIMIT, "too many processes");
    else if (terminal)
        start_on_terminal(ticket, slot);
    else if (fd_count != 3)
        answer_failed(ticket, WIRE_FAULT_INVALID, "three descriptors are needed");
    else
        launch(ticket, slot, fds, -1);
}

void process_signal(uint32_t ticket, struct wire_reader *r)
{
    pid_t pid = (pid_t)wire_get_u32(r);
    int number = (int)wire_get_u32(r);
    const struct leader *l = pid > 0 && !r->bad ? leader_of(pid) : NULL;
    if (l == NULL)
        answer_failed(ticket, WIRE_FAULT_NOT_FOUND, "process with pid %d not found", (int)pid);
    else if (kill(pid, number) < 0)
        answer_errno(ticket, "kill", errno);
    else
        answer_done(ticket);
}

void process_resize(uint32_t ticket, struct wire_reader *r)
{
    pid_t pid = (pid_t)wire_get_u32(r);
    struct winsize size = {.ws_col = (unsigned short)wire_get_u32(r)};
    size.ws_row = (unsigned short)wire_get_u32(r);
    const struct leader *l = pid > 0 && !r->bad ? leader_of(pid) : NULL;
    if (l == NULL)
        answer_failed(ticket, WIRE_FAULT_NOT_FOUND, "process with pid %d not found", (int)pid);
    else if (l->terminal < 0)
        answer_failed(ticket, WIRE_FAULT_INVALID, "process has no terminal");
    else if (ioctl(l->terminal, TIOCSWINSZ, &size) < 0)
        answer_errno(ticket, "resize", errno);
    else
        answer_done(ticket);
}

bool process_reaped(pid_t pid, int status)
{
    uint8_t msg[32];
    struct wire_writer w;
    struct leader *l = leader_of(pid);
    if (l == NULL)
        return false;
    wire_begin(&w, msg, sizeof msg, WIRE_EXITED, l->ticket);
    wire_put_u32(&w, (uint32_t)pid);
    wire_put_u32(&w, (uint32_t)status);
    wire_send(WIRE_SOCKET, msg, w.len, NULL, 0);
    if (l->terminal >= 0)
        close(l->terminal);
    *l = (struct leader){.pid = 0, .terminal = -1};
    return true;
}
