/* A private PostgreSQL for tests: initdb and the server in a new directory under /tmp, a unix socket only.
 *
 * PostgreSQL refuses to run as root; then both run as `nobody`, who owns the directory. The server belongs to
 * the fixture's process group and is ended by its pid; fsync is off. */
#ifndef TESTS_PG_FIXTURE_H
#define TESTS_PG_FIXTURE_H

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct pg_fixture {
    char dir[64];
    char bin[128];
    char url[160];
    pid_t pid; /* 0: not running */
};

/* The newest /usr/lib/postgresql/N/bin. */
static inline bool pg_fixture_find_bin(struct pg_fixture *f)
{
    static const char root[] = "/usr/lib/postgresql";
    DIR *d = opendir(root);
    long best = 0;
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        long v = strtol(e->d_name, NULL, 10);
        best = v > best ? v : best;
    }
    if (d != NULL)
        closedir(d);
    snprintf(f->bin, sizeof f->bin, "%s/%ld/bin", root, best);
    return best > 0;
}

/* fork and exec of bin/argv[0], unprivileged, output to dir/log, dying with us. */
static inline pid_t pg_fixture_spawn(const struct pg_fixture *f, char *const argv[])
{
    char path[256], log[128];
    snprintf(path, sizeof path, "%s/%s", f->bin, argv[0]);
    snprintf(log, sizeof log, "%s/log", f->dir);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    const struct passwd *nobody = geteuid() == 0 ? getpwnam("nobody") : NULL;
    if (nobody != NULL && (setgid(nobody->pw_gid) != 0 || setuid(nobody->pw_uid) != 0))
        _exit(126);
    prctl(PR_SET_PDEATHSIG, SIGQUIT);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0 || chdir(f->dir) != 0)
        _exit(126);
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
    execv(path, argv);
    _exit(127);
}

/* Starts the server and waits until it accepts connections. */
static inline bool pg_fixture_start(struct pg_fixture *f)
{
    char data[80], lock[128];
    snprintf(data, sizeof data, "%s/data", f->dir);
    char *const argv[] = {"postgres",
                          "-D",
                          data,
                          "-k",
                          f->dir,
                          "-c",
                          "listen_addresses=",
                          "-c",
                          "fsync=off",
                          "-c",
                          "synchronous_commit=off",
                          "-c",
                          "max_connections=20",
                          NULL};
    f->pid = pg_fixture_spawn(f, argv);
    snprintf(lock, sizeof lock, "%s/data/postmaster.pid", f->dir);
    for (int i = 0; i < 2000; i++) { /* "ready" is the last line of postmaster.pid */
        char text[512] = "";
        int fd = open(lock, O_RDONLY);
        ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
        if (fd >= 0)
            close(fd);
        if (n > 0 && strstr(text, "ready") != NULL && strtol(text, NULL, 10) == f->pid)
            return true;
        if (waitpid(f->pid, NULL, WNOHANG) != 0)
            break;
        usleep(10000);
    }
    fprintf(stderr, "postgres did not start; see %s/log\n", f->dir);
    return false;
}

static inline bool pg_fixture_init(struct pg_fixture *f)
{
    memset(f, 0, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/tmp/sp-pg-XXXXXX");
    if (!pg_fixture_find_bin(f) || mkdtemp(f->dir) == NULL)
        return false;
    const struct passwd *nobody = geteuid() == 0 ? getpwnam("nobody") : NULL;
    if (nobody != NULL && chown(f->dir, nobody->pw_uid, nobody->pw_gid) != 0)
        return false;
    char *const argv[] = {"initdb", "-D", "data", "-U",          "test", "-A",
                          "trust",  "-E", "UTF8", "--no-locale", "-N",   NULL};
    int status = 0;
    pid_t pid = pg_fixture_spawn(f, argv);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
        fprintf(stderr, "initdb failed; see %s/log\n", f->dir);
        return false;
    }
    snprintf(f->url, sizeof f->url, "postgresql://test@/postgres?host=%s", f->dir);
    return pg_fixture_start(f);
}

/* Sends the signal and waits for the server's end: SIGQUIT at once, SIGINT orderly. */
static inline void pg_fixture_stop(struct pg_fixture *f, int sig)
{
    if (f->pid <= 0)
        return;
    kill(f->pid, sig);
    waitpid(f->pid, NULL, 0);
    f->pid = 0;
}

static inline int pg_fixture_rm(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static inline void pg_fixture_deinit(struct pg_fixture *f)
{
    pg_fixture_stop(f, SIGQUIT);
    if (f->dir[0] != '\0')
        nftw(f->dir, pg_fixture_rm, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
