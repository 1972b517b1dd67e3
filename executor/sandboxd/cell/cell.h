/* The parts of the cell program (main.c tells the whole). Every step either succeeds or ends the program with
 * cell_broken: a cell is built whole or not at all, and the kernel takes back what a dead process held. */
#ifndef CELL_CELL_H
#define CELL_CELL_H

#include <stdbool.h>

#include "../plan.h"

/* Where things are, in the cell's own mount namespace. */
#define CELL_ROOM "/tmp"            /* a small tmpfs of the cell's, over the host's /tmp */
#define CELL_DISK CELL_ROOM "/disk" /* the limited file system: upper/ and work/ */
#define CELL_OWN CELL_ROOM "/own"   /* the same, under the cell's own user ids (ids.h) */
#define CELL_LAYERS CELL_ROOM "/layers"
#define CELL_PTS CELL_ROOM "/pts"
#define CELL_ROOT CELL_ROOM "/root" /* the overlay, what becomes the sandbox's / */

/* Tells sandboxd what failed (with errno's text when it is set) and exits. */
_Noreturn void cell_broken(const char *what);

/* limits.c: makes the cell's cgroups, sets the limits, enters. Slow on cgroup v1 (a grace period each). */
void cell_join_groups(const struct plan *plan);

/* net.c: a network namespace with its loopback up and the denied networks unreachable; and slirp4netns beside
 * it when the plan wants one. Ends when the network works. The namespace belongs to the host's user
 * namespace: nobody inside can change a route. */
struct cell_net {
    int slirp_pid; /* -1 without */
};
void cell_net_open(struct cell_net *net, const struct plan *plan);
/* Takes the way out away again, for sandboxes that must not have one. */
void cell_net_cut(struct cell_net *net);

/* disk.c: a mount namespace of the cell's own with the limited disk and the read-only trees of the plan in
 * it. */
struct cell_disk {
    int layers; /* the directory that holds them */
};
void cell_disk_open(struct cell_disk *disk, const struct plan *plan);
/* Stacks the layers that the message names (uppermost first) and the disk: CELL_ROOT is then the sandbox's
 * root. */
void cell_disk_stack(struct cell_disk *disk, struct wire_reader *r);

/* enter.c: a user namespace in which this process is root; then bubblewrap with the supervisor in it. */
_Noreturn void cell_enter(const struct plan *plan, const char *hostname, int seccomp_fd);

#endif
