/* The processes that clients started in a sandbox: their streams, input, end.
 *
 *   STARTING -> RUNNING -> EXITED (status known, output still open) -> ENDED (kept 30 s for late Connects) ->
 * freed
 *
 * Output is read from its pipe only while every watcher keeps up; with none it is read and dropped, as E2B
 * does. */
#ifndef SANDBOXD_PROCESS_H
#define SANDBOXD_PROCESS_H

#include "sandbox.h"

enum { PROCESS_PIECE_BYTES = 32 * 1024, PROCESS_KEEP_MS = 30000, PROCESS_INPUT_MAX = 4 << 20 };

enum process_stream { PROCESS_STDOUT, PROCESS_STDERR, PROCESS_PTY };

struct process_exit {
    bool exited;                       /* else: a signal */
    int code;                          /* or the signal */
    int64_t cpu_us, memory_peak_bytes; /* of the whole sandbox; -1 unknown */
    bool oom_killed;                   /* it ended because the sandbox's memory did: see process.c */
};

/* Somebody who follows a process; embedded in its owner. */
struct process_watch {
    struct process_watch *prev, *next;
    struct process *process; /* NULL once the process let go: after on_end or on_lost */
    /* False: no more output until process_resume. */
    bool (*on_output)(void *arg, enum process_stream stream, struct str piece);
    void (*on_start)(void *arg, int64_t pid);
    /* Over: exit (ended), or NULL and the Connect code and text of the reason. */
    void (*on_end)(void *arg, const struct process_exit *exit, const char *code, const char *text);
    void *arg;
    bool paused;
};

struct process_spec {
    struct str user, cwd, tag;
    const struct str *argv; /* argc >= 1 */
    size_t argc;
    struct pairs env; /* borrowed */
    bool has_tag, stdin_open, pty;
    uint32_t cols, rows;
    int64_t kill_after_ms; /* 0: never */
};

/* Starts one; watch is told from the loop. -1 and *err when not even the request could be sent. */
int process_start(struct sandbox *s, const struct process_spec *spec, struct process_watch *watch,
                  struct err *err);

/* By pid, or by tag (a running one first). NULL: none. */
struct process *process_by_pid(struct sandbox *s, int64_t pid);
struct process *process_by_tag(struct sandbox *s, struct str tag);
struct process *process_next(struct sandbox *s,
                             const struct process *after); /* those not ENDED; NULL gives the first */

int64_t process_pid(const struct process *p);
struct str process_config(const struct process *p); /* its ProcessConfig as JSON */
bool process_tag(const struct process *p, struct str *out);
const struct process_exit *process_ended(const struct process *p); /* NULL while not ENDED */

/* Follows a process that is not ENDED from now on (no on_start). */
void process_follow(struct process *p, struct process_watch *watch);
void process_unfollow(struct process_watch *watch); /* fine when not following */
void process_resume(struct process_watch *watch);

typedef void process_done_fn(void *arg, const char *code, const char *text); /* code NULL: done */

/* Writes to stdin (or the terminal), in order. fn is called once, from the loop, when all of it is written or
 * cannot be; -1 and *err at once: ERR_CONFLICT when stdin is closed, ERR_OVERLOADED. Detach with
 * process_input_forget. */
int process_input(struct process *p, struct str data, process_done_fn *fn, void *arg, struct err *err);
/* Closes stdin after what was written before. -1: it is a terminal. */
int process_close_input(struct process *p);
/* Drops fn of every pending input of arg. */
void process_input_forget(struct process *p, const void *arg);

/* For sandbox.c: the sandbox is gone; watchers are told. */
void processes_free(struct process **list);

/* Notes that a client signals it: the end no longer waits for the output's end, which a grandchild may hold
 * open. */
void process_note_kill(struct process *p);

#endif
