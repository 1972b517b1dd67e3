/* The system-call filter of every sandbox. */
#ifndef SANDBOXD_SECCOMP_H
#define SANDBOXD_SECCOMP_H

#include "base/err.h"

/* Compiles it. A sealed descriptor with the BPF program (the caller's), or -1 and *err. */
int seccomp_program(struct err *err);

#endif
