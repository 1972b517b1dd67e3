/* Commands: requests that wait for their answers in the order of sending, with a deadline each.
 *
 * A request is hiredis's private data until hiredis calls back, so it lives until then, detached or expired;
 * only its user callback goes early. Lists: `sent` (hiredis holds it) and `due` (to be failed from the loop:
 * refused while disconnected, or lost with its connection). When a context goes, hiredis calls all pending
 * callbacks with NULL: they move to `due`, and the users hear of it only when the link has settled.
 *
 * One timer serves all deadlines: armed for the earliest, it scans `sent`. An expired request that still has
 * no answer after a further second, with nothing else answered in between, condemns the connection. */
#include "redis/redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "redis/link.h"

enum { DEFAULT_PENDING = 10000, QUIET_MS = 1000, SCAN_EVERY_MS = 5, SMALL_ARGC = 32 };

TAILQ_HEAD(request_list, redis_request);

struct redis_request {
    TAILQ_ENTRY(redis_request) link;
    struct request_list *list; /* NULL while its callback runs */
    struct redis *redis;
    mono_t deadline;
    bool expired;
    redis_done_fn *done; /* NULL: detached, expired or not wanted */
    void *arg;
    struct err err; /* on `due`: what to tell */
    /* a script's call, kept until we know that Redis has the script */
    struct redis_script *script;
    char *blob; /* the arguments' bytes */
    struct str *argv;
    int argc;
};

struct redis {
    struct loop *loop;
    struct redis_link *link;
    struct redis_options options;
    bool up;        /* on_state(true) was told */
    bool said_down; /* on_state(false) was told, and nothing since */
    struct request_list sent, due;
    int pending;
    struct loop_task due_task;
    struct loop_timer *timer;
    int64_t armed_us; /* INT64_MAX: not */
    mono_t last_answer;
    bool closing;
};

/* ---- requests ---- */

static void request_free(struct redis_request *q)
{
    free(q->argv);
    free(q->blob);
    free(q);
}

static void enlist(struct redis_request *q, struct request_list *list)
{
    TAILQ_INSERT_TAIL(list, q, link);
    q->list = list;
}

static void unlist(struct redis_request *q)
{
    TAILQ_REMOVE(q->list, q, link);
    q->list = NULL;
}

/* Calls back and frees; q is on no list. */
static void finish(struct redis_request *q, const struct redis_reply *reply, const struct err *err)
{
    q->redis->pending--;
    if (q->done != NULL)
        q->done(q->arg, reply, err);
    request_free(q);
}

static void fail_due(struct redis *r)
{
    struct redis_request *q;
    while ((q = TAILQ_FIRST(&r->due)) != NULL) {
        unlist(q);
        finish(q, NULL, &q->err);
    }
}

static void due_turn(void *arg)
{
    struct redis *r = arg;
    struct redis_link *l = r->link;
    redis_link_enter(l);
    fail_due(r);
    redis_link_leave(l);
}

/* From the loop, q will fail with q->err. */
static void fail_later(struct redis_request *q)
{
    enlist(q, &q->redis->due);
    loop_task_post(q->redis->loop, &q->redis->due_task, due_turn, q->redis);
}

/* ---- deadlines ---- */

static void arm(struct redis *r, int64_t us)
{
    if (us >= r->armed_us)
        return;
    r->armed_us = us;
    int64_t left = us - loop_now(r->loop).us;
    loop_timer_start(r->timer, left > 0 ? (left + 999) / 1000 : 0);
}

/* When the connection has been silent for too long on account of an expired request. */
static int64_t condemned_at(const struct redis *r, const struct redis_request *q)
{
    mono_t since = mono_before(q->deadline, r->last_answer) ? r->last_answer : q->deadline;
    return mono_add_ms(since, QUIET_MS).us;
}

/* Expires what is late; returns when to look again. */
static int64_t scan(struct redis *r, mono_t now, bool *condemned)
{
    struct redis_request *q;
    struct err err;
    int64_t next = INT64_MAX;
    err_set(&err, ERR_TIMEOUT, "Redis did not answer in time");
    TAILQ_FOREACH(q, &r->sent, link)
    {
        if (!q->expired && q->deadline.us <= now.us) {
            redis_done_fn *done = q->done;
            q->expired = true;
            q->done = NULL;
            if (done != NULL)
                done(q->arg, NULL, &err);
        }
        int64_t at = q->expired ? condemned_at(r, q) : q->deadline.us;
        *condemned = *condemned || (q->expired && at <= now.us);
        next = at < next ? at : next;
    }
    return next;
}

static void on_timer(void *arg)
{
    struct redis *r = arg;
    struct redis_link *l = r->link;
    mono_t now = loop_now(r->loop);
    bool condemned = false;
    redis_link_enter(l);
    r->armed_us = INT64_MAX;
    int64_t next = scan(r, now, &condemned);
    if (condemned)
        redis_link_doom(l, "Redis answers nothing");
    int64_t soonest = mono_add_ms(now, SCAN_EVERY_MS).us; /* many deadlines close together cost one scan */
    if (next != INT64_MAX)
        arm(r, next > soonest ? next : soonest);
    redis_link_leave(l);
}

/* ---- sending and answers ---- */

static void on_answer(redisAsyncContext *ac, void *reply, void *arg);

/* Gives the command to hiredis. */
static bool send_argv(struct redis_request *q, const struct str *argv, int argc)
{
    const char *small_ptr[SMALL_ARGC], **ptr = small_ptr;
    size_t small_len[SMALL_ARGC], *len = small_len;
    void *big = NULL;
    if (argc > SMALL_ARGC) {
        big = malloc((size_t)argc * (sizeof *ptr + sizeof *len));
        if (big == NULL)
            return false;
        ptr = big;
        len = (size_t *)(void *)(ptr + argc);
    }
    for (int i = 0; i < argc; i++) {
        ptr[i] = argv[i].n != 0 ? argv[i].p : "";
        len[i] = argv[i].n;
    }
    redisAsyncContext *ac = redis_link_context(q->redis->link);
    bool ok = ac != NULL && redisAsyncCommandArgv(ac, on_answer, q, argc, ptr, len) == REDIS_OK;
    free(big);
    return ok;
}

static void send_or_fail(struct redis_request *q, const struct str *argv, int argc)
{
    struct redis *r = q->redis;
    if (send_argv(q, argv, argc)) {
        enlist(q, &r->sent);
        arm(r, q->deadline.us);
        return;
    }
    err_set(&q->err, ERR_REDIS, "no connection to Redis: %s", redis_link_trouble(r->link));
    fail_later(q);
}

/* Redis does not have the script: once more with its text. */
static void send_script_text(struct redis_request *q)
{
    q->argv[0] = STR("EVAL");
    q->argv[1] = str_of(q->script->body);
    q->script = NULL;
    send_or_fail(q, q->argv, q->argc);
}

static bool lacks_script(const struct redis_request *q, const redisReply *reply)
{
    return q->script != NULL && strncmp(reply->str, "NOSCRIPT", 8) == 0;
}

static void take_answer(struct redis_request *q, const redisReply *reply)
{
    struct err err;
    if (reply->type != REDIS_REPLY_ERROR) {
        finish(q, (const struct redis_reply *)(const void *)reply, NULL);
        return;
    }
    if (lacks_script(q, reply) && !q->expired) {
        send_script_text(q);
        return;
    }
    err_set(&err, ERR_REDIS, "%.*s", (int)(reply->len < 200 ? reply->len : 200), reply->str);
    finish(q, NULL, &err);
}

static void on_answer(redisAsyncContext *ac, void *reply, void *arg)
{
    (void)ac;
    struct redis_request *q = arg;
    struct redis *r = q->redis;
    unlist(q);
    if (reply == NULL) { /* the context goes away; on_down fails them, or nobody when we are closing */
        err_set(&q->err, ERR_OUTCOME_UNKNOWN, "the Redis connection was lost before the answer");
        enlist(q, &r->due);
        return;
    }
    r->last_answer = loop_now(r->loop);
    take_answer(q, reply);
}

/* ---- the link's events ---- */

static void on_up(void *arg)
{
    struct redis *r = arg;
    r->up = true;
    r->said_down = false;
    r->last_answer = loop_now(r->loop);
    if (r->options.on_state != NULL)
        r->options.on_state(r->options.arg, true);
}

static void on_down(void *arg)
{
    struct redis *r = arg;
    bool said_down = r->said_down;
    r->up = false;
    r->said_down = true;
    fail_due(r);
    if (!said_down && !r->closing && r->options.on_state != NULL)
        r->options.on_state(r->options.arg, false);
}

static void on_gone(void *arg)
{
    struct redis *r = arg;
    struct redis_request *q;
    loop_task_cancel(r->loop, &r->due_task);
    while ((q = TAILQ_FIRST(&r->due)) != NULL) {
        unlist(q);
        request_free(q);
    }
    loop_timer_free(&r->timer);
    free(r);
}

static const struct redis_link_events events = {.up = on_up, .down = on_down, .gone = on_gone};

/* ---- the public calls ---- */

struct redis *redis_open(struct loop *loop, const struct redis_options *options, struct err *err)
{
    struct redis *r = calloc(1, sizeof *r);
    if (r != NULL)
        r->timer = loop_timer_new(loop, on_timer, r);
    if (r == NULL || r->timer == NULL) {
        free(r);
        err_set(err, ERR_NO_MEMORY, "no memory for a Redis connection");
        return NULL;
    }
    r->loop = loop;
    r->options = *options;
    r->options.url = r->options.name = NULL; /* kept by the link */
    if (r->options.max_pending <= 0)
        r->options.max_pending = DEFAULT_PENDING;
    r->armed_us = INT64_MAX;
    TAILQ_INIT(&r->sent);
    TAILQ_INIT(&r->due);
    r->link = redis_link_open(loop, options, &events, r, err);
    if (r->link == NULL) {
        loop_timer_free(&r->timer);
        free(r);
        return NULL;
    }
    return r;
}

static void detach_all(struct request_list *list)
{
    struct redis_request *q;
    TAILQ_FOREACH(q, list, link)
    q->done = NULL;
}

void redis_close(struct redis **r)
{
    if (r == NULL || *r == NULL)
        return;
    struct redis *redis = *r;
    *r = NULL;
    redis->closing = true;
    detach_all(&redis->sent);
    detach_all(&redis->due);
    redis_link_close(redis->link);
}

bool redis_connected(const struct redis *r)
{
    return r->up;
}

int redis_socket(const struct redis *r)
{
    const redisAsyncContext *ac = redis_link_context(r->link);
    return ac != NULL ? ac->c.fd : -1;
}

int redis_pending(const struct redis *r)
{
    return r->pending;
}

static struct redis_request *request_new(struct redis *r, int64_t timeout_ms, redis_done_fn *done, void *arg,
                                         struct err *err)
{
    if (r->pending >= r->options.max_pending) {
        err_set(err, ERR_OVERLOADED, "too many commands wait for Redis");
        return NULL;
    }
    struct redis_request *q = calloc(1, sizeof *q);
    if (q == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory for a Redis command");
        return NULL;
    }
    q->redis = r;
    q->deadline = mono_add_ms(loop_now(r->loop), timeout_ms > 0 ? timeout_ms : 1);
    q->done = done;
    q->arg = arg;
    return q;
}

struct redis_request *redis_command(struct redis *r, const struct str *argv, int argc, int64_t timeout_ms,
                                    redis_done_fn *done, void *arg, struct err *err)
{
    INVARIANT(argc > 0);
    struct redis_request *q = request_new(r, timeout_ms, done, arg, err);
    if (q == NULL)
        return NULL;
    r->pending++;
    send_or_fail(q, argv, argc);
    return q;
}

void redis_cancel(struct redis_request **req)
{
    if (req == NULL || *req == NULL)
        return;
    (*req)->done = NULL;
    *req = NULL;
}

/* ---- scripts: EVALSHA with a name that Redis itself told, so no SHA-1 is needed here ---- */

static size_t total_bytes(const struct str *v, int n)
{
    size_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += v[i].n;
    return sum;
}

static char *append_copies(struct str *to, char *at, const struct str *from, int n)
{
    for (int i = 0; i < n; i++) {
        if (from[i].n != 0)
            memcpy(at, from[i].p, from[i].n);
        to[i] = str_make(at, from[i].n);
        at += from[i].n;
    }
    return at;
}

/* Keeps the whole call in the request: it may have to be sent twice. */
static bool keep_call(struct redis_request *q, const struct str *keys, int nkeys, const struct str *args,
                      int nargs)
{
    char count[16];
    int digits = snprintf(count, sizeof count, "%d", nkeys);
    struct str number = str_make(count, (size_t)digits);
    q->argc = 3 + nkeys + nargs;
    q->argv = calloc((size_t)q->argc, sizeof *q->argv);
    q->blob = malloc(number.n + total_bytes(keys, nkeys) + total_bytes(args, nargs));
    if (q->argv == NULL || q->blob == NULL)
        return false;
    q->argv[0] = STR("EVALSHA");
    q->argv[1] = str_of(q->script->sha1);
    char *at = append_copies(q->argv + 2, q->blob, &number, 1);
    at = append_copies(q->argv + 3, at, keys, nkeys);
    append_copies(q->argv + 3 + nkeys, at, args, nargs);
    return true;
}

static void on_loaded(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct redis_script *script = arg;
    if (err == NULL && !str_copy(redis_str(reply), script->sha1, sizeof script->sha1))
        script->sha1[0] = '\0';
}

/* Asks Redis for the name (the SHA-1) of a script that is used for the first time. Without an answer it goes
 * on being sent as text, so a failure does not matter. */
static void ask_name(struct redis *r, struct redis_script *script, int64_t timeout_ms)
{
    const struct str argv[] = {STR("SCRIPT"), STR("LOAD"), str_of(script->body)};
    if (redis_connected(r))
        redis_command(r, argv, 3, timeout_ms, on_loaded, script, NULL);
}

struct redis_request *redis_eval(struct redis *r, struct redis_script *script, const struct str *keys,
                                 int nkeys, const struct str *args, int nargs, int64_t timeout_ms,
                                 redis_done_fn *done, void *arg, struct err *err)
{
    struct redis_request *q = request_new(r, timeout_ms, done, arg, err);
    if (q == NULL)
        return NULL;
    q->script = script;
    if (!keep_call(q, keys, nkeys, args, nargs)) {
        request_free(q);
        err_set(err, ERR_NO_MEMORY, "no memory for a Redis script's call");
        return NULL;
    }
    r->pending++;
    if (script->sha1[0] != '\0') {
        send_or_fail(q, q->argv, q->argc);
        return q;
    }
    ask_name(r, script, timeout_ms);
    send_script_text(q);
    return q;
}
