/* libev's watchers wrapped, each allocated on its own.
 *
 * libev allows stopping a watcher inside its own callback and clears pending events on stop, so freeing there
 * is safe. Timers use ev_now, which is the time of the turn's start: arming updates it first when it may be
 * stale (more than a millisecond of work in this turn). The task queue drains in a prepare watcher; while it
 * is not empty an idle watcher keeps the loop from blocking. */
#include "loop/loop.h"

#include <ev.h>
#include <stdlib.h>

struct loop {
    struct ev_loop *ev;
    struct loop_task *tasks, **tasks_end;
    ev_prepare prepare;
    ev_idle idle;
};

struct loop_io {
    ev_io w;
    struct loop *loop;
    loop_io_fn *fn;
    void *arg;
};

struct loop_timer {
    ev_timer w;
    struct loop *loop;
    loop_timer_fn *fn;
    void *arg;
};

struct loop_signal {
    ev_signal w;
    struct loop *loop;
    loop_signal_fn *fn;
    void *arg;
};

struct loop_wake {
    ev_async w;
    struct loop *loop;
    loop_task_fn *fn;
    void *arg;
};

/* ---- tasks ---- */

static void task_unlink(struct loop *loop, struct loop_task *t)
{
    *t->pprev = t->next;
    if (t->next != NULL)
        t->next->pprev = t->pprev;
    else if (loop->tasks_end == &t->next)
        loop->tasks_end = t->pprev;
    t->next = NULL;
    t->pprev = NULL;
}

/* Runs what was posted before this turn's end; a fence task marks where the new posts begin. */
static void tasks_run(struct ev_loop *ev, ev_prepare *w, int revents)
{
    (void)revents;
    struct loop *loop = w->data;
    if (loop->tasks == NULL)
        return;
    struct loop_task fence = {.pprev = loop->tasks_end};
    *loop->tasks_end = &fence;
    loop->tasks_end = &fence.next;
    while (loop->tasks != &fence) {
        struct loop_task *t = loop->tasks;
        task_unlink(loop, t);
        t->fn(t->arg);
    }
    task_unlink(loop, &fence);
    if (loop->tasks == NULL)
        ev_idle_stop(ev, &loop->idle);
    else
        ev_idle_start(ev, &loop->idle);
}

static void idle_nop(struct ev_loop *ev, ev_idle *w, int revents)
{
    (void)ev, (void)w, (void)revents;
}

void loop_task_post(struct loop *loop, struct loop_task *task, loop_task_fn *fn, void *arg)
{
    if (task->pprev != NULL)
        return;
    task->fn = fn;
    task->arg = arg;
    task->next = NULL;
    task->pprev = loop->tasks_end;
    *loop->tasks_end = task;
    loop->tasks_end = &task->next;
}

void loop_task_cancel(struct loop *loop, struct loop_task *task)
{
    if (task->pprev != NULL)
        task_unlink(loop, task);
}

/* ---- the loop ---- */

struct loop *loop_new(void)
{
    struct loop *loop = calloc(1, sizeof *loop);
    if (loop == NULL)
        return NULL;
    /* Not the default loop: that one waits for every child of the process, and who starts children wants to.
     */
    loop->ev = ev_loop_new(EVFLAG_AUTO);
    if (loop->ev == NULL) {
        free(loop);
        return NULL;
    }
    loop->tasks_end = &loop->tasks;
    ev_prepare_init(&loop->prepare, tasks_run);
    loop->prepare.data = loop;
    ev_set_priority(&loop->prepare, EV_MINPRI); /* after every other prepare watcher */
    ev_prepare_start(loop->ev, &loop->prepare);
    ev_idle_init(&loop->idle, idle_nop);
    return loop;
}

void loop_free(struct loop **loop)
{
    if (loop == NULL || *loop == NULL)
        return;
    struct loop *l = *loop;
    ev_idle_stop(l->ev, &l->idle);
    ev_prepare_stop(l->ev, &l->prepare);
    ev_loop_destroy(l->ev);
    free(l);
    *loop = NULL;
}

void loop_run(struct loop *loop)
{
    ev_run(loop->ev, 0);
}

void loop_stop(struct loop *loop)
{
    ev_break(loop->ev, EVBREAK_ALL);
}

mono_t loop_now(const struct loop *loop)
{
    (void)loop;
    return mono_now(); /* a vDSO read: about 25 ns, and never stale */
}

/* ---- descriptors ---- */

static int to_ev(int events)
{
    return ((events & LOOP_READ) != 0 ? EV_READ : 0) | ((events & LOOP_WRITE) != 0 ? EV_WRITE : 0);
}

static void io_fire(struct ev_loop *ev, ev_io *w, int revents)
{
    (void)ev;
    struct loop_io *io = w->data;
    int events = ((revents & EV_READ) != 0 ? LOOP_READ : 0) | ((revents & EV_WRITE) != 0 ? LOOP_WRITE : 0);
    io->fn(io->arg, w->fd, events);
}

struct loop_io *loop_io_new(struct loop *loop, int fd, int events, loop_io_fn *fn, void *arg)
{
    struct loop_io *io = calloc(1, sizeof *io);
    if (io == NULL)
        return NULL;
    *io = (struct loop_io){.loop = loop, .fn = fn, .arg = arg};
    ev_io_init(&io->w, io_fire, fd, to_ev(events));
    io->w.data = io;
    if (events != 0)
        ev_io_start(loop->ev, &io->w);
    return io;
}

void loop_io_set(struct loop_io *io, int events)
{
    int want = to_ev(events), have = ev_is_active(&io->w) ? io->w.events & (EV_READ | EV_WRITE) : 0;
    if (want == have)
        return;
    int fd = io->w.fd;
    ev_io_stop(io->loop->ev, &io->w);
    ev_io_set(&io->w, fd, want);
    if (want != 0)
        ev_io_start(io->loop->ev, &io->w);
}

void loop_io_free(struct loop_io **io)
{
    if (io == NULL || *io == NULL)
        return;
    ev_io_stop((*io)->loop->ev, &(*io)->w);
    free(*io);
    *io = NULL;
}

/* ---- timers ---- */

static void timer_fire(struct ev_loop *ev, ev_timer *w, int revents)
{
    (void)ev, (void)revents;
    struct loop_timer *t = w->data;
    t->fn(t->arg);
}

struct loop_timer *loop_timer_new(struct loop *loop, loop_timer_fn *fn, void *arg)
{
    struct loop_timer *t = calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    *t = (struct loop_timer){.loop = loop, .fn = fn, .arg = arg};
    ev_init(&t->w, timer_fire);
    t->w.data = t;
    return t;
}

/* Relative timers count from libev's cached time: refresh it once it is a millisecond old. */
static void arm(struct loop_timer *t, double after, double repeat)
{
    struct ev_loop *ev = t->loop->ev;
    ev_timer_stop(ev, &t->w);
    if (ev_time() - ev_now(ev) > 0.001)
        ev_now_update(ev);
    ev_timer_set(&t->w, after, repeat);
    ev_timer_start(ev, &t->w);
}

void loop_timer_start(struct loop_timer *t, int64_t ms)
{
    arm(t, (double)(ms > 0 ? ms : 0) / 1000.0, 0.0);
}

void loop_timer_every(struct loop_timer *t, int64_t ms)
{
    double sec = (double)(ms > 1 ? ms : 1) / 1000.0;
    arm(t, sec, sec);
}

void loop_timer_stop(struct loop_timer *t)
{
    ev_timer_stop(t->loop->ev, &t->w);
}

bool loop_timer_active(const struct loop_timer *t)
{
    return ev_is_active(&t->w);
}

void loop_timer_free(struct loop_timer **t)
{
    if (t == NULL || *t == NULL)
        return;
    ev_timer_stop((*t)->loop->ev, &(*t)->w);
    free(*t);
    *t = NULL;
}

/* ---- signals ---- */

static void signal_fire(struct ev_loop *ev, ev_signal *w, int revents)
{
    (void)ev, (void)revents;
    struct loop_signal *s = w->data;
    s->fn(s->arg, w->signum);
}

struct loop_signal *loop_signal_new(struct loop *loop, int signum, loop_signal_fn *fn, void *arg)
{
    struct loop_signal *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    *s = (struct loop_signal){.loop = loop, .fn = fn, .arg = arg};
    ev_signal_init(&s->w, signal_fire, signum);
    s->w.data = s;
    ev_signal_start(loop->ev, &s->w);
    return s;
}

void loop_signal_free(struct loop_signal **s)
{
    if (s == NULL || *s == NULL)
        return;
    ev_signal_stop((*s)->loop->ev, &(*s)->w);
    free(*s);
    *s = NULL;
}

/* ---- wake-ups from other threads ---- */

static void wake_fire(struct ev_loop *ev, ev_async *w, int revents)
{
    (void)ev, (void)revents;
    struct loop_wake *wake = w->data;
    wake->fn(wake->arg);
}

struct loop_wake *loop_wake_new(struct loop *loop, loop_task_fn *fn, void *arg)
{
    struct loop_wake *w = calloc(1, sizeof *w);
    if (w == NULL)
        return NULL;
    *w = (struct loop_wake){.loop = loop, .fn = fn, .arg = arg};
    ev_async_init(&w->w, wake_fire);
    w->w.data = w;
    ev_async_start(loop->ev, &w->w);
    return w;
}

void loop_wake_send(struct loop_wake *w)
{
    ev_async_send(w->loop->ev, &w->w);
}

void loop_wake_free(struct loop_wake **w)
{
    if (w == NULL || *w == NULL)
        return;
    ev_async_stop((*w)->loop->ev, &(*w)->w);
    free(*w);
    *w = NULL;
}
