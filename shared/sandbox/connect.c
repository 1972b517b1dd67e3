/* A frame that lies whole in the input is handed out where it lies; only a divided one is gathered. */
#include "sandbox/connect.h"

void connect_init(struct connect_decoder *d)
{
    buf_init(&d->partial, CONNECT_HEAD_BYTES + CONNECT_FRAME_MAX);
}

void connect_deinit(struct connect_decoder *d)
{
    buf_deinit(&d->partial);
}

static int read_head(const char *p, size_t *length_out, struct err *err)
{
    const unsigned char *h = (const unsigned char *)p;
    if ((h[0] & ~(unsigned)CONNECT_END_STREAM) != 0)
        return err_set(err, ERR_PROTOCOL, "a frame with flags 0x%02x", h[0]);
    uint32_t n = (uint32_t)h[1] << 24 | (uint32_t)h[2] << 16 | (uint32_t)h[3] << 8 | h[4];
    if (n > CONNECT_FRAME_MAX)
        return err_set(err, ERR_PROTOCOL, "a frame of %lu bytes", (unsigned long)n);
    *length_out = n;
    return 0;
}

static struct connect_frame frame_at(const char *p, size_t length)
{
    return (struct connect_frame){
        .end_stream = ((unsigned char)p[0] & CONNECT_END_STREAM) != 0,
        .payload = str_make(p + CONNECT_HEAD_BYTES, length),
    };
}

/* Moves bytes into `partial` until it has `want` of them; false when the input was too short. */
static int fill(struct connect_decoder *d, struct str *in, size_t want, struct err *err)
{
    size_t missing = want - d->partial.len, n = in->n < missing ? in->n : missing;
    if (!buf_append(&d->partial, in->p, n))
        return err_set(err, ERR_NO_MEMORY, "a frame");
    *in = str_make(in->p + n, in->n - n);
    return d->partial.len == want;
}

/* Drops the frame handed out last; large memory is given back. */
static void drop_complete(struct connect_decoder *d)
{
    size_t length = 0;
    struct err ignored;
    if (d->partial.len < CONNECT_HEAD_BYTES || read_head(d->partial.data, &length, &ignored) != 0 ||
        d->partial.len < CONNECT_HEAD_BYTES + length)
        return;
    if (d->partial.cap > 4096) {
        connect_deinit(d);
        connect_init(d);
    }
    buf_clear(&d->partial);
}

int connect_next(struct connect_decoder *d, struct str *in, struct connect_frame *out, struct err *err)
{
    size_t length = 0;
    drop_complete(d);
    if (in->n == 0)
        return 0;
    if (d->partial.len == 0 && in->n >= CONNECT_HEAD_BYTES) {
        if (read_head(in->p, &length, err) != 0)
            return -1;
        if (in->n - CONNECT_HEAD_BYTES >= length) {
            *out = frame_at(in->p, length);
            size_t n = CONNECT_HEAD_BYTES + length;
            *in = str_make(in->p + n, in->n - n);
            return 1;
        }
    }
    int got = d->partial.len >= CONNECT_HEAD_BYTES ? 1 : fill(d, in, CONNECT_HEAD_BYTES, err);
    if (got <= 0)
        return got;
    if (read_head(d->partial.data, &length, err) != 0)
        return -1;
    got = fill(d, in, CONNECT_HEAD_BYTES + length, err);
    if (got > 0)
        *out = frame_at(d->partial.data, length);
    return got;
}

bool connect_midway(const struct connect_decoder *d)
{
    size_t length = 0;
    struct err ignored;
    if (d->partial.len < CONNECT_HEAD_BYTES)
        return d->partial.len > 0;
    return read_head(d->partial.data, &length, &ignored) != 0 || d->partial.len < CONNECT_HEAD_BYTES + length;
}

bool connect_encode(struct str message, struct buf *out)
{
    uint32_t n = (uint32_t)message.n;
    const char head[CONNECT_HEAD_BYTES] = {0, (char)(n >> 24), (char)(n >> 16), (char)(n >> 8), (char)n};
    return message.n <= CONNECT_FRAME_MAX && buf_append(out, head, sizeof head) && buf_str(out, message);
}
