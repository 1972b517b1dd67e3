/* The queue: reading, claiming, keeping and ending leases; cancelling. */
#include "store/queue_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct redis_script script_claim = {.body = lua_claim};
static struct redis_script script_release = {.body = lua_release};
static struct redis_script script_beat = {.body = lua_beat};
static struct redis_script script_assert = {.body = lua_assert};
static struct redis_script script_requeue = {.body = lua_requeue};
static struct redis_script script_cancel = {.body = lua_cancel};
static struct redis_script script_progress = {.body = lua_progress};

enum { LEASE_ARG_BYTES = 160 };

/* ---- reading ---- */

static struct str field(const struct redis_reply *fields, const char *name)
{
    for (size_t i = 0; i + 1 < redis_count(fields); i += 2)
        if (str_eq_c(redis_str(redis_at(fields, i)), name))
            return redis_str(redis_at(fields, i + 1));
    return str_of(NULL);
}

/* One [id, [field, value, …]] of a stream's reply. Entries deleted while pending have nil fields: broken. */
static void read_delivery(struct str stream, const struct redis_reply *item, struct queue_delivery *d)
{
    const struct redis_reply *fields = redis_at(item, 1);
    *d = (struct queue_delivery){.first = str_eq_c(field(fields, "s"), "g")};
    bool named = str_copy(stream, d->lease.stream, sizeof d->lease.stream) &&
                 str_copy(redis_str(redis_at(item, 0)), d->lease.entry, sizeof d->lease.entry) &&
                 str_copy(field(fields, "e"), d->epoch, sizeof d->epoch);
    d->broken = !entry_decode(field(fields, "b"), &d->job) || !named;
    d->lease.id = d->job.id;
    d->lease.attempt = d->job.attempt;
    d->lease.tenant = d->job.tenant;
}

static size_t count_entries(const struct redis_reply *reply)
{
    size_t n = 0;
    for (size_t s = 0; s < redis_count(reply); s++)
        n += redis_count(redis_at(redis_at(reply, s), 1));
    return n;
}

static void reply_read(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct queue_call *c = arg;
    queue_read_fn *fn = (queue_read_fn *)c->fn;
    size_t n = err == NULL ? count_entries(reply) : 0, at = 0;
    struct queue_delivery *items = calloc(n + 1, sizeof *items);
    if (items == NULL)
        BUG("no memory for deliveries"); /* at most COUNT a stream: a few hundred KiB */
    for (size_t s = 0; n > 0 && s < redis_count(reply); s++) {
        const struct redis_reply *stream = redis_at(reply, s), *list = redis_at(stream, 1);
        for (size_t i = 0; i < redis_count(list); i++)
            read_delivery(redis_str(redis_at(stream, 0)), redis_at(list, i), &items[at++]);
    }
    fn(c->arg, items, n, err);
    free(items);
    queue_call_free(c);
}

int queue_read(struct redis *redis, const char *consumer, const char *const *streams, int count,
               int64_t block_ms, bool from_pending, queue_read_fn *fn, void *arg, struct err *err)
{
    struct args a;
    args_init(&a, 256);
    args_cstr(&a, "XREADGROUP");
    args_cstr(&a, "GROUP");
    args_cstr(&a, "executors");
    args_copy(&a, str_of(consumer));
    args_cstr(&a, "COUNT");
    args_int(&a, count);
    if (block_ms > 0 && !from_pending) {
        args_cstr(&a, "BLOCK");
        args_int(&a, block_ms);
    }
    args_cstr(&a, "STREAMS");
    for (int i = 0; streams[i] != NULL; i++)
        args_cstr(&a, streams[i]);
    for (int i = 0; streams[i] != NULL; i++)
        args_cstr(&a, from_pending ? "0" : ">");
    return queue_send(redis, &a, block_ms + QUEUE_TIMEOUT_MS, reply_read,
                      queue_call_new((void (*)(void))fn, arg, 0), err);
}

/* ---- leases ---- */

static void put_entry(struct args *a, const struct lease *l)
{
    args_str(a, str_of(l->stream));
    args_str(a, str_of(l->entry));
}

int queue_claim(struct queue *q, struct uuid boot, const struct queue_claim *items, size_t n,
                queue_verdicts_fn *fn, void *arg)
{
    static const char *const keys[] = {"sp:epoch", "sp:live", "sp:tw"};
    struct args a;
    args_init(&a, n * LEASE_ARG_BYTES + 256);
    args_uuid_text(&a, boot);
    for (size_t i = 0; i < n; i++) {
        args_uuid(&a, &items[i].lease->id);
        args_int(&a, items[i].lease->attempt);
        put_entry(&a, items[i].lease);
        args_str(&a, str_of(items[i].epoch));
    }
    return queue_eval(q, &script_claim, keys, 3, &a, queue_reply_verdicts,
                      queue_call_new((void (*)(void))fn, arg, n), NULL);
}

int queue_progress(struct queue *q, struct uuid boot, const struct lease *const *items, size_t n)
{
    static const char *const keys[] = {"sp:live"};
    struct args a;
    args_init(&a, n * LEASE_ARG_BYTES + 256);
    args_uuid_text(&a, boot);
    for (size_t i = 0; i < n; i++) {
        args_uuid(&a, &items[i]->id);
        args_int(&a, items[i]->attempt);
    }
    return queue_eval(q, &script_progress, keys, 1, &a, queue_reply_done, queue_call_new(NULL, NULL, n),
                      NULL);
}

int queue_release(struct queue *q, struct uuid boot, const struct lease *const *items, size_t n,
                  struct str done, queue_done_fn *fn, void *arg)
{
    char cancels[64], text[UUID_TEXT_BYTES];
    uuid_format(boot, text);
    snprintf(cancels, sizeof cancels, "sp:cx:%s", text);
    const char *const keys[] = {"sp:live", cancels, QUEUE_CHANNEL_DONE};
    struct args a;
    args_init(&a, n * LEASE_ARG_BYTES + 256);
    args_uuid_text(&a, boot);
    args_str(&a, done);
    for (size_t i = 0; i < n; i++) {
        args_uuid(&a, &items[i]->id);
        args_int(&a, items[i]->attempt);
        put_entry(&a, items[i]);
    }
    return queue_eval(q, &script_release, keys, 3, &a, queue_reply_done,
                      queue_call_new((void (*)(void))fn, arg, n), NULL);
}

int queue_assert(struct queue *q, struct uuid boot, const struct queue_assert_item *items, size_t n,
                 queue_verdicts_fn *fn, void *arg)
{
    static const char *const keys[] = {"sp:live", "sp:tw"};
    struct args a;
    args_init(&a, n * LEASE_ARG_BYTES + 256);
    args_uuid_text(&a, boot);
    for (size_t i = 0; i < n; i++) {
        args_uuid(&a, &items[i].lease->id);
        args_int(&a, items[i].lease->attempt);
        args_cstr(&a, items[i].running ? "r" : "s");
        put_entry(&a, items[i].lease);
        args_int(&a, items[i].lease->tenant);
    }
    return queue_eval(q, &script_assert, keys, 2, &a, queue_reply_verdicts,
                      queue_call_new((void (*)(void))fn, arg, n), NULL);
}

static void reply_beat(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct queue_call *c = arg;
    queue_beat_fn *fn = (queue_beat_fn *)c->fn;
    const struct redis_reply *list = err == NULL ? redis_at(reply, 2) : NULL;
    size_t n = list != NULL ? redis_count(list) : 0, good = 0;
    struct uuid *ids = calloc(n + 1, sizeof *ids);
    for (size_t i = 0; ids != NULL && i < n; i++) {
        struct str id = redis_str(redis_at(list, i));
        if (id.n == sizeof ids->b)
            memcpy(ids[good++].b, id.p, id.n);
    }
    if (err == NULL)
        fn(c->arg, redis_str(redis_at(reply, 0)), redis_int(redis_at(reply, 1)) == 1, ids, good, NULL);
    else
        fn(c->arg, str_of(NULL), false, NULL, 0, err);
    free(ids);
    queue_call_free(c);
}

int queue_beat(struct queue *q, struct uuid boot, int running, queue_beat_fn *fn, void *arg)
{
    char lease[64], cancels[64], text[UUID_TEXT_BYTES];
    uuid_format(boot, text);
    snprintf(lease, sizeof lease, "sp:x:%s", text);
    snprintf(cancels, sizeof cancels, "sp:cx:%s", text);
    const char *const keys[] = {lease, "sp:execs", "sp:epoch", cancels};
    struct args a;
    args_init(&a, 256);
    args_uuid_text(&a, boot);
    args_int(&a, QUEUE_LEASE_TTL_MS);
    args_int(&a, running);
    return queue_eval(q, &script_beat, keys, 4, &a, reply_beat, queue_call_new((void (*)(void))fn, arg, 0),
                      NULL);
}

int queue_requeue(struct queue *q, const struct uuid *owner, const struct queue_requeue_item *items, size_t n,
                  queue_verdicts_fn *fn, void *arg)
{
    static const char *const keys[] = {"sp:epoch", "sp:live", "sp:tw"};
    struct args a;
    struct buf body;
    args_init(&a, n * (LEASE_ARG_BYTES + ENTRY_MAX_BYTES) + 256);
    buf_init(&body, ENTRY_MAX_BYTES);
    if (owner != NULL)
        args_uuid_text(&a, *owner);
    else
        args_cstr(&a, "-");
    for (size_t i = 0; i < n; i++) {
        const struct queue_requeue_item *it = &items[i];
        buf_clear(&body);
        if (it->again != NULL && !entry_encode(it->again, &body))
            a.failed = true;
        args_uuid(&a, &it->lease.id);
        args_int(&a, it->lease.attempt);
        args_int(&a, it->lease.tenant);
        args_int(&a, it->again != NULL ? it->again->attempt : it->lease.attempt);
        put_entry(&a, &it->lease);
        args_copy(&a, buf_view(&body));
    }
    buf_deinit(&body);
    return queue_eval(q, &script_requeue, keys, 3, &a, queue_reply_verdicts,
                      queue_call_new((void (*)(void))fn, arg, n), NULL);
}

static void reply_cancel(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct queue_call *c = arg;
    queue_cancel_fn *fn = (queue_cancel_fn *)c->fn;
    struct str what = err == NULL ? redis_str(reply) : str_of(NULL);
    if (fn != NULL)
        fn(c->arg,
           str_eq_c(what, "running")   ? QUEUE_CANCEL_RUNNING
           : str_eq_c(what, "removed") ? QUEUE_CANCEL_REMOVED
           : str_eq_c(what, "absent")  ? QUEUE_CANCEL_ABSENT
                                       : QUEUE_CANCEL_UNKNOWN,
           err);
    queue_call_free(c);
}

static int cancel(struct queue *q, struct uuid id, const char *owner, queue_cancel_fn *fn, void *arg,
                  struct err *err)
{
    static const char *const keys[] = {"sp:live", "sp:tw", "sp:epoch", "sp:hold"};
    struct args a;
    args_init(&a, 256);
    args_uuid(&a, &id);
    args_cstr(&a, "sp:cx:");
    args_cstr(&a, QUEUE_CHANNEL_CTL);
    args_cstr(&a, owner);
    return queue_eval(q, &script_cancel, keys, 4, &a, reply_cancel,
                      queue_call_new((void (*)(void))fn, arg, 0), err);
}

int queue_cancel(struct queue *q, struct uuid id, queue_cancel_fn *fn, void *arg, struct err *err)
{
    return cancel(q, id, "tell", fn, arg, err);
}

int queue_withdraw(struct queue *q, struct uuid id, queue_cancel_fn *fn, void *arg)
{
    return cancel(q, id, "leave", fn, arg, NULL);
}
