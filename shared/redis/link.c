/* The link: hiredis's asynchronous context on our loop, connecting, greeting, and connecting again.
 *
 *     BACKOFF ──timer──▶ CONNECTING ──connected──▶ GREETING ──AUTH, SELECT, PING … answered──▶ UP
 *        ▲                    │                       │                                        │
 *        └────────────────────┴─────────── lost() ────┴────────────────────────────────────────┘
 *
 * hiredis frees its context by itself when a connection fails, from inside redisAsyncHandleRead/Write, after
 * calling every pending callback with a NULL reply. We learn of it by `cleanup` (which every free calls, last
 * but onDisconnect) and handle it at the top of our own callback, when hiredis has returned. When we want it
 * gone, redis_link_doom posts a task, so a context is never freed under its own callback.
 *
 * Writing: hiredis asks for a writable event after each command. The socket nearly always is writable, so a
 * task at the end of the turn writes what has gathered, and the watcher is used only for what did not fit. */
#include "redis/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/id.h"
#include "base/log.h"
#include "redis/url.h"

enum { DEFAULT_CONNECT_MS = 2000, BACKOFF_FIRST_MS = 50, BACKOFF_MOST_MS = 1000 };

enum link_state { LINK_BACKOFF, LINK_CONNECTING, LINK_GREETING, LINK_UP };

struct redis_link {
    struct loop *loop;
    struct redis_url url;
    char *name;
    int64_t connect_timeout_ms;
    struct redis_link_events events;
    void *arg;
    enum link_state state;
    redisAsyncContext *ac; /* hiredis's; NULL once it is freed */
    struct loop_io *io;
    int watched;
    struct loop_timer *timer; /* backoff, or the limit on connecting and greeting */
    struct loop_task write_task, doom_task;
    bool writing; /* inside the write task */
    bool doomed;
    int greetings; /* answers that are still due */
    unsigned failures;
    char trouble[160];
    int callbacks;
    bool closing;
};

static void destroy(struct redis_link *l);
static void lost(struct redis_link *l);

static void enter(struct redis_link *l, enum link_state next)
{
    static const unsigned allowed[] = {
        [LINK_BACKOFF] = 1u << LINK_CONNECTING,
        [LINK_CONNECTING] = 1u << LINK_GREETING | 1u << LINK_BACKOFF,
        [LINK_GREETING] = 1u << LINK_UP | 1u << LINK_BACKOFF,
        [LINK_UP] = 1u << LINK_BACKOFF,
    };
    INVARIANT((allowed[l->state] & 1u << next) != 0);
    l->state = next;
}

void redis_link_enter(struct redis_link *l)
{
    l->callbacks++;
}

void redis_link_leave(struct redis_link *l)
{
    if (--l->callbacks > 0)
        return;
    if (l->closing)
        destroy(l);
}

/* The end of every loop callback that ran hiredis. */
static void leave_after_hiredis(struct redis_link *l)
{
    if (l->ac == NULL && l->state != LINK_BACKOFF && !l->closing)
        lost(l);
    redis_link_leave(l);
}

static void note_trouble(struct redis_link *l, const char *why)
{
    str_copy(str_make(why, strnlen(why, sizeof l->trouble - 1)), l->trouble, sizeof l->trouble);
}

/* ---- losing a connection ---- */

static void drop_context(struct redis_link *l)
{
    redisAsyncContext *ac = l->ac;
    if (ac != NULL)
        redisAsyncFree(ac); /* calls what is pending with NULL, then on_cleanup */
    INVARIANT(l->ac == NULL);
    loop_task_cancel(l->loop, &l->doom_task);
    loop_task_cancel(l->loop, &l->write_task);
    l->doomed = false;
}

static int64_t backoff_ms(unsigned failures)
{
    int64_t most = BACKOFF_FIRST_MS;
    for (unsigned i = 1; i < failures && most < BACKOFF_MOST_MS; i++)
        most *= 2;
    most = most < BACKOFF_MOST_MS ? most : BACKOFF_MOST_MS;
    uint32_t random;
    random_bytes(&random, sizeof random);
    return most / 2 + random % (uint32_t)(most / 2 + 1);
}

/* At the top of a loop callback: the context is gone or goes now. */
static void lost(struct redis_link *l)
{
    log_debug("redis connection lost", LF_STR("why", l->trouble));
    drop_context(l);
    l->failures++;
    enter(l, LINK_BACKOFF);
    loop_timer_start(l->timer, backoff_ms(l->failures));
    l->events.down(l->arg);
}

static void doomed_turn(void *arg)
{
    struct redis_link *l = arg;
    redis_link_enter(l);
    if (l->state != LINK_BACKOFF && !l->closing)
        lost(l);
    redis_link_leave(l);
}

void redis_link_doom(struct redis_link *l, const char *why)
{
    if (l->doomed || l->state == LINK_BACKOFF)
        return;
    l->doomed = true;
    note_trouble(l, why);
    loop_task_post(l->loop, &l->doom_task, doomed_turn, l);
}

/* ---- hiredis's hooks ---- */

static void watch(struct redis_link *l, int events)
{
    l->watched = events;
    if (l->io != NULL)
        loop_io_set(l->io, events);
}

static void add_read(void *arg)
{
    struct redis_link *l = arg;
    watch(l, l->watched | LOOP_READ);
}

static void del_read(void *arg)
{
    struct redis_link *l = arg;
    watch(l, l->watched & ~LOOP_READ);
}

static void write_turn(void *arg)
{
    struct redis_link *l = arg;
    redis_link_enter(l);
    l->writing = true;
    redisAsyncHandleWrite(l->ac);
    l->writing = false;
    leave_after_hiredis(l);
}

static void add_write(void *arg)
{
    struct redis_link *l = arg;
    bool connected = l->state >= LINK_GREETING && l->ac != NULL;
    if (!connected || l->writing)
        watch(l, l->watched | LOOP_WRITE);
    else if ((l->watched & LOOP_WRITE) == 0)
        loop_task_post(l->loop, &l->write_task, write_turn, l);
}

static void del_write(void *arg)
{
    struct redis_link *l = arg;
    watch(l, l->watched & ~LOOP_WRITE);
}

/* hiredis frees the context after this. */
static void on_cleanup(void *arg)
{
    struct redis_link *l = arg;
    if (l->ac != NULL && l->ac->err != 0 && !l->doomed)
        note_trouble(l, l->ac->errstr);
    loop_io_free(&l->io);
    loop_task_cancel(l->loop, &l->write_task);
    l->ac = NULL;
}

static void on_io(void *arg, int fd, int events)
{
    (void)fd;
    struct redis_link *l = arg;
    redis_link_enter(l);
    if ((events & LOOP_READ) != 0)
        redisAsyncHandleRead(l->ac);
    if ((events & LOOP_WRITE) != 0 && l->ac != NULL)
        redisAsyncHandleWrite(l->ac);
    leave_after_hiredis(l);
}

/* ---- greeting ---- */

static void greeted(struct redis_link *l)
{
    loop_timer_stop(l->timer);
    enter(l, LINK_UP);
    l->failures = 0;
    l->trouble[0] = '\0';
    l->events.up(l->arg);
}

/* An error that means that this server does not serve us now, whichever command it answers. */
static bool is_refusal(const redisReply *r)
{
    return strncmp(r->str, "LOADING", 7) == 0 || strncmp(r->str, "NOAUTH", 6) == 0;
}

static void on_greeting(redisAsyncContext *ac, void *reply, void *optional)
{
    struct redis_link *l = ac->data;
    const redisReply *r = reply;
    if (r == NULL || l->doomed || l->closing)
        return;
    if (r->type == REDIS_REPLY_ERROR && (optional == NULL || is_refusal(r))) {
        redis_link_doom(l, r->str);
        return;
    }
    if (--l->greetings == 0)
        greeted(l);
}

static void greet(struct redis_link *l, bool optional, int argc, const char **argv)
{
    l->greetings++;
    if (redisAsyncCommandArgv(l->ac, on_greeting, optional ? l : NULL, argc, argv, NULL) != REDIS_OK)
        redis_link_doom(l, "the greeting cannot be sent");
}

static void start_greeting(struct redis_link *l)
{
    char db[16];
    snprintf(db, sizeof db, "%d", l->url.db);
    enter(l, LINK_GREETING);
    l->greetings = 0;
    if (l->url.password != NULL && l->url.user != NULL)
        greet(l, false, 3, (const char *[]){"AUTH", l->url.user, l->url.password});
    else if (l->url.password != NULL)
        greet(l, false, 2, (const char *[]){"AUTH", l->url.password});
    if (l->url.db != 0)
        greet(l, false, 2, (const char *[]){"SELECT", db});
    /* Missing rights to these do not matter, but a server that refuses clients, or is still loading its data
     * or wants a password (which PING tells), is not one to be connected to. */
    greet(l, true, 3, (const char *[]){"CLIENT", "SETNAME", l->name});
    greet(l, true, 1, (const char *[]){"PING"});
}

static void on_connect(const redisAsyncContext *ac, int status)
{
    struct redis_link *l = ac->data;
    if (status == REDIS_OK && !l->closing)
        start_greeting(l);
}

/* ---- connecting ---- */

static void attach(struct redis_link *l, redisAsyncContext *ac)
{
    l->ac = ac;
    ac->data = l;
    ac->ev.data = l;
    ac->ev.addRead = add_read;
    ac->ev.delRead = del_read;
    ac->ev.addWrite = add_write;
    ac->ev.delWrite = del_write;
    ac->ev.cleanup = on_cleanup;
    l->watched = 0;
    l->io = loop_io_new(l->loop, ac->c.fd, 0, on_io, l);
    if (l->url.path == NULL)
        redisEnableKeepAlive(&ac->c);
    redisAsyncSetConnectCallback(ac, on_connect); /* asks for a writable event */
}

static void start_connecting(struct redis_link *l)
{
    enter(l, LINK_CONNECTING);
    loop_timer_start(l->timer, l->connect_timeout_ms);
    redisAsyncContext *ac = l->url.path != NULL ? redisAsyncConnectUnix(l->url.path)
                                                : redisAsyncConnect(l->url.host, l->url.port);
    if (ac == NULL || ac->err != 0) {
        redis_link_doom(l, ac != NULL ? ac->errstr : "no memory");
        if (ac != NULL)
            redisAsyncFree(ac); /* no hooks, no callbacks yet */
        return;
    }
    attach(l, ac);
    if (l->io == NULL)
        redis_link_doom(l, "no memory");
}

static void on_timer(void *arg)
{
    struct redis_link *l = arg;
    redis_link_enter(l);
    if (l->state == LINK_BACKOFF) {
        start_connecting(l);
    } else if (l->state != LINK_UP) {
        note_trouble(l, "connecting took too long");
        lost(l);
    }
    redis_link_leave(l);
}

/* ---- opening and closing ---- */

static int init(struct redis_link *l, const struct redis_options *options, struct err *err)
{
    if (redis_url_parse(str_of(options->url), &l->url, err) != 0)
        return -1;
    l->name = strdup(options->name != NULL ? options->name : "sandpiper");
    l->timer = loop_timer_new(l->loop, on_timer, l);
    if (l->name == NULL || l->timer == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory for a Redis connection");
    loop_timer_start(l->timer, 0); /* state BACKOFF: connects in the loop's first turn */
    return 0;
}

static void link_free(struct redis_link *l)
{
    drop_context(l);
    loop_timer_free(&l->timer);
    redis_url_deinit(&l->url);
    free(l->name);
    free(l);
}

struct redis_link *redis_link_open(struct loop *loop, const struct redis_options *options,
                                   const struct redis_link_events *events, void *arg, struct err *err)
{
    struct redis_link *l = calloc(1, sizeof *l);
    if (l == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory for a Redis connection");
        return NULL;
    }
    l->loop = loop;
    l->events = *events;
    l->arg = arg;
    l->connect_timeout_ms =
        options->connect_timeout_ms > 0 ? options->connect_timeout_ms : DEFAULT_CONNECT_MS;
    if (init(l, options, err) != 0) {
        link_free(l);
        return NULL;
    }
    return l;
}

static void destroy(struct redis_link *l)
{
    void (*gone)(void *arg) = l->events.gone;
    void *arg = l->arg;
    link_free(l);
    gone(arg);
}

void redis_link_close(struct redis_link *l)
{
    l->closing = true;
    if (l->callbacks == 0)
        destroy(l);
}

redisAsyncContext *redis_link_context(const struct redis_link *l)
{
    return l->state == LINK_UP && !l->doomed && !l->closing ? l->ac : NULL;
}

const char *redis_link_trouble(const struct redis_link *l)
{
    return l->trouble[0] != '\0' ? l->trouble : "not connected yet";
}
