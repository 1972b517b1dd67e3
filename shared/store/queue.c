/* The queue: names, how calls are made, enqueueing and the backlog marks. Leases are in queue_lease.c, what
 * only dispatchers look at in queue_watch.c. */
#include "store/queue_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const queue_streams[] = {"sp:q:high:0", "sp:q:normal:0", "sp:q:low:0", NULL};
const char queue_build_stream[] = "sp:q:build";

const char *queue_stream_of(const struct entry *e)
{
    return e->kind == ENTRY_BUILD ? queue_build_stream : queue_streams[e->priority];
}

struct queue *queue_new(struct redis *redis, int window)
{
    struct queue *q = calloc(1, sizeof *q);
    if (q != NULL)
        *q = (struct queue){.redis = redis, .window = window};
    return q;
}

void queue_free(struct queue **q)
{
    if (q == NULL || *q == NULL)
        return;
    free(*q);
    *q = NULL;
}

enum { HOOKED = 0x40 }; /* above the states */

void queue_done_put(struct buf *out, struct uuid id, enum inv_state state, bool hooked)
{
    buf_append(out, id.b, sizeof id.b);
    buf_byte(out, (char)(state | (hooked ? HOOKED : 0)));
}

bool queue_done_get(struct str message, size_t i, struct uuid *id, enum inv_state *state)
{
    if (message.n % QUEUE_DONE_RECORD_BYTES != 0 || i >= message.n / QUEUE_DONE_RECORD_BYTES)
        return false;
    const char *at = message.p + i * QUEUE_DONE_RECORD_BYTES;
    memcpy(id->b, at, sizeof id->b);
    *state = (enum inv_state)(at[sizeof id->b] & ~HOOKED);
    return true;
}

bool queue_done_is_hooked(struct str message)
{
    for (size_t at = QUEUE_DONE_RECORD_BYTES; at <= message.n; at += QUEUE_DONE_RECORD_BYTES)
        if ((message.p[at - 1] & HOOKED) != 0)
            return true;
    return false;
}

/* ---- calls ---- */

struct queue_call *queue_call_new(void (*fn)(void), void *arg, size_t n)
{
    struct queue_call *c = calloc(1, sizeof *c);
    if (c != NULL)
        *c = (struct queue_call){.fn = fn, .arg = arg, .n = n};
    return c;
}

void queue_call_free(struct queue_call *c)
{
    if (c == NULL)
        return;
    free(c->extra);
    free(c);
}

int queue_eval(struct queue *q, struct redis_script *script, const char *const *keys, int nkeys,
               struct args *args, redis_done_fn *reply, struct queue_call *call, struct err *err)
{
    struct str k[16];
    INVARIANT(nkeys <= 16);
    for (int i = 0; i < nkeys; i++)
        k[i] = str_of(keys[i]);
    int rc = -1;
    if (call == NULL || args->failed)
        err_set(err, ERR_NO_MEMORY, "no memory for a call to Redis");
    else if (redis_eval(q->redis, script, k, nkeys, args->v, args->n, QUEUE_TIMEOUT_MS, reply, call, err) !=
             NULL)
        rc = 0;
    if (rc != 0)
        queue_call_free(call);
    args_deinit(args);
    return rc;
}

int queue_send(struct redis *redis, struct args *args, int64_t timeout_ms, redis_done_fn *reply,
               struct queue_call *call, struct err *err)
{
    int rc = -1;
    if (call == NULL || args->failed)
        err_set(err, ERR_NO_MEMORY, "no memory for a call to Redis");
    else if (redis_command(redis, args->v, args->n, timeout_ms, reply, call, err) != NULL)
        rc = 0;
    if (rc != 0)
        queue_call_free(call);
    args_deinit(args);
    return rc;
}

void queue_reply_verdicts(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct queue_call *c = arg;
    queue_verdicts_fn *fn = (queue_verdicts_fn *)c->fn;
    if (fn == NULL) {
        queue_call_free(c);
        return;
    }
    struct err bad = ERR_INIT;
    int8_t *verdicts = err == NULL ? calloc(c->n + 1, 1) : NULL;
    if (err == NULL && redis_count(reply) < c->n)
        err_set(&bad, ERR_PROTOCOL, "Redis answered for %zu jobs of %zu", redis_count(reply), c->n);
    else if (err == NULL && verdicts == NULL)
        err_set(&bad, ERR_NO_MEMORY, "no memory for an answer of Redis");
    if (err == NULL && bad.code != ERR_NONE)
        err = &bad;
    for (size_t i = 0; err == NULL && i < c->n; i++)
        verdicts[i] = (int8_t)redis_int(redis_at(reply, i));
    fn(c->arg, err == NULL ? verdicts : NULL, err == NULL ? c->n : 0, err);
    free(verdicts);
    queue_call_free(c);
}

void queue_reply_done(void *arg, const struct redis_reply *reply, const struct err *err)
{
    (void)reply;
    struct queue_call *c = arg;
    queue_done_fn *fn = (queue_done_fn *)c->fn;
    if (fn != NULL)
        fn(c->arg, err);
    queue_call_free(c);
}

/* ---- enqueueing ---- */

static struct redis_script script_enqueue = {.body = lua_enqueue};
static struct redis_script script_backlog = {.body = lua_backlog};

static void put_job(struct args *a, const struct entry *e, struct buf *body)
{
    buf_clear(body);
    if (!entry_encode(e, body))
        a->failed = true;
    args_uuid(a, &e->id);
    args_int(a, e->tenant);
    args_cstr(a, queue_stream_of(e));
    args_int(a, e->attempt);
    args_copy(a, buf_view(body));
}

struct uuid queue_fence(const struct queue *q)
{
    return q->fence;
}

static void reply_enqueued(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct queue_call *c = arg;
    if (err == NULL && redis_count(reply) == c->n + 1) {
        struct str fence = redis_str(redis_at(reply, c->n));
        c->q->fence = (struct uuid){0};
        if (fence.n == sizeof c->q->fence.b)
            memcpy(c->q->fence.b, fence.p, fence.n);
    }
    queue_reply_verdicts(arg, reply, err);
}

int queue_enqueue(struct queue *q, enum queue_source source, struct uuid fence, const struct entry *entries,
                  size_t n, queue_verdicts_fn *fn, void *arg, struct err *err)
{
    static const char *const keys[] = {"sp:epoch", "sp:hold", "sp:live", "sp:tw",
                                       "sp:bl",    "sp:blg",  "sp:fence"};
    INVARIANT(n <= QUEUE_BATCH);
    struct args a;
    struct buf body;
    args_init(&a, (size_t)n * (ENTRY_MAX_BYTES + 128) + 256);
    buf_init(&body, ENTRY_MAX_BYTES);
    const char name[] = {(char)source, '\0'};
    if (source == QUEUE_FOUND)
        random_bytes(fence.b, sizeof fence.b);
    args_cstr(&a, name);
    args_int(&a, q->window);
    if (uuid_is_zero(fence))
        args_cstr(&a, "");
    else
        args_uuid(&a, &fence);
    for (size_t i = 0; i < n; i++)
        put_job(&a, &entries[i], &body);
    buf_deinit(&body);
    struct queue_call *c = queue_call_new((void (*)(void))fn, arg, n);
    if (c != NULL)
        c->q = q;
    return queue_eval(q, &script_enqueue, keys, 7, &a, reply_enqueued, c, err);
}

/* ---- the backlog ---- */

static const char *const backlog_keys[] = {"sp:bl", "sp:blg", "sp:tw"};

int queue_mark(struct queue *q, const struct queue_mark *marks, size_t n, queue_done_fn *fn, void *arg)
{
    struct args a;
    args_init(&a, n * 32 + 256);
    args_cstr(&a, "mark");
    for (size_t i = 0; i < n; i++) {
        args_int(&a, marks[i].tenant);
        args_uuid(&a, &marks[i].low);
    }
    return queue_eval(q, &script_backlog, backlog_keys, 3, &a, queue_reply_done,
                      queue_call_new((void (*)(void))fn, arg, n), NULL);
}

static void read_backlog(const struct redis_reply *reply, size_t i, struct queue_backlog *out)
{
    struct str low = redis_str(redis_at(reply, i + 1));
    *out = (struct queue_backlog){.tenant = (int32_t)redis_int(redis_at(reply, i)),
                                  .has_low = low.n == sizeof out->low.b,
                                  .generation = redis_int(redis_at(reply, i + 2)),
                                  .in_window = (int32_t)redis_int(redis_at(reply, i + 3))};
    if (out->has_low)
        memcpy(out->low.b, low.p, low.n);
}

static void reply_backlog(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct queue_call *c = arg;
    queue_backlog_fn *fn = (queue_backlog_fn *)c->fn;
    size_t n = err == NULL ? redis_count(reply) / 4 : 0;
    struct queue_backlog *items = calloc(n + 1, sizeof *items);
    struct err none;
    if (items == NULL) {
        err_set(&none, ERR_NO_MEMORY, "no memory for the backlog's marks");
        fn(c->arg, NULL, 0, &none);
        queue_call_free(c);
        return;
    }
    for (size_t i = 0; i < n; i++)
        read_backlog(reply, i * 4, &items[i]);
    fn(c->arg, items, n, err);
    free(items);
    queue_call_free(c);
}

int queue_backlog_take(struct queue *q, queue_backlog_fn *fn, void *arg)
{
    struct args a;
    args_init(&a, 64);
    args_cstr(&a, "take");
    return queue_eval(q, &script_backlog, backlog_keys, 3, &a, reply_backlog,
                      queue_call_new((void (*)(void))fn, arg, 0), NULL);
}

int queue_backlog_clear(struct queue *q, const struct queue_backlog *items, size_t n)
{
    struct args a;
    args_init(&a, n * 48 + 256);
    args_cstr(&a, "clear");
    for (size_t i = 0; i < n; i++) {
        args_int(&a, items[i].tenant);
        args_int(&a, items[i].generation);
    }
    return queue_eval(q, &script_backlog, backlog_keys, 3, &a, queue_reply_done,
                      queue_call_new(NULL, NULL, n), NULL);
}
