/* A deny list, on top of dropped capabilities and a user namespace: calls that reach the kernel's wider
 * surface and that programs in a sandbox have no use for. They fail with EPERM; those that C libraries and
 * runtimes probe for fail with ENOSYS, so that they fall back. The model is bubblewrap's users and container
 * engines: flatpak, podman. */
#include "syscalls.h"

#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static const int denied[] = {
    /* other namespaces and mounts */
    SCMP_SYS(mount),
    SCMP_SYS(umount2),
    SCMP_SYS(pivot_root),
    SCMP_SYS(chroot),
    SCMP_SYS(setns),
    SCMP_SYS(unshare),
    SCMP_SYS(open_tree),
    SCMP_SYS(move_mount),
    SCMP_SYS(fsopen),
    SCMP_SYS(fsconfig),
    SCMP_SYS(fsmount),
    SCMP_SYS(fspick),
    SCMP_SYS(mount_setattr),
    SCMP_SYS(quotactl),
    SCMP_SYS(fanotify_init),
    SCMP_SYS(open_by_handle_at),
    SCMP_SYS(name_to_handle_at),
    /* the kernel itself */
    SCMP_SYS(bpf),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(kexec_load),
    SCMP_SYS(kexec_file_load),
    SCMP_SYS(init_module),
    SCMP_SYS(finit_module),
    SCMP_SYS(delete_module),
    SCMP_SYS(reboot),
    SCMP_SYS(swapon),
    SCMP_SYS(swapoff),
    SCMP_SYS(syslog),
    SCMP_SYS(acct),
    SCMP_SYS(uselib),
    SCMP_SYS(userfaultfd),
    SCMP_SYS(lookup_dcookie),
    SCMP_SYS(nfsservctl),
    SCMP_SYS(vhangup),
    SCMP_SYS(iopl),
    SCMP_SYS(ioperm),
    SCMP_SYS(modify_ldt),
    SCMP_SYS(vm86),
    SCMP_SYS(vm86old),
    SCMP_SYS(_sysctl),
    /* keys are not namespaced */
    SCMP_SYS(add_key),
    SCMP_SYS(keyctl),
    SCMP_SYS(request_key),
    /* clocks and names */
    SCMP_SYS(settimeofday),
    SCMP_SYS(stime),
    SCMP_SYS(clock_settime),
    SCMP_SYS(clock_adjtime),
    SCMP_SYS(adjtimex),
    SCMP_SYS(sethostname),
    SCMP_SYS(setdomainname),
    /* other nodes' memory */
    SCMP_SYS(move_pages),
    SCMP_SYS(migrate_pages),
    SCMP_SYS(mbind),
    SCMP_SYS(set_mempolicy),
    SCMP_SYS(get_mempolicy),
};

/* Probed for: absent is what callers understand. clone3 hides its flags in memory; C libraries fall back to
 * clone. The kernel counts contexts of io_setup for the whole machine. */
static const int absent[] = {SCMP_SYS(clone3), SCMP_SYS(io_uring_setup), SCMP_SYS(io_uring_enter),
                             SCMP_SYS(io_uring_register), SCMP_SYS(io_setup)};

static const unsigned namespaces[] = {CLONE_NEWUSER, CLONE_NEWNS,  CLONE_NEWPID,   CLONE_NEWNET,
                                      CLONE_NEWIPC,  CLONE_NEWUTS, CLONE_NEWCGROUP};

/* Families that lead out of the network namespace or into rarely used kernel code. */
static const unsigned families[] = {AF_VSOCK, AF_ALG, AF_PACKET, AF_BLUETOOTH,
                                    AF_TIPC,  AF_CAN, AF_RDS,    AF_KEY};

static const unsigned terminal_requests[] = {TIOCSTI, 0x541c /* TIOCLINUX */};

static int add_rules(scmp_filter_ctx ctx)
{
    int bad = 0;
    for (size_t i = 0; i < sizeof denied / sizeof denied[0]; i++) {
        int r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), denied[i], 0);
        if (r != 0 && r != -EDOM)
            bad = r; /* EDOM: this architecture never had it */
    }
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++)
        bad |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), absent[i], 0);
    for (size_t i = 0; i < sizeof namespaces / sizeof namespaces[0]; i++)
        bad |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                                SCMP_A0(SCMP_CMP_MASKED_EQ, namespaces[i], namespaces[i]));
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        bad |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                                SCMP_A0(SCMP_CMP_EQ, families[i], 0));
    for (size_t i = 0; i < sizeof terminal_requests / sizeof terminal_requests[0]; i++)
        bad |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), 1,
                                SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffffu, terminal_requests[i]));
    return bad;
}

int syscalls_program(struct err *err)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    int fd = memfd_create("seccomp", MFD_CLOEXEC);
    int bad = ctx == NULL || fd < 0 ? -1 : add_rules(ctx);
    if (bad == 0)
        bad = seccomp_export_bpf(ctx, fd);
    if (ctx != NULL)
        seccomp_release(ctx);
    if (bad == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return err_set(err, ERR_INTERNAL, "seccomp: %s", strerror(bad < 0 ? -bad : EIO));
}
