/* One cell as sandboxd sees it: a child process and the socket to it (cell/main.c tells what it does).
 *
 *   BUILDING --built--> READY --cell_enter--> ENTERING --hello--> LIVE
 *   any of them --cell_kill, or its own end--> DYING --reaped, cgroups empty--> freed
 *
 * A cell's owner is told through one set of callbacks; cell_kill detaches the owner at once and the rest of
 * the cell's life is the cell's own business. */
#ifndef SANDBOXD_CELL_H
#define SANDBOXD_CELL_H

#include "cgroup.h"
#include "loop/loop.h"
#include "options.h"
#include "reaper.h"
#include "wire.h"

enum { CELL_NAME_BYTES = 24, CELL_MAX_LAYERS = 16, CELL_MAX = 8192 };

/* What all cells share; everything is borrowed. */
struct cell_works {
    struct loop *loop;
    struct reaper *reaper;
    struct cgroups *cgroups;
    const struct options *options;
    const char *program; /* path of sandpiper-sandbox-cell */
    int seccomp_fd;
    const struct plan *plan; /* without groups and disk name, which are each cell's own */
    bool own_ids;            /* whether each cell runs under user ids of its own (ids.h) */
    int64_t alive;           /* cells that are not yet gone, whatever their state */
    bool taken[CELL_MAX];    /* the numbers of those: what is apart between cells is apart by number */
};

struct cell;

struct cell_events {
    void (*on_built)(void *arg);
    void (*on_live)(void *arg);
    /* An answer of the supervisor. Descriptors belong to the callee. Not trusted: check the reader. */
    void (*on_message)(void *arg, enum wire_type type, uint32_t ticket, struct wire_reader *r, const int *fds,
                       int fd_count);
    /* The cell is no more, for a reason of its own; the pointer is dead after this call. */
    void (*on_gone)(void *arg, const char *why);
};

/* Starts building. NULL and *err. */
struct cell *cell_new(struct cell_works *works, const struct cell_events *events, void *arg, struct err *err);

/* Gives the cell to another owner. */
void cell_adopt(struct cell *c, const struct cell_events *events, void *arg);

/* READY only: becomes a sandbox with these layers (uppermost first) under it. */
int cell_enter(struct cell *c, const char *hostname, bool network, const char *const *layers, int count,
               struct err *err);

/* LIVE only: sends a request; fds are borrowed. ERR_OVERLOADED when too much waits. */
int cell_send(struct cell *c, const struct wire_writer *msg, const int *fds, int fd_count, struct err *err);

void cell_usage(const struct cell *c, struct cgroup_usage *out);
/* Bytes in use on its disk; -1: not known, or the disk is not limited. */
int64_t cell_disk_used(const struct cell *c);
bool cell_freeze(const struct cell *c, bool freeze);
/* Where the overlay's upper layer can be seen, while the cell lives. */
void cell_upper_path(const struct cell *c, char *out, size_t out_bytes);

/* Kills everything inside and lets go: no callback any more; *c is nulled. NULL is fine. */
void cell_kill(struct cell **c);

#endif
