/* Live output's messages and channels. */
#include "store/queue_output.h"

#include <stdio.h>
#include <string.h>

#include "store/queue_internal.h"

enum {
    VERSION = 1,
    ASKS_HEAD_BYTES = 1 + 16,
    ASK_BYTES = 16 + 2 + 1 + 1 + 8 + 8,
    PART_HEAD_BYTES = 1 + 16 + 2 + 1 + 1 + OUTPUT_STREAMS * (8 + 8 + 4),
};

/* ---- fields ---- */

static void put_int(struct buf *out, uint64_t v, int bytes)
{
    for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8)
        buf_byte(out, (char)(v >> shift & 0xFF));
}

static uint64_t get_int(const char **at, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v = v << 8 | (unsigned char)*(*at)++;
    return v;
}

static void put_id(struct buf *out, struct uuid id)
{
    buf_append(out, id.b, sizeof id.b);
}

static struct uuid get_id(const char **at)
{
    struct uuid id;
    memcpy(id.b, *at, sizeof id.b);
    *at += sizeof id.b;
    return id;
}

/* Sizes and offsets: beyond this nothing is kept, and sums with it do not overflow. */
#define SIZE_LIMIT (UINT64_C(1) << 50)

static bool get_size(const char **at, int64_t *out)
{
    uint64_t v = get_int(at, 8);
    *out = (int64_t)v;
    return v <= SIZE_LIMIT;
}

/* ---- asks ---- */

void output_asks_begin(struct buf *out, struct uuid gateway)
{
    buf_byte(out, VERSION);
    put_id(out, gateway);
}

void output_asks_put(struct buf *out, const struct output_ask *ask)
{
    bool watch = ask->kind == OUTPUT_WATCH;
    put_id(out, ask->id);
    put_int(out, (uint16_t)ask->attempt, 2);
    put_int(out, ask->kind, 1);
    put_int(out, watch ? ask->phase : 0, 1);
    put_int(out, (uint64_t)(watch ? ask->seen[OUTPUT_STDOUT] : ask->offset), 8);
    put_int(out, (uint64_t)(watch ? ask->seen[OUTPUT_STDERR] : 0), 8);
}

size_t output_asks_count(struct str message)
{
    return message.n < ASKS_HEAD_BYTES ? 0 : (message.n - ASKS_HEAD_BYTES) / ASK_BYTES;
}

bool output_asks_open(struct str message, struct uuid *gateway_out)
{
    if (message.n < ASKS_HEAD_BYTES || message.p[0] != VERSION ||
        (message.n - ASKS_HEAD_BYTES) % ASK_BYTES != 0)
        return false;
    const char *at = message.p + 1;
    *gateway_out = get_id(&at);
    return true;
}

bool output_asks_get(struct str message, size_t i, struct output_ask *out)
{
    if (i >= output_asks_count(message))
        return false;
    const char *at = message.p + ASKS_HEAD_BYTES + i * ASK_BYTES;
    int64_t a, b;
    struct uuid id = get_id(&at);
    int16_t attempt = (int16_t)get_int(&at, 2);
    uint64_t kind = get_int(&at, 1), phase = get_int(&at, 1);
    if (!get_size(&at, &a) || !get_size(&at, &b) || kind >= OUTPUT_ASK_KINDS || phase >= OUTPUT_PHASES)
        return false;
    *out = (struct output_ask){.id = id, .attempt = attempt, .kind = (enum output_ask_kind)kind};
    if (out->kind == OUTPUT_WATCH) {
        out->phase = (enum output_phase)phase;
        out->seen[OUTPUT_STDOUT] = a;
        out->seen[OUTPUT_STDERR] = b;
        return true;
    }
    out->offset = a;
    return phase == 0 && b == 0;
}

/* ---- answers ---- */

bool output_part_encode(const struct output_part *part, struct buf *out)
{
    buf_byte(out, VERSION);
    put_id(out, part->id);
    put_int(out, (uint16_t)part->attempt, 2);
    put_int(out, part->to, 1);
    put_int(out, part->phase, 1);
    for (int k = 0; k < OUTPUT_STREAMS; k++) {
        put_int(out, (uint64_t)part->size[k], 8);
        put_int(out, (uint64_t)part->offset[k], 8);
        put_int(out, part->bytes[k].n, 4);
    }
    for (int k = 0; k < OUTPUT_STREAMS; k++)
        buf_str(out, part->bytes[k]);
    return !out->failed;
}

bool output_part_decode(struct str message, struct output_part *out)
{
    if (message.n < PART_HEAD_BYTES || message.p[0] != VERSION)
        return false;
    const char *at = message.p + 1;
    *out = (struct output_part){.id = get_id(&at)};
    out->attempt = (int16_t)get_int(&at, 2);
    uint64_t to = get_int(&at, 1), phase = get_int(&at, 1), total = 0;
    for (int k = 0; k < OUTPUT_STREAMS; k++) {
        if (!get_size(&at, &out->size[k]) || !get_size(&at, &out->offset[k]))
            return false;
        out->bytes[k].n = get_int(&at, 4);
        total += out->bytes[k].n;
    }
    if (to >= OUTPUT_ASK_KINDS || phase >= OUTPUT_PHASES || total != message.n - PART_HEAD_BYTES)
        return false;
    out->to = (enum output_ask_kind)to;
    out->phase = (enum output_phase)phase;
    for (int k = 0; k < OUTPUT_STREAMS; k++) {
        out->bytes[k].p = at;
        at += out->bytes[k].n;
    }
    return true;
}

/* ---- publishing ---- */

static void channel(const char *prefix, struct uuid boot, char out[OUTPUT_CHANNEL_BYTES])
{
    char text[UUID_TEXT_BYTES];
    uuid_format(boot, text);
    snprintf(out, OUTPUT_CHANNEL_BYTES, "%s%s", prefix, text);
}

void output_ask_channel(struct uuid executor, char out[OUTPUT_CHANNEL_BYTES])
{
    channel("sp:ask:", executor, out);
}

void output_part_channel(struct uuid gateway, char out[OUTPUT_CHANNEL_BYTES])
{
    channel("sp:out:", gateway, out);
}

static int publish(struct queue *q, const char *to, struct str message, queue_done_fn *fn, void *arg)
{
    struct args a;
    args_init(&a, 64);
    args_cstr(&a, "PUBLISH");
    args_cstr(&a, to);
    args_str(&a, message);
    return queue_send(q->redis, &a, QUEUE_TIMEOUT_MS, queue_reply_done,
                      queue_call_new((void (*)(void))fn, arg, 0), NULL);
}

int queue_output_ask(struct queue *q, struct uuid executor, struct str message)
{
    char to[OUTPUT_CHANNEL_BYTES];
    output_ask_channel(executor, to);
    return publish(q, to, message, NULL, NULL);
}

int queue_output_answer(struct queue *q, struct uuid gateway, struct str message, queue_done_fn *fn,
                        void *arg)
{
    char to[OUTPUT_CHANNEL_BYTES];
    output_part_channel(gateway, to);
    return publish(q, to, message, fn, arg);
}
