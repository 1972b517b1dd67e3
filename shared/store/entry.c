/* Packing and unpacking of stream entries. */
#include "store/entry.h"

#include <string.h>

/* An entry with an environment has another number, for the sake of executors from before: they shall refuse
 * it, not run it without. */
enum { ENTRY_VERSION = 3, ENTRY_VERSION_ENV = 4 };
enum { HAS_PROMPT = 1, HAS_FILES = 2 };

static void put(struct buf *b, uint64_t v, size_t bytes)
{
    uint8_t raw[8];
    for (size_t i = 0; i < bytes; i++)
        raw[i] = (uint8_t)(v >> (8 * i));
    buf_append(b, raw, bytes);
}

struct reader {
    const uint8_t *p;
    size_t left;
    bool bad;
};

static uint64_t get(struct reader *r, size_t bytes)
{
    if (r->left < bytes) {
        r->bad = true;
        return 0;
    }
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++)
        v |= (uint64_t)r->p[i] << (8 * i);
    r->p += bytes;
    r->left -= bytes;
    return v;
}

static void get_bytes(struct reader *r, uint8_t *out, size_t n)
{
    if (r->left < n) {
        r->bad = true;
        return;
    }
    memcpy(out, r->p, n);
    r->p += n;
    r->left -= n;
}

static struct uuid get_uuid(struct reader *r)
{
    struct uuid id = {0};
    get_bytes(r, id.b, sizeof id.b);
    return id;
}

static void get_trace(struct reader *r, struct traceparent *t)
{
    uint64_t present = get(r, 1);
    r->bad = r->bad || present > 1;
    t->present = present == 1;
    if (!t->present)
        return;
    get_bytes(r, t->trace_id, sizeof t->trace_id);
    get_bytes(r, t->parent_id, sizeof t->parent_id);
    t->flags = (uint8_t)get(r, 1);
}

bool entry_encode(const struct entry *e, struct buf *out)
{
    put(out, e->env ? ENTRY_VERSION_ENV : ENTRY_VERSION, 1);
    put(out, (uint64_t)e->kind, 1);
    buf_append(out, e->id.b, sizeof e->id.b);
    put(out, (uint32_t)e->tenant, 4);
    buf_append(out, e->agent.b, sizeof e->agent.b);
    put(out, (uint32_t)e->version, 4);
    put(out, (uint16_t)e->attempt, 2);
    put(out, (uint16_t)e->max_attempts, 2);
    put(out, (uint16_t)e->retry_on, 2);
    put(out, (uint16_t)e->reruns, 2);
    put(out, (uint16_t)e->blames, 2);
    put(out, (uint16_t)e->own, 2);
    put(out, (uint64_t)e->priority, 1);
    put(out, (uint32_t)e->timeout_ms, 4);
    put(out, (uint64_t)e->queue_deadline.us, 8);
    put(out, (uint64_t)e->ready.us, 8);
    put(out, e->trace.present ? 1 : 0, 1);
    if (e->trace.present) {
        buf_append(out, e->trace.trace_id, sizeof e->trace.trace_id);
        buf_append(out, e->trace.parent_id, sizeof e->trace.parent_id);
        put(out, e->trace.flags, 1);
    }
    put(out, e->prompt_bytes, 4);
    put(out, (uint64_t)(e->prompt_inline ? HAS_PROMPT : 0) | (uuid_is_zero(e->files) ? 0 : HAS_FILES), 1);
    if (!uuid_is_zero(e->files))
        buf_append(out, e->files.b, sizeof e->files.b);
    if (e->prompt_inline)
        buf_str(out, e->prompt);
    return !out->failed;
}

static bool plausible(const struct entry *e)
{
    return (e->kind == ENTRY_INVOCATION || e->kind == ENTRY_BUILD) &&
           (unsigned)e->priority < INV_PRIORITIES && e->attempt >= 1 && e->version >= 1 &&
           e->timeout_ms > 0 &&
           e->prompt_bytes <= (e->prompt_inline ? INV_ENTRY_PROMPT_BYTES : INV_PROMPT_MAX_BYTES);
}

bool entry_decode(struct str body, struct entry *e)
{
    struct reader r = {.p = (const uint8_t *)body.p, .left = body.n};
    uint64_t version = get(&r, 1);
    if (version != ENTRY_VERSION && version != ENTRY_VERSION_ENV)
        return false;
    *e = (struct entry){.env = version == ENTRY_VERSION_ENV, .kind = (enum entry_kind)get(&r, 1)};
    e->id = get_uuid(&r);
    e->tenant = (int32_t)get(&r, 4);
    e->agent = get_uuid(&r);
    e->version = (int32_t)get(&r, 4);
    e->attempt = (int16_t)get(&r, 2);
    e->max_attempts = (int16_t)get(&r, 2);
    e->retry_on = (int16_t)get(&r, 2);
    e->reruns = (int16_t)get(&r, 2);
    e->blames = (int16_t)get(&r, 2);
    e->own = (int16_t)get(&r, 2);
    e->priority = (enum inv_priority)get(&r, 1);
    e->timeout_ms = (int32_t)get(&r, 4);
    e->queue_deadline.us = (int64_t)get(&r, 8);
    e->ready.us = (int64_t)get(&r, 8);
    get_trace(&r, &e->trace);
    e->prompt_bytes = (uint32_t)get(&r, 4);
    uint64_t has = get(&r, 1);
    r.bad = r.bad || has > (HAS_PROMPT | HAS_FILES);
    e->prompt_inline = (has & HAS_PROMPT) != 0;
    if ((has & HAS_FILES) != 0) {
        e->files = get_uuid(&r);
        r.bad = r.bad || uuid_is_zero(e->files);
    }
    e->prompt = str_make((const char *)r.p, r.left);
    if (r.bad || !plausible(e))
        return false;
    return e->prompt_inline ? e->prompt.n == e->prompt_bytes : e->prompt.n == 0;
}
