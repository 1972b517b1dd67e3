/* The queue: an executor's will. Fields of the hash: an id and an attempt (18 bytes), whose value is a usage
 * record as text; and "culprit". */
#include "store/queue_will.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/queue_internal.h"

enum { FIELD_BYTES = 18, VALUE_BYTES = 340, VALUE_PARTS = 10 };
#define CULPRIT_FIELD "culprit"

static void will_key(struct uuid boot, char out[64])
{
    char text[UUID_TEXT_BYTES];
    uuid_format(boot, text);
    snprintf(out, 64, "sp:will:%s", text);
}

static struct str field_of(struct uuid id, int16_t attempt, char out[FIELD_BYTES])
{
    memcpy(out, id.b, sizeof id.b);
    out[16] = (char)(attempt >> 8);
    out[17] = (char)attempt;
    return str_make(out, FIELD_BYTES);
}

int queue_will_put(struct queue *q, struct uuid boot, const struct queue_usage *u, queue_done_fn *fn,
                   void *arg)
{
    char key[64], field[FIELD_BYTES], value[VALUE_BYTES], agent[UUID_TEXT_BYTES];
    struct args a;
    will_key(boot, key);
    uuid_format(u->agent, agent);
    int n = snprintf(value, sizeof value,
                     "%d %s %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64
                     " %s %" PRId64,
                     u->tenant, agent, u->queue_ms, u->sandbox_start_ms, u->run_ms, u->sandbox_ms, u->cpu_ms,
                     u->peak_memory_bytes, u->started_at.us, u->sandbox, u->held_since.us);
    args_init(&a, 640);
    args_cstr(&a, "HSET");
    args_copy(&a, str_of(key));
    args_copy(&a, field_of(u->id, u->attempt, field));
    args_copy(&a, str_make(value, (size_t)n));
    return queue_send(q->redis, &a, QUEUE_TIMEOUT_MS, queue_reply_done,
                      queue_call_new((void (*)(void))fn, arg, 0), NULL);
}

int queue_will_drop(struct queue *q, struct uuid boot, struct uuid id, int16_t attempt)
{
    char key[64], field[FIELD_BYTES];
    struct args a;
    will_key(boot, key);
    args_init(&a, 256);
    args_cstr(&a, "HDEL");
    args_copy(&a, str_of(key));
    args_copy(&a, field_of(id, attempt, field));
    return queue_send(q->redis, &a, QUEUE_TIMEOUT_MS, queue_reply_done, queue_call_new(NULL, NULL, 0), NULL);
}

/* ---- reading ---- */

static bool read_usage(struct str field, struct str value, struct queue_usage *out)
{
    struct str part[VALUE_PARTS], since; /* since: not written by daemons of an older release */
    int64_t tenant;
    if (field.n != FIELD_BYTES)
        return false;
    for (int i = 0; i < VALUE_PARTS; i++)
        if (!str_split(&value, ' ', &part[i]))
            return false;
    if (!str_split(&value, ' ', &since) || !str_to_i64(since, &out->held_since.us))
        out->held_since.us = 0;
    memcpy(out->id.b, field.p, sizeof out->id.b);
    out->attempt = (int16_t)((unsigned char)field.p[16] << 8 | (unsigned char)field.p[17]);
    if (!str_to_i64(part[0], &tenant) || !uuid_parse(part[1], &out->agent) ||
        !str_to_i64(part[2], &out->queue_ms) || !str_to_i64(part[3], &out->sandbox_start_ms) ||
        !str_to_i64(part[4], &out->run_ms) || !str_to_i64(part[5], &out->sandbox_ms) ||
        !str_to_i64(part[6], &out->cpu_ms) || !str_to_i64(part[7], &out->peak_memory_bytes) ||
        !str_to_i64(part[8], &out->started_at.us))
        return false;
    out->tenant = (int32_t)tenant;
    return str_copy(part[9], out->sandbox, sizeof out->sandbox) && part[9].n > 0;
}

static void reply_will(void *arg, const struct redis_reply *reply, const struct err *err)
{
    struct queue_call *c = arg;
    struct queue_will will = {.usage = NULL};
    size_t n = err == NULL ? redis_count(reply) / 2 : 0;
    struct queue_usage *usage = calloc(n + 1, sizeof *usage);
    struct err none;
    if (usage == NULL) {
        err_set(&none, ERR_NO_MEMORY, "no memory for an executor's will");
        err = &none;
    }
    for (size_t i = 0; err == NULL && i < n; i++) {
        struct str field = redis_str(redis_at(reply, 2 * i)), value = redis_str(redis_at(reply, 2 * i + 1));
        if (str_eq_c(field, CULPRIT_FIELD) && value.n == sizeof will.culprit.b)
            memcpy(will.culprit.b, value.p, value.n);
        else if (read_usage(field, value, &usage[will.usage_n]))
            will.usage_n++;
    }
    will.usage = usage;
    ((queue_will_fn *)c->fn)(c->arg, &will, err);
    free(usage);
    queue_call_free(c);
}

int queue_will_read(struct queue *q, struct uuid boot, queue_will_fn *fn, void *arg)
{
    char key[64];
    struct args a;
    will_key(boot, key);
    args_init(&a, 128);
    args_cstr(&a, "HGETALL");
    args_copy(&a, str_of(key));
    return queue_send(q->redis, &a, QUEUE_TIMEOUT_MS, reply_will, queue_call_new((void (*)(void))fn, arg, 0),
                      NULL);
}

/* ---- last words ---- */

bool queue_last_words(struct uuid boot, struct buf *out, struct queue_last_words *where)
{
    static const char nobody[sizeof(struct uuid)];
    char will[64], lease[64], text[UUID_TEXT_BYTES];
    will_key(boot, will);
    uuid_format(boot, text);
    snprintf(lease, sizeof lease, "sp:x:%s", text);
    const struct str culprit[] = {STR("HSET"), str_of(will), STR(CULPRIT_FIELD),
                                  str_make(nobody, sizeof nobody)};
    const struct str give_up[] = {STR("DEL"), str_of(lease)};
    if (!redis_format(culprit, 4, out))
        return false;
    where->culprit_bytes = out->len;
    where->id_at = out->len - sizeof nobody - 2; /* the last argument, before its line's end */
    return redis_format(give_up, 2, out);
}
