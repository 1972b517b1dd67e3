/* The system-call filter of every sandbox. */
#ifndef SANDBOXD_SYSCALLS_H
#define SANDBOXD_SYSCALLS_H

#include "base/err.h"

/* Compiles it. A sealed descriptor with the BPF program (the caller's), or -1 and *err. */
int syscalls_program(struct err *err);

#endif
