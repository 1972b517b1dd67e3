/* Files: each request is carried out by a forked helper, so that a slow disk, a huge file or a reader that
 * pauses holds up nothing else, and the work is accounted to the sandbox.
 *
 * Paths are resolved here, inside: a symbolic link leads nowhere that the sandbox cannot see. Content travels
 * through a pipe that came with the request. Like E2B's envd, the helper works as the sandbox's root and
 * gives what it makes to the user asked for. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "init.h"

enum { MAX_HELPERS = 256, PIECE_BYTES = 1 << 20, MAX_DEPTH = 64, MAX_ENTRIES = 100000, REMOVE_FDS = 32 };

struct helper {
    pid_t pid; /* 0: free */
    uint32_t ticket;
};

static struct helper helpers[MAX_HELPERS];

/* What a helper works on. */
struct job {
    uint32_t ticket;
    struct user user;
    const char *asked; /* the path as the client wrote it, for messages */
    char path[PATH_MAX];
    int pipe;
    unsigned sent; /* entries, for LIST */
};

_Noreturn static void failed(const struct job *j, int error)
{
    answer_errno(j->ticket, j->asked, error);
    _exit(0);
}

_Noreturn static void done(const struct job *j)
{
    answer_done(j->ticket);
    _exit(0);
}

static void send_entry(const struct job *j, const char *path)
{
    static uint8_t msg[4 * PATH_MAX];
    char owner[64], group[64], target[PATH_MAX] = "";
    struct wire_writer w;
    struct stat st;
    if (lstat(path, &st) < 0)
        failed(j, errno);
    user_name(st.st_uid, owner, sizeof owner);
    user_group_name(st.st_gid, group, sizeof group);
    if (S_ISLNK(st.st_mode) && realpath(path, target) == NULL) {
        ssize_t n = readlink(path, target, sizeof target - 1);
        target[n > 0 ? n : 0] = '\0';
    }
    const char *slash = strrchr(path, '/');
    const struct wire_entry e = {
        .name = slash != NULL && slash[1] != '\0' ? slash + 1 : path,
        .path = path,
        .owner = owner,
        .group = group,
        .target = target,
        .mode = st.st_mode,
        .size = (uint64_t)st.st_size,
        .mtime_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000U + (uint64_t)st.st_mtim.tv_nsec,
    };
    wire_begin(&w, msg, sizeof msg, WIRE_ENTRY, j->ticket);
    wire_put_entry(&w, &e);
    if (w.bad || wire_send(WIRE_SOCKET, msg, w.len, NULL, 0) < 0)
        failed(j, ENAMETOOLONG);
}

/* ---- content ---- */

_Noreturn static void run_read(struct job *j, uint64_t offset, uint64_t length)
{
    struct stat st;
    int fd = open(j->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        failed(j, errno);
    if (S_ISDIR(st.st_mode))
        failed(j, EISDIR);
    if (!S_ISREG(st.st_mode))
        failed(j, EINVAL);
    send_entry(j, j->path);
    off_t at = (off_t)offset;
    uint64_t left = length > 0 ? length : UINT64_MAX;
    while (left > 0) {
        ssize_t n = sendfile(j->pipe, fd, &at, left < PIECE_BYTES ? (size_t)left : PIECE_BYTES);
        if (n < 0)
            failed(j, errno);
        if (n == 0)
            break;
        left -= (uint64_t)n;
    }
    done(j);
}

/* Makes the directories above path that are missing; they belong to the user. */
static void make_parents(const struct job *j)
{
    char part[PATH_MAX];
    snprintf(part, sizeof part, "%s", j->path);
    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, 0755) == 0) {
            if (chown(part, j->user.uid, j->user.gid) < 0)
                failed(j, errno);
        } else if (errno != EEXIST) {
            failed(j, errno);
        }
        *slash = '/';
    }
}

/* A failure is told when the file is closed: whoever then removes it has its room back at once. */
static void copy_in(const struct job *j, int fd)
{
    for (;;) {
        ssize_t n = splice(j->pipe, NULL, fd, NULL, PIECE_BYTES, SPLICE_F_MOVE);
        int error = errno;
        if (n == 0)
            return;
        if (n > 0)
            continue;
        close(fd);
        failed(j, error);
    }
}

_Noreturn static void run_write(struct job *j)
{
    struct stat st;
    make_parents(j);
    int fd = open(j->path, O_WRONLY | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0666);
    if (fd < 0 || fstat(fd, &st) < 0)
        failed(j, errno);
    if (!S_ISREG(st.st_mode))
        failed(j, EINVAL);
    if (ftruncate(fd, 0) < 0 || fchown(fd, j->user.uid, j->user.gid) < 0)
        failed(j, errno);
    copy_in(j, fd);
    if (close(fd) < 0)
        failed(j, errno);
    send_entry(j, j->path);
    done(j);
}

/* ---- the tree ---- */

_Noreturn static void run_stat(struct job *j)
{
    send_entry(j, j->path);
    done(j);
}

static void list_level(struct job *j, const char *path, uint32_t depth)
{
    char child[PATH_MAX];
    const struct dirent *d;
    struct stat st;
    DIR *dir = opendir(path);
    if (dir == NULL)
        failed(j, errno);
    while ((d = readdir(dir)) != NULL) {
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;
        int n = snprintf(child, sizeof child, "%s/%s", strcmp(path, "/") == 0 ? "" : path, d->d_name);
        if (n >= (int)sizeof child || lstat(child, &st) < 0)
            continue; /* gone meanwhile */
        if (++j->sent > MAX_ENTRIES)
            failed(j, EOVERFLOW);
        send_entry(j, child);
        if (depth > 1 && S_ISDIR(st.st_mode))
            list_level(j, child, depth - 1);
    }
    closedir(dir);
}

_Noreturn static void run_list(struct job *j, uint32_t depth)
{
    struct stat st;
    size_t n = strlen(j->path);
    while (n > 1 && j->path[n - 1] == '/')
        j->path[--n] = '\0';
    if (stat(j->path, &st) < 0)
        failed(j, errno);
    if (!S_ISDIR(st.st_mode)) {
        answer_failed(j->ticket, WIRE_FAULT_INVALID, "path is not a directory: %s", j->asked);
        _exit(0);
    }
    list_level(j, j->path, depth < 1 ? 1 : depth > MAX_DEPTH ? MAX_DEPTH : depth);
    done(j);
}

_Noreturn static void run_mkdir(struct job *j)
{
    struct stat st;
    if (stat(j->path, &st) == 0) {
        bool directory = S_ISDIR(st.st_mode);
        answer_failed(j->ticket, directory ? WIRE_FAULT_EXISTS : WIRE_FAULT_INVALID,
                      directory ? "directory already exists: %s"
                                : "path already exists but it is not a directory: %s",
                      j->asked);
        _exit(0);
    }
    make_parents(j);
    if (mkdir(j->path, 0755) < 0 && errno != EEXIST)
        failed(j, errno);
    if (chown(j->path, j->user.uid, j->user.gid) < 0)
        failed(j, errno);
    send_entry(j, j->path);
    done(j);
}

_Noreturn static void run_move(struct job *j, const char *destination)
{
    struct job to = *j;
    struct stat st;
    if (lstat(j->path, &st) < 0)
        failed(j, errno);
    if (!user_path(&j->user, destination, to.path))
        failed(j, EINVAL);
    make_parents(&to);
    if (rename(j->path, to.path) < 0)
        failed(j, errno);
    send_entry(j, to.path);
    done(j);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    (void)where;
    return remove(path) < 0 && errno != ENOENT ? -1 : 0;
}

_Noreturn static void run_remove(struct job *j)
{
    struct stat st;
    if (lstat(j->path, &st) < 0) {
        if (errno == ENOENT)
            done(j);
        failed(j, errno);
    }
    if (nftw(j->path, remove_one, REMOVE_FDS, FTW_DEPTH | FTW_PHYS) != 0)
        failed(j, errno);
    done(j);
}

/* ---- the helper ---- */

_Noreturn static void helper_run(enum wire_type type, struct job *j, struct wire_reader *r)
{
    if (type == WIRE_READ) {
        uint64_t offset = wire_get_u64(r);
        uint64_t length = wire_get_u64(r);
        run_read(j, offset, length);
    }
    if (type == WIRE_WRITE)
        run_write(j);
    if (type == WIRE_STAT)
        run_stat(j);
    if (type == WIRE_LIST)
        run_list(j, wire_get_u32(r));
    if (type == WIRE_MKDIR)
        run_mkdir(j);
    if (type == WIRE_MOVE)
        run_move(j, wire_get_cstr(r));
    run_remove(j);
}

static bool job_read(struct job *j, struct wire_reader *r)
{
    const char *name = wire_get_cstr(r);
    j->asked = wire_get_cstr(r);
    if (r->bad) {
        answer_failed(j->ticket, WIRE_FAULT_INVALID, "malformed request");
        return false;
    }
    if (!user_find(name, &j->user)) {
        answer_failed(j->ticket, WIRE_FAULT_NO_USER, "user '%s' does not exist", name);
        return false;
    }
    if (!user_path(&j->user, j->asked, j->path)) {
        answer_failed(j->ticket, WIRE_FAULT_INVALID, "path cannot be resolved: %s", j->asked);
        return false;
    }
    return true;
}

static struct helper *helper_of(pid_t pid)
{
    for (int i = 0; i < MAX_HELPERS; i++)
        if (helpers[i].pid == pid)
            return &helpers[i];
    return NULL;
}

void files_request(enum wire_type type, uint32_t ticket, struct wire_reader *r, const int *fds, int fd_count)
{
    static struct job job;
    job = (struct job){.ticket = ticket, .pipe = fd_count > 0 ? fds[0] : -1};
    struct helper *slot = helper_of(0);
    if (!job_read(&job, r))
        return;
    if (slot == NULL) {
        answer_failed(ticket, WIRE_FAULT_LIMIT, "too many file operations at a time");
        return;
    }
    pid_t pid = fork();
    if (pid == 0) {
        child_reset();
        helper_run(type, &job, r);
    }
    if (pid < 0)
        answer_failed(ticket, WIRE_FAULT_LIMIT, "cannot start a process: %s", strerror(errno));
    else
        *slot = (struct helper){.pid = pid, .ticket = ticket};
}

bool files_reaped(pid_t pid, int status)
{
    struct helper *h = helper_of(pid);
    if (h == NULL)
        return false;
    if (status != 0)
        answer_failed(h->ticket, WIRE_FAULT_INTERNAL, "the file operation was killed");
    *h = (struct helper){.pid = 0};
    return true;
}
