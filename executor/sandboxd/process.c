/* Processes (process.h): one pipe per stream between the program and this daemon, the supervisor's word for
 * start and end, and the watchers.
 *
 * Back-pressure is the pipe's: while any watcher is paused, nothing is read and the program blocks in write,
 * as on E2B. The program's end is the end: it is told when the status is known and both pipes are at their
 * end, or LINGER_MS after the status when children that it left behind hold the pipes (E2B waits for those
 * without a limit); a client that sent a signal does not wait at all. At the time limit a program that has
 * ended by then is told as it ended, and not as late.
 *
 * Out of memory is a program whose sandbox lost a process to the kernel's OOM killer while it ran, and that
 * ended by KILL itself or with status 137, a shell's word for that; not by a signal of its client. One that
 * survives its child's end, or fails in its own way, is told by its own status.
 *
 * A watcher may free its owner inside on_end: it is unlinked before. */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utlist.h>

#include "crypto/crypto.h"
#include "launch.h"

enum {
    READ_BUDGET = 8,
    MAX_CONFIG = 1 << 20,
    LINGER_MS = 1000, /* for what children still write behind a program's end */
    SHELL_KILLED = 128 + SIGKILL,
    PAUSED_LOOK_MS = 100, /* a watcher is slow: what the program itself wrote is not dropped */
};

enum process_state { PROCESS_STARTING, PROCESS_RUNNING, PROCESS_EXITED, PROCESS_ENDED };

struct output {
    struct process *process;
    enum process_stream stream;
    int fd; /* -1: at its end, or never there */
    struct loop_io *io;
};

struct input {
    struct input *prev, *next;
    char *data;
    size_t n, at;
    process_done_fn *fn;
    void *arg;
};

struct process {
    struct process *prev, *next;
    struct sandbox *sandbox;
    enum process_state state;
    uint32_t ticket; /* of the START call; 0 once that is over */
    int64_t pid;
    struct buf config;
    char *tag;
    bool pty, killed;
    struct output outputs[2];
    int stdin_fd;
    struct loop_io *stdin_io;
    struct input *inputs;
    size_t input_bytes;
    bool stdin_closing;
    struct process_watch *watches;
    struct process_watch *starter; /* whose deadline kill_timer is */
    struct loop_timer *kill_timer;
    struct loop_timer *keep_timer; /* EXITED: lingering; ENDED: until it is forgotten */
    int64_t oom_before;
    struct process_exit exit;
};

static char piece[PROCESS_PIECE_BYTES];

/* ---- watchers ---- */

static void watch_drop(struct process_watch *w)
{
    struct process *p = w->process;
    DL_DELETE(p->watches, w);
    if (p->starter == w)
        p->starter = NULL;
    w->process = NULL;
}

static void tell_end(struct process *p, const struct process_exit *exit, const char *code, const char *text)
{
    while (p->watches != NULL) {
        struct process_watch *w = p->watches;
        watch_drop(w);
        w->on_end(w->arg, exit, code, text);
    }
}

static bool any_paused(const struct process *p)
{
    const struct process_watch *w;
    DL_FOREACH(p->watches, w)
    if (w->paused)
        return true;
    return false;
}

static void arm_outputs(struct process *p)
{
    int events = any_paused(p) ? 0 : LOOP_READ;
    for (int i = 0; i < 2; i++)
        if (p->outputs[i].io != NULL)
            loop_io_set(p->outputs[i].io, events);
}

void process_follow(struct process *p, struct process_watch *watch)
{
    watch->process = p;
    watch->paused = false;
    DL_APPEND(p->watches, watch);
}

void process_unfollow(struct process_watch *watch)
{
    struct process *p = watch->process;
    if (p == NULL)
        return;
    watch_drop(watch);
    arm_outputs(p);
}

void process_resume(struct process_watch *watch)
{
    watch->paused = false;
    if (watch->process != NULL)
        arm_outputs(watch->process);
}

/* ---- the end ---- */

static void output_close(struct output *o)
{
    if (o->fd < 0)
        return;
    loop_io_free(&o->io);
    if (!(o->stream == PROCESS_PTY && o->process->stdin_fd == o->fd))
        close(o->fd);
    o->fd = -1;
}

static void inputs_fail(struct process *p, const char *code, const char *text)
{
    while (p->inputs != NULL) {
        struct input *in = p->inputs;
        DL_DELETE(p->inputs, in);
        if (in->fn != NULL)
            in->fn(in->arg, code, text);
        free(in->data);
        free(in);
    }
    p->input_bytes = 0;
}

static void stdin_close(struct process *p)
{
    loop_io_free(&p->stdin_io);
    if (p->stdin_fd >= 0)
        close(p->stdin_fd);
    p->stdin_fd = -1;
}

static void close_streams(struct process *p)
{
    output_close(&p->outputs[0]);
    output_close(&p->outputs[1]);
    stdin_close(p);
}

static void process_destroy(struct process *p)
{
    close_streams(p);
    loop_timer_free(&p->kill_timer);
    loop_timer_free(&p->keep_timer);
    buf_deinit(&p->config);
    free(p->tag);
    free(p);
}

static void process_free(struct process *p)
{
    DL_DELETE(*sandbox_processes(p->sandbox), p);
    process_destroy(p);
}

void processes_free(struct process **list)
{
    while (*list != NULL) {
        struct process *p = *list;
        DL_DELETE(*list, p);
        inputs_fail(p, "unavailable", "the sandbox is gone");
        tell_end(p, NULL, "unavailable", "the sandbox was killed before the process ended");
        process_destroy(p);
    }
}

static void linger_over(struct process *p);

static void on_keep_over(void *arg)
{
    struct process *p = arg;
    if (p->state == PROCESS_EXITED)
        linger_over(p);
    else
        process_free(p);
}

static void note_usage(struct process *p)
{
    struct cgroup_usage usage;
    cell_usage(sandbox_cell(p->sandbox), &usage);
    p->exit.cpu_us = usage.cpu_us;
    p->exit.memory_peak_bytes = usage.memory_peak_bytes;
    bool killed = p->exit.code == (p->exit.exited ? SHELL_KILLED : SIGKILL);
    p->exit.oom_killed = killed && !p->killed && usage.oom_kills > p->oom_before;
}

static void process_end(struct process *p)
{
    INVARIANT(p->state == PROCESS_EXITED);
    p->state = PROCESS_ENDED;
    close_streams(p);
    loop_timer_stop(p->kill_timer);
    loop_timer_start(p->keep_timer, PROCESS_KEEP_MS);
    inputs_fail(p, "not_found", "the process has ended");
    tell_end(p, &p->exit, NULL, NULL);
}

static void end_if_over(struct process *p)
{
    if (p->state != PROCESS_EXITED)
        return;
    if (p->outputs[0].fd < 0 && p->outputs[1].fd < 0)
        process_end(p);
}

/* ---- output ---- */

static void give(struct process *p, enum process_stream stream, struct str data)
{
    struct process_watch *w, *next;
    DL_FOREACH_SAFE(p->watches, w, next)
    if (!w->on_output(w->arg, stream, data))
        w->paused = true;
}

/* One piece. False when there is nothing more for now; at its end the output is closed. */
static bool output_read(struct output *o)
{
    ssize_t n = read(o->fd, piece, sizeof piece);
    if (n < 0 && errno == EINTR)
        return true;
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0) { /* a terminal's end is EIO */
        output_close(o);
        return false;
    }
    give(o->process, o->stream, str_make(piece, (size_t)n));
    return true;
}

static void on_output(void *arg, int fd, int events)
{
    struct output *o = arg;
    struct process *p = o->process;
    (void)fd;
    (void)events;
    for (int i = 0; i < READ_BUDGET; i++)
        if (!output_read(o) || any_paused(p))
            break;
    arm_outputs(p);
    end_if_over(p);
}

/* What the pipes hold when nobody waits for their end: at most their capacity, so no watcher's pause
 * matters. */
static void output_drain(struct output *o)
{
    for (int i = 0; i < READ_BUDGET && o->fd >= 0; i++)
        if (!output_read(o))
            return;
}

static void drain_and_end(struct process *p)
{
    output_drain(&p->outputs[0]);
    output_drain(&p->outputs[1]);
    process_end(p);
}

static void linger_over(struct process *p)
{
    if (any_paused(p))
        loop_timer_start(p->keep_timer, PAUSED_LOOK_MS);
    else
        drain_and_end(p);
}

/* ---- input ---- */

static void arm_stdin(struct process *p)
{
    if (p->stdin_io != NULL)
        loop_io_set(p->stdin_io, p->inputs != NULL ? LOOP_WRITE : 0);
    if (p->inputs == NULL && p->stdin_closing)
        stdin_close(p);
}

static void on_stdin(void *arg, int fd, int events)
{
    struct process *p = arg;
    struct input *in = p->inputs;
    (void)events;
    if (in == NULL) {
        arm_stdin(p);
        return;
    }
    ssize_t n = in->n > in->at ? write(fd, in->data + in->at, in->n - in->at) : 0;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        inputs_fail(p, "internal", "error writing to stdin: broken pipe");
        arm_stdin(p);
        return;
    }
    in->at += (size_t)n;
    if (in->at < in->n)
        return;
    DL_DELETE(p->inputs, in);
    p->input_bytes -= in->n;
    if (in->fn != NULL)
        in->fn(in->arg, NULL, NULL);
    free(in->data);
    free(in);
    arm_stdin(p);
}

int process_input(struct process *p, struct str data, process_done_fn *fn, void *arg, struct err *err)
{
    if (p->stdin_fd < 0 || p->stdin_closing)
        return err_set(err, ERR_CONFLICT, "stdin not enabled or closed");
    if (p->input_bytes + data.n > PROCESS_INPUT_MAX)
        return err_set(err, ERR_OVERLOADED, "too much input waits for the process");
    struct input *in = calloc(1, sizeof *in);
    if (in != NULL)
        in->data = str_dup(data);
    if (in == NULL || in->data == NULL) {
        free(in);
        return err_set(err, ERR_NO_MEMORY, "input");
    }
    in->n = data.n;
    in->fn = fn;
    in->arg = arg;
    DL_APPEND(p->inputs, in);
    p->input_bytes += data.n;
    arm_stdin(p);
    return 0;
}

int process_close_input(struct process *p)
{
    if (p->pty)
        return -1;
    if (p->stdin_fd < 0)
        return 0;
    p->stdin_closing = true;
    arm_stdin(p);
    return 0;
}

void process_input_forget(struct process *p, const void *arg)
{
    struct input *in;
    DL_FOREACH(p->inputs, in)
    if (in->arg == arg)
        in->fn = NULL;
}

/* ---- the supervisor's word ---- */

static void watch_output(struct process *p, int i, enum process_stream stream, int fd)
{
    fcntl(fd, F_SETFL, O_NONBLOCK);
    p->outputs[i] = (struct output){.process = p, .stream = stream, .fd = fd};
    p->outputs[i].io = loop_io_new(sandbox_loop(p->sandbox), fd, 0, on_output, &p->outputs[i]);
    if (p->outputs[i].io == NULL)
        output_close(&p->outputs[i]);
}

static void watch_stdin(struct process *p, int fd)
{
    if (fd < 0)
        return;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    p->stdin_fd = fd;
    p->stdin_io = loop_io_new(sandbox_loop(p->sandbox), fd, 0, on_stdin, p);
    if (p->stdin_io == NULL)
        stdin_close(p);
}

static void take_terminal(struct process *p, const int *fds, int fd_count)
{
    int input = fd_count == 1 ? fcntl(fds[0], F_DUPFD_CLOEXEC, 0) : -1;
    for (int i = 1; i < fd_count; i++)
        close(fds[i]);
    if (fd_count == 0)
        return;
    watch_output(p, 0, PROCESS_PTY, fds[0]);
    watch_stdin(p, input);
}

static void on_started(struct process *p, struct wire_reader *r, const int *fds, int fd_count)
{
    struct process_watch *w, *next;
    struct process *old;
    int64_t pid = wire_get_u32(r);
    old = process_by_pid(p->sandbox, pid);
    if (old != NULL && old->state == PROCESS_ENDED)
        process_free(old); /* the number is used again */
    p->pid = pid;
    p->state = PROCESS_RUNNING;
    if (p->pty)
        take_terminal(p, fds, fd_count);
    else
        for (int i = 0; i < fd_count; i++)
            close(fds[i]);
    DL_FOREACH_SAFE(p->watches, w, next) w->on_start(w->arg, pid);
    arm_outputs(p);
    arm_stdin(p);
}

static void on_exited(struct process *p, struct wire_reader *r)
{
    wire_get_u32(r);
    int status = (int)wire_get_u32(r);
    p->exit.exited = WIFEXITED(status);
    p->exit.code = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status);
    p->state = PROCESS_EXITED;
    note_usage(p);
    if (p->killed) {
        drain_and_end(p);
        return;
    }
    loop_timer_start(p->keep_timer, LINGER_MS);
    end_if_over(p);
}

static const char *fault_code(enum wire_fault fault)
{
    switch (fault) {
    case WIRE_FAULT_NO_USER:
        return "unauthenticated";
    case WIRE_FAULT_INVALID:
        return "invalid_argument";
    case WIRE_FAULT_LIMIT:
        return "resource_exhausted";
    case WIRE_FAULT_NOT_FOUND:
        return "not_found";
    case WIRE_FAULT_DENIED:
        return "permission_denied";
    case WIRE_FAULT_EXISTS:
    case WIRE_FAULT_NO_SPACE:
    case WIRE_FAULT_INTERNAL:
        break;
    }
    return "internal";
}

static void start_failed(struct process *p, const char *code, const char *text)
{
    inputs_fail(p, "not_found", "the process did not start");
    tell_end(p, NULL, code, text);
    process_free(p);
}

static void on_failed(struct process *p, struct wire_reader *r)
{
    const char *text;
    enum wire_fault fault = sandbox_fault(r, &text);
    start_failed(p, fault_code(fault), text);
}

static void on_answer(void *arg, int type, struct wire_reader *r, const int *fds, int fd_count, bool last)
{
    struct process *p = arg;
    if (last)
        p->ticket = 0;
    if (type == WIRE_STARTED && p->state == PROCESS_STARTING) {
        on_started(p, r, fds, fd_count);
        return;
    }
    for (int i = 0; i < fd_count; i++)
        close(fds[i]);
    if (type == WIRE_EXITED && p->state == PROCESS_RUNNING)
        on_exited(p, r);
    else if (type == WIRE_FAILED && p->state == PROCESS_STARTING)
        on_failed(p, r);
    else if (type == SANDBOX_CALL_LATE && p->state == PROCESS_STARTING)
        start_failed(p, "unavailable", "the sandbox does not answer");
    /* SANDBOX_CALL_OVER: processes_free follows */
}

/* ---- signals ---- */

static void ignore_answer(void *arg, int type, struct wire_reader *r, const int *fds, int fd_count, bool last)
{
    (void)arg;
    (void)type;
    (void)r;
    (void)last;
    for (int i = 0; i < fd_count; i++)
        close(fds[i]);
}

void process_note_kill(struct process *p)
{
    p->killed = true;
}

static void on_kill_timer(void *arg)
{
    struct process *p = arg;
    struct process_watch *w = p->starter;
    process_note_kill(p);
    if (p->state == PROCESS_EXITED) {
        drain_and_end(p);
        return;
    }
    if (p->state == PROCESS_RUNNING) {
        struct wire_writer *msg = sandbox_message(p->sandbox, WIRE_SIGNAL);
        wire_put_u32(msg, (uint32_t)p->pid);
        wire_put_u32(msg, SIGKILL);
        sandbox_send(p->sandbox, msg, NULL, 0, ignore_answer, NULL, NULL);
    }
    if (w != NULL) {
        watch_drop(w);
        w->on_end(w->arg, NULL, "deadline_exceeded", "the command's time limit is over");
    }
    arm_outputs(p);
    end_if_over(p);
}

/* ---- the start ---- */

static struct process *process_new(struct sandbox *s, const struct process_spec *spec, struct err *err)
{
    struct process *p = calloc(1, sizeof *p);
    struct loop *loop = sandbox_loop(s);
    struct cgroup_usage usage;
    if (p == NULL) {
        err_set(err, ERR_NO_MEMORY, "process");
        return NULL;
    }
    p->sandbox = s;
    p->pty = spec->pty;
    p->stdin_fd = p->outputs[0].fd = p->outputs[1].fd = -1;
    buf_init(&p->config, MAX_CONFIG);
    launch_describe(&p->config, spec);
    if (spec->has_tag)
        p->tag = str_dup(spec->tag);
    p->kill_timer = loop_timer_new(loop, on_kill_timer, p);
    p->keep_timer = loop_timer_new(loop, on_keep_over, p);
    cell_usage(sandbox_cell(s), &usage);
    p->oom_before = usage.oom_kills;
    if (p->kill_timer != NULL && p->keep_timer != NULL && !p->config.failed &&
        (p->tag != NULL || !spec->has_tag))
        return p;
    process_destroy(p);
    err_set(err, ERR_NO_MEMORY, "process");
    return NULL;
}

static int request_start(struct process *p, const struct process_spec *spec, struct err *err)
{
    struct launch_pipes pipes = {{-1, -1, -1}, {-1, -1, -1}};
    if (!spec->pty && launch_pipes_open(&pipes, spec->stdin_open, err) != 0)
        return -1;
    struct wire_writer *msg = sandbox_message(p->sandbox, WIRE_START);
    launch_put(msg, p->sandbox, spec);
    p->ticket = sandbox_send(p->sandbox, msg, pipes.theirs, spec->pty ? 0 : 3, on_answer, p, err);
    crypto_wipe(msg->buf, msg->len); /* it held the environment */
    if (p->ticket == 0) {
        launch_pipes_close(&pipes);
        return -1;
    }
    if (spec->pty)
        return 0;
    for (int i = 0; i < 3; i++)
        close(pipes.theirs[i]);
    watch_stdin(p, pipes.ours[0]);
    watch_output(p, 0, PROCESS_STDOUT, pipes.ours[1]);
    watch_output(p, 1, PROCESS_STDERR, pipes.ours[2]);
    return 0;
}

int process_start(struct sandbox *s, const struct process_spec *spec, struct process_watch *watch,
                  struct err *err)
{
    struct process *p = process_new(s, spec, err);
    if (p == NULL)
        return -1;
    if (request_start(p, spec, err) != 0) {
        process_destroy(p);
        return -1;
    }
    DL_APPEND(*sandbox_processes(s), p);
    sandbox_count_program(s);
    process_follow(p, watch);
    p->starter = watch;
    if (spec->kill_after_ms > 0)
        loop_timer_start(p->kill_timer, spec->kill_after_ms);
    return 0;
}

/* ---- finding ---- */

struct process *process_by_pid(struct sandbox *s, int64_t pid)
{
    struct process *p;
    DL_FOREACH(*sandbox_processes(s), p)
    if (p->state != PROCESS_STARTING && p->pid == pid)
        return p;
    return NULL;
}

struct process *process_by_tag(struct sandbox *s, struct str tag)
{
    struct process *p, *ended = NULL;
    DL_FOREACH(*sandbox_processes(s), p)
    {
        if (p->state == PROCESS_STARTING || p->tag == NULL || !str_eq_c(tag, p->tag))
            continue;
        if (p->state != PROCESS_ENDED)
            return p;
        ended = p;
    }
    return ended;
}

struct process *process_next(struct sandbox *s, const struct process *after)
{
    struct process *p = after != NULL ? after->next : *sandbox_processes(s);
    while (p != NULL && p->state != PROCESS_RUNNING && p->state != PROCESS_EXITED)
        p = p->next;
    return p;
}

int64_t process_pid(const struct process *p)
{
    return p->pid;
}

struct str process_config(const struct process *p)
{
    return buf_view(&p->config);
}

bool process_tag(const struct process *p, struct str *out)
{
    *out = str_of(p->tag);
    return p->tag != NULL;
}

const struct process_exit *process_ended(const struct process *p)
{
    return p->state == PROCESS_ENDED ? &p->exit : NULL;
}
