/* sandpiper-sandbox-init: pid 1 of a sandbox, the supervisor that owns its processes.
 *
 * It is started by bubblewrap with the socket to sandboxd (wire.h) as descriptor 3, and does three things:
 * carries out requests, reaps every process that ends (its own and orphans), and ends when sandboxd does,
 * which takes the whole pid namespace along. It is the sandbox's root with a handful of capabilities; what it
 * starts has none.
 *
 * It must never block on anything a sandboxed program controls: streams go past it (pipes from sandboxd),
 * file work is done by forked helpers. Nothing inside can signal it (pid 1 takes no signal it does not
 * handle), trace it (it is not dumpable) or use its descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "init.h"

static uint8_t message[WIRE_MAX_BYTES];

static void answer(uint32_t ticket, enum wire_type type)
{
    uint8_t msg[16];
    struct wire_writer w;
    wire_begin(&w, msg, sizeof msg, type, ticket);
    wire_send(WIRE_SOCKET, msg, w.len, NULL, 0);
}

void answer_done(uint32_t ticket)
{
    answer(ticket, WIRE_DONE);
}

void answer_failed(uint32_t ticket, enum wire_fault fault, const char *fmt, ...)
{
    char text[PATH_MAX + 256];
    uint8_t msg[sizeof text + 64];
    struct wire_writer w;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    wire_begin(&w, msg, sizeof msg, WIRE_FAILED, ticket);
    wire_put_u32(&w, fault);
    wire_put_cstr(&w, text);
    if (!w.bad)
        wire_send(WIRE_SOCKET, msg, w.len, NULL, 0);
}

void answer_errno(uint32_t ticket, const char *path, int error)
{
    enum wire_fault fault = WIRE_FAULT_INTERNAL;
    if (error == ENOENT || error == ESRCH)
        fault = WIRE_FAULT_NOT_FOUND;
    else if (error == EEXIST)
        fault = WIRE_FAULT_EXISTS;
    else if (error == EACCES || error == EPERM || error == EROFS)
        fault = WIRE_FAULT_DENIED;
    else if (error == ENOSPC || error == EDQUOT)
        fault = WIRE_FAULT_NO_SPACE;
    else if (error == EINVAL || error == EISDIR || error == ENOTDIR || error == ENAMETOOLONG ||
             error == ELOOP)
        fault = WIRE_FAULT_INVALID;
    answer_failed(ticket, fault, "%s: %s", path, strerror(error));
}

static void dispatch(enum wire_type type, uint32_t ticket, struct wire_reader *r, const int *fds,
                     int fd_count)
{
    if (type == WIRE_START)
        process_start(ticket, r, fds, fd_count);
    else if (type == WIRE_SIGNAL)
        process_signal(ticket, r);
    else if (type == WIRE_RESIZE)
        process_resize(ticket, r);
    else if (type >= WIRE_READ && type <= WIRE_REMOVE)
        files_request(type, ticket, r, fds, fd_count);
    else
        answer_failed(ticket, WIRE_FAULT_INVALID, "unknown request");
}

/* One request. False when sandboxd is gone. */
static bool serve(void)
{
    int fds[WIRE_MAX_FDS], fd_count;
    enum wire_type type;
    uint32_t ticket;
    struct wire_reader r;
    ssize_t n = wire_recv(WIRE_SOCKET, message, sizeof message, fds, &fd_count, false);
    if (n == 0)
        return false;
    if (n < 0)
        return errno == EAGAIN || errno == EMSGSIZE;
    if (wire_open(&r, message, (size_t)n, &type, &ticket) == 0)
        dispatch(type, ticket, &r, fds, fd_count);
    for (int i = 0; i < fd_count; i++)
        close(fds[i]);
    return true;
}

static void reap(int signals)
{
    struct signalfd_siginfo drop[16];
    pid_t pid;
    int status;
    while (read(signals, drop, sizeof drop) > 0) {
    }
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (!process_reaped(pid, status))
            files_reaped(pid, status);
}

static int signals_open(void)
{
    sigset_t set;
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* The arguments are the limits of each program: descriptors, processes of its user. */
int main(int argc, char **argv)
{
    prctl(PR_SET_DUMPABLE, 0);
    close_range(WIRE_SOCKET, ~0U, CLOSE_RANGE_CLOEXEC); /* the socket, and slirp4netns's life line */
    int signals = signals_open();
    if (signals < 0)
        return 1;
    umask(022);
    if (argc > 2)
        process_limit(strtoul(argv[1], NULL, 10), strtoul(argv[2], NULL, 10));
    answer(0, WIRE_HELLO);
    for (;;) {
        struct pollfd waits[] = {{.fd = WIRE_SOCKET, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
        if (poll(waits, 2, -1) < 0 && errno != EINTR)
            return 1;
        if (waits[1].revents != 0)
            reap(signals);
        if (waits[0].revents != 0 && !serve())
            return 0;
    }
}
