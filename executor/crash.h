/* Last words of a process that crashes: which job it was working for, so that only that one is blamed (DESIGN
 * section 4, "Poison"), and that its lease is over, so that nobody has to wait for it to run out. */
#ifndef EXECUTOR_CRASH_H
#define EXECUTOR_CRASH_H

#include "executor.h"

struct crash;
/* Installs the handlers: one a process. NULL with *err when that cannot be. */
struct crash *crash_new(struct executor *x, struct err *err);
void crash_free(struct crash **c);

#endif
