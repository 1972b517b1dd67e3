/* The cell's network: its own namespace, and slirp4netns, which gives egress without ingress from user space.
 *
 * slirp4netns must stay in the host's network namespace, so it is forked first and held at a pipe until the
 * new namespace exists. It is in the cell's cgroups and has few descriptors: what it uses for a sandbox
 * (memory, time, sockets of the host) counts as the sandbox's own. It ends with the sandbox: its --exit-fd is
 * a pipe whose other end this process holds and hands down to the supervisor (slirp4netns changes
 * credentials, which takes PR_SET_PDEATHSIG off). bubblewrap, which this process becomes, ignores children
 * that it did not make. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cell.h"

enum { SLIRP_READY_MS = 10000, READY_FD = 4, EXIT_FD = 5, SLIRP_FILES = 1024 };

struct slirp_pipes {
    int go[2], ready[2], life[2];
};

static void loopback_up(void)
{
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq req = {.ifr_name = "lo"};
    req.ifr_flags = IFF_UP | IFF_RUNNING;
    if (s < 0 || ioctl(s, SIOCSIFFLAGS, &req) < 0)
        cell_broken("loopback");
    close(s);
}

/* One RTM_NEWROUTE of type unreachable, rtnetlink(7). */
static void deny_route(int netlink, const struct plan_deny *deny)
{
    struct {
        struct nlmsghdr head;
        struct rtmsg route;
        struct rtattr attr;
        uint32_t address;
    } msg = {
        .head = {.nlmsg_len = sizeof msg,
                 .nlmsg_type = RTM_NEWROUTE,
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK},
        .route = {.rtm_family = AF_INET,
                  .rtm_dst_len = (unsigned char)deny->prefix,
                  .rtm_table = RT_TABLE_MAIN,
                  .rtm_protocol = RTPROT_STATIC,
                  .rtm_scope = RT_SCOPE_UNIVERSE,
                  .rtm_type = RTN_UNREACHABLE},
        .attr = {.rta_len = RTA_LENGTH(sizeof(uint32_t)), .rta_type = RTA_DST},
        .address = deny->address,
    };
    struct {
        struct nlmsghdr head;
        struct nlmsgerr err;
        char more[256];
    } answer;
    if (send(netlink, &msg, sizeof msg, 0) < 0)
        cell_broken("route");
    ssize_t n = recv(netlink, &answer, sizeof answer, 0);
    if (n < (ssize_t)sizeof(struct nlmsghdr) || answer.head.nlmsg_type != NLMSG_ERROR)
        cell_broken("route answer");
    if (answer.err.error == 0 || answer.err.error == -EEXIST)
        return;
    errno = -answer.err.error;
    cell_broken("unreachable route");
}

static void deny_routes(const struct plan *plan)
{
    int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (netlink < 0)
        cell_broken("netlink");
    for (uint32_t i = 0; i < plan->deny_count; i++)
        deny_route(netlink, &plan->deny[i]);
    close(netlink);
}

_Noreturn static void become_slirp(const struct plan *plan, const struct slirp_pipes *p, pid_t cell)
{
    char pid[16], byte;
    if (read(p->go[0], &byte, 1) != 1)
        _exit(1);
    int ready = fcntl(p->ready[1], F_DUPFD_CLOEXEC, 16), life = fcntl(p->life[0], F_DUPFD_CLOEXEC, 16);
    close(p->life[1]);
    close(WIRE_SOCKET);
    if (dup2(ready, READY_FD) < 0 || dup2(life, EXIT_FD) < 0)
        _exit(1);
    int null = open("/dev/null", O_RDWR);
    if (null >= 0) {
        dup2(null, 0);
        dup2(null, 1);
    }
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){SLIRP_FILES, SLIRP_FILES});
    snprintf(pid, sizeof pid, "%d", (int)cell);
    char *const argv[] = {(char *)plan->slirp,
                          "--configure",
                          "--mtu=65520",
                          "--disable-host-loopback",
                          "--enable-sandbox",
                          "--enable-seccomp",
                          "-r",
                          "4",
                          "-e",
                          "5",
                          pid,
                          "tap0",
                          NULL};
    execv(plan->slirp, argv);
    _exit(127);
}

static int slirp_fork(const struct plan *plan, struct slirp_pipes *p)
{
    pid_t cell = getpid();
    if (pipe2(p->go, O_CLOEXEC) < 0 || pipe2(p->ready, O_CLOEXEC) < 0 || pipe(p->life) < 0)
        cell_broken("pipe");
    pid_t pid = fork();
    if (pid < 0)
        cell_broken("fork");
    if (pid == 0) {
        close(p->go[1]);
        become_slirp(plan, p, cell);
    }
    close(p->go[0]);
    close(p->ready[1]);
    close(p->life[0]); /* life[1] stays open, for the supervisor */
    return pid;
}

static void slirp_release(struct slirp_pipes *p)
{
    struct pollfd wait = {.fd = p->ready[0], .events = POLLIN};
    char byte;
    if (write(p->go[1], "g", 1) != 1)
        cell_broken("slirp4netns");
    close(p->go[1]);
    errno = ETIMEDOUT;
    if (poll(&wait, 1, SLIRP_READY_MS) != 1)
        cell_broken("slirp4netns is not ready");
    errno = 0;
    if (read(p->ready[0], &byte, 1) != 1)
        cell_broken("slirp4netns does not start");
    close(p->ready[0]);
}

void cell_net_open(struct cell_net *net, const struct plan *plan)
{
    struct slirp_pipes pipes;
    bool egress = plan->slirp[0] != '\0';
    net->slirp_pid = egress ? slirp_fork(plan, &pipes) : -1;
    if (unshare(CLONE_NEWNET) < 0)
        cell_broken("network namespace");
    loopback_up();
    deny_routes(plan);
    if (egress)
        slirp_release(&pipes);
}

void cell_net_cut(struct cell_net *net)
{
    if (net->slirp_pid < 0)
        return;
    kill(net->slirp_pid, SIGKILL);
    waitpid(net->slirp_pid, NULL, 0);
    net->slirp_pid = -1;
}
