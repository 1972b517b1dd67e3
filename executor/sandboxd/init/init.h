/* The parts of the supervisor (main.c tells the whole). */
#ifndef INIT_INIT_H
#define INIT_INIT_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "../wire.h"

/* ---- user.c: the sandbox's own /etc/passwd, and paths as E2B resolves them ---- */

struct user {
    char name[64], home[PATH_MAX];
    uid_t uid;
    gid_t gid;
};

/* False when there is no such user. "" counts as "user". */
bool user_find(const char *name, struct user *out);
/* The name of an id, or its number, into out. */
void user_name(uid_t uid, char *out, size_t out_bytes);
void user_group_name(gid_t gid, char *out, size_t out_bytes);
/* "" and "~" are the home, "~/x" and relative paths lie below it, absolute ones stay as they are. False for
 * "~other" and for what is too long. */
bool user_path(const struct user *u, const char *path, char out[PATH_MAX]);

/* ---- answers: one message each; they may come from the supervisor or from a helper it forked ---- */

void answer_done(uint32_t ticket);
void answer_failed(uint32_t ticket, enum wire_fault fault, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* By errno. */
void answer_errno(uint32_t ticket, const char *path, int error);

/* ---- process.c: the programs that clients start ---- */

/* How many descriptors a program may have, and its user processes. */
void process_limit(unsigned long files, unsigned long pids);
void process_start(uint32_t ticket, struct wire_reader *r, const int *fds, int fd_count);
void process_signal(uint32_t ticket, struct wire_reader *r);
void process_resize(uint32_t ticket, struct wire_reader *r);
/* A child was reaped: true when it was a program (EXITED is sent). */
bool process_reaped(pid_t pid, int status);
/* In a fresh child: default signals, nothing blocked, an ordinary claim on memory. */
void child_reset(void);

/* ---- files.c: one forked helper for each request ---- */

void files_request(enum wire_type type, uint32_t ticket, struct wire_reader *r, const int *fds, int fd_count);
bool files_reaped(pid_t pid, int status);

#endif
