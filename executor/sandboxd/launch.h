/* What a process's start is made of: its description, the supervisor's message, the pipes. For process.c. */
#ifndef SANDBOXD_LAUNCH_H
#define SANDBOXD_LAUNCH_H

#include "process.h"

/* Its ProcessConfig as List shows it. Environments may hold secrets and are left out. */
void launch_describe(struct buf *out, const struct process_spec *spec);

/* The fields of WIRE_START; the sandbox's own environment first, so that the process's wins. */
void launch_put(struct wire_writer *w, const struct sandbox *s, const struct process_spec *spec);

/* stdin, stdout, stderr; -1 where there is none (ours[0] of a stdin that is /dev/null). */
struct launch_pipes {
    int ours[3], theirs[3];
};
int launch_pipes_open(struct launch_pipes *p, bool stdin_open, struct err *err);
void launch_pipes_close(struct launch_pipes *p);

#endif
