/* sandpiper-sandbox-cell: builds one cell, then becomes the sandbox.
 *
 * A cell is a place for a sandbox, built ahead of need because its parts are slow: cgroups (a grace period
 * for each hierarchy of v1), a network with slirp4netns, a disk. It is one process, and everything it builds
 * belongs to that process: mounts to its mount namespace, the loop device and image to its mounts, the
 * network to its namespace. So there is no clean-up code: killing the process is the clean-up, and only empty
 * cgroup directories stay for sandboxd to remove.
 *
 *   sandboxd              cell
 *   BUILD plan   ------->  cgroups, network, disk
 *                <-------  BUILT
 *   ENTER layers ------->  overlay, user namespace, exec bubblewrap, which execs the supervisor as pid 1
 *                <-------  HELLO (from the supervisor, on the same socket)
 *
 * The supervisor is the only program inside that ever holds the socket. The cell dies with sandboxd at every
 * step: by the socket's end, by PR_SET_PDEATHSIG and, later, by bubblewrap's --die-with-parent. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cell.h"

enum { OOM_SCORE_SUPERVISOR = -900 };

static uint8_t plan_message[WIRE_MAX_BYTES], enter_message[WIRE_MAX_BYTES];
static uint32_t ticket;

void cell_broken(const char *what)
{
    char text[320];
    uint8_t msg[512];
    struct wire_writer w;
    if (errno != 0)
        snprintf(text, sizeof text, "%.200s: %s", what, strerror(errno));
    else
        snprintf(text, sizeof text, "%.200s", what);
    wire_begin(&w, msg, sizeof msg, WIRE_BROKEN, ticket);
    wire_put_cstr(&w, text);
    if (!w.bad)
        wire_send(WIRE_SOCKET, msg, w.len, NULL, 0);
    _exit(1);
}

static void receive(uint8_t *buf, enum wire_type want, struct wire_reader *r, int fds[WIRE_MAX_FDS],
                    int *fd_count)
{
    enum wire_type type;
    ssize_t n = wire_recv(WIRE_SOCKET, buf, WIRE_MAX_BYTES, fds, fd_count, true);
    if (n == 0)
        _exit(0);
    if (n < 0)
        cell_broken("receive");
    errno = 0;
    if (wire_open(r, buf, (size_t)n, &type, &ticket) != 0 || type != want)
        cell_broken("unexpected message");
}

/* The supervisor is the last to be chosen when the sandbox runs out of memory; what it starts is set to +100.
 * Lowering the score needs CAP_SYS_RESOURCE, which containers lack: then the difference of 100 must do. */
static void spare_supervisor(void)
{
    char text[16];
    int n = snprintf(text, sizeof text, "%d", OOM_SCORE_SUPERVISOR);
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || (write(fd, text, (size_t)n) != n && errno != EACCES))
        cell_broken("oom_score_adj");
    close(fd);
}

static void tell_built(void)
{
    uint8_t msg[16];
    struct wire_writer w;
    wire_begin(&w, msg, sizeof msg, WIRE_BUILT, ticket);
    if (wire_send(WIRE_SOCKET, msg, w.len, NULL, 0) != 0)
        _exit(1);
}

int main(void)
{
    struct wire_reader r;
    struct plan plan;
    struct cell_net net;
    struct cell_disk disk;
    int fds[WIRE_MAX_FDS], fd_count;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    umask(022);
    receive(plan_message, WIRE_BUILD, &r, fds, &fd_count);
    if (!plan_get(&r, &plan))
        cell_broken("malformed plan");
    cell_disk_open(&disk, &plan);
    cell_join_groups(&plan);
    spare_supervisor();
    cell_net_open(&net, &plan);
    tell_built();

    receive(enter_message, WIRE_ENTER, &r, fds, &fd_count);
    const char *hostname = wire_get_cstr(&r);
    bool network = wire_get_u32(&r) != 0;
    if (r.bad || fd_count != 1)
        cell_broken("malformed entry");
    if (!network)
        cell_net_cut(&net);
    cell_disk_stack(&disk, &r);
    cell_enter(&plan, hostname, fds[0]);
}
