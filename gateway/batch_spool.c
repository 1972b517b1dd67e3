/* The spool: a file of items; and of large prompts' chunks, hooks and later starts where there are any. Each
 * row has a head that says how long it is and what is to be filled in. */
#include "batch_spool.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"

enum {
    WRITE_BYTES = 256 * 1024, /* gathered before they are written */
    ROW_MAX = 512 * 1024,     /* a chunk, or an item with a prompt of its own, is smaller */
    READ_BYTES = 256 * 1024,
};

struct row_head {
    uint32_t bytes; /* of the row behind it */
    uint32_t item;  /* its number in the batch, from 0 */
    uint16_t agent;
    uint8_t timeout, queue_timeout;
};

struct stream {
    int fd;
    int64_t bytes;
    struct buf out; /* to be written */
    /* reading back */
    int64_t at;
    bool headed, ended;
};

struct batch_spool {
    struct gateway *g;
    struct stream streams[BATCH_STREAMS];
    uint32_t items;
    int32_t delayed;
    struct buf in, rows;
    struct batch_spool_fill fill;
};

static int open_stream(struct batch_spool *s, struct stream *t, struct err *err)
{
    buf_init(&t->out, WRITE_BYTES + ROW_MAX);
    t->fd = open(s->g->settings->spool_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (t->fd >= 0)
        return 0;
    log_error("cannot spool batches", LF_STR("dir", s->g->settings->spool_dir));
    return err_set(err, ERR_UNAVAILABLE, "no room to spool the batch");
}

struct batch_spool *batch_spool_new(struct gateway *g, struct err *err)
{
    struct batch_spool *s = calloc(1, sizeof *s);
    if (s == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory for a batch");
        return NULL;
    }
    s->g = g;
    for (int i = 0; i < BATCH_STREAMS; i++)
        s->streams[i].fd = -1;
    buf_init(&s->in, READ_BYTES + ROW_MAX);
    buf_init(&s->rows, READ_BYTES + ROW_MAX);
    if (open_stream(s, &s->streams[BATCH_STREAM_ITEMS], err) != 0)
        batch_spool_free(&s);
    return s;
}

void batch_spool_free(struct batch_spool **ps)
{
    if (ps == NULL || *ps == NULL)
        return;
    struct batch_spool *s = *ps;
    *ps = NULL;
    for (int i = 0; i < BATCH_STREAMS; i++) {
        s->g->batch_spooled -= s->streams[i].bytes;
        if (s->streams[i].fd >= 0)
            close(s->streams[i].fd);
        buf_deinit(&s->streams[i].out);
    }
    buf_deinit(&s->in);
    buf_deinit(&s->rows);
    free(s);
}

bool batch_spool_has(const struct batch_spool *s, enum batch_stream stream)
{
    return s->streams[stream].fd >= 0;
}

int32_t batch_spool_delayed(const struct batch_spool *s)
{
    return s->delayed;
}

/* ---- writing ---- */

static int flush(struct batch_spool *s, struct stream *t, struct err *err)
{
    int64_t n = (int64_t)t->out.len;
    if (t->out.failed)
        return err_set(err, ERR_NO_MEMORY, "no memory for a batch");
    if (s->g->batch_spooled + n > s->g->settings->batch_spool_bytes)
        return err_set(err, ERR_OVERLOADED,
                       "batches on their way take all the room that they may have; try again later");
    s->g->batch_spooled += n;
    t->bytes += n;
    for (size_t at = 0; at < t->out.len;) { /* the page cache takes it: bounded by the spool's limit */
        ssize_t wrote = write(t->fd, t->out.data + at, t->out.len - at);
        if (wrote <= 0)
            return err_set(err, ERR_UNAVAILABLE, "no room to spool the batch");
        at += (size_t)wrote;
    }
    buf_clear(&t->out);
    return 0;
}

/* The head's place is before the row; its length is known behind it. */
static size_t begin_row(struct stream *t)
{
    static const struct row_head none;
    size_t at = t->out.len;
    buf_append(&t->out, &none, sizeof none);
    return at;
}

static int end_row(struct batch_spool *s, struct stream *t, size_t at, struct row_head head, struct err *err)
{
    head.item = s->items;
    head.bytes = (uint32_t)(t->out.len - at - sizeof head);
    if (!t->out.failed)
        memcpy(t->out.data + at, &head, sizeof head);
    return t->out.failed || t->out.len >= WRITE_BYTES ? flush(s, t, err) : 0;
}

/* The stream, opened with its first row; NULL and *err. */
static struct stream *stream_for(struct batch_spool *s, enum batch_stream stream, struct err *err)
{
    struct stream *t = &s->streams[stream];
    return t->fd >= 0 || open_stream(s, t, err) == 0 ? t : NULL;
}

static int put_chunks(struct batch_spool *s, struct str prompt, struct err *err)
{
    struct stream *t = stream_for(s, BATCH_STREAM_CHUNKS, err);
    if (t == NULL)
        return -1;
    int32_t chunk = 0;
    for (size_t i = 0; i < prompt.n; i += INV_CHUNK_BYTES, chunk++) {
        size_t left = prompt.n - i, at = begin_row(t);
        batch_chunk_put(&t->out, chunk,
                        str_make(prompt.p + i, left < INV_CHUNK_BYTES ? left : INV_CHUNK_BYTES));
        if (end_row(s, t, at, (struct row_head){0}, err) != 0)
            return -1;
    }
    return 0;
}

static int put_hook(struct batch_spool *s, const struct batch_item *item, struct err *err)
{
    struct stream *t = stream_for(s, BATCH_STREAM_HOOKS, err);
    if (t == NULL)
        return -1;
    size_t at = begin_row(t);
    batch_hook_put(&t->out, item->tenant, item->sub->hook);
    return end_row(s, t, at, (struct row_head){0}, err);
}

static int put_start(struct batch_spool *s, const struct batch_item *item, struct err *err)
{
    struct stream *t = stream_for(s, BATCH_STREAM_STARTS, err);
    if (t == NULL)
        return -1;
    size_t at = begin_row(t);
    batch_start_put(&t->out, item->tenant, item->sub->not_before);
    s->delayed++;
    return end_row(s, t, at, (struct row_head){0}, err);
}

int batch_spool_put(struct batch_spool *s, const struct batch_item *item, const struct batch_spool_late *late,
                    struct err *err)
{
    struct stream *t = &s->streams[BATCH_STREAM_ITEMS];
    size_t at = begin_row(t);
    batch_item_put(&t->out, item);
    const struct row_head head = {
        .agent = late->agent, .timeout = late->timeout, .queue_timeout = late->queue_timeout};
    if (end_row(s, t, at, head, err) != 0 ||
        (item->sub->prompt.n > INV_INLINE_BYTES && put_chunks(s, item->sub->prompt, err) != 0) ||
        (item->sub->hook != NULL && put_hook(s, item, err) != 0) ||
        (item->sub->not_before.us != 0 && put_start(s, item, err) != 0))
        return -1;
    s->items++;
    return 0;
}

int batch_spool_end(struct batch_spool *s, struct err *err)
{
    for (int i = 0; i < BATCH_STREAMS; i++) {
        if (s->streams[i].fd >= 0 && flush(s, &s->streams[i], err) != 0)
            return -1;
        buf_deinit(&s->streams[i].out);
    }
    return 0;
}

/* ---- reading back ---- */

void batch_spool_rewind(struct batch_spool *s, const struct batch_spool_fill *fill)
{
    s->fill = *fill;
    buf_clear(&s->in);
    for (int i = 0; i < BATCH_STREAMS; i++) {
        s->streams[i].at = 0;
        s->streams[i].headed = s->streams[i].ended = false;
    }
}

static void fill_row(const struct batch_spool *s, enum batch_stream stream, const struct row_head *h,
                     char *row)
{
    struct uuid id = uuid_of_series(s->fill.first, h->item);
    if (stream != BATCH_STREAM_ITEMS) {
        batch_id_fill(row, id);
        return;
    }
    const struct agent_target *t = &s->fill.targets[h->agent];
    struct batch_item_late late = {
        .id = id, .agent = t->agent, .version = t->version, .priority = s->fill.priority};
    if (h->timeout != 0)
        late.timeout_ms = s->fill.timeout_ms > 0 ? s->fill.timeout_ms
                          : t->timeout_ms > 0    ? t->timeout_ms
                                                 : INV_TIMEOUT_DEFAULT_MS;
    late.max_attempts = t->max_attempts > 0 ? t->max_attempts : 1;
    late.retry_on = t->retry_on;
    if (h->queue_timeout != 0)
        late.queue_timeout_ms = s->fill.queue_timeout_ms;
    batch_item_fill(row, &late);
}

/* The whole rows among what was read, without their heads. */
static void take_rows(struct batch_spool *s, enum batch_stream stream)
{
    size_t at = 0;
    struct row_head h;
    while (s->in.len - at >= sizeof h) {
        memcpy(&h, s->in.data + at, sizeof h);
        if (s->in.len - at - sizeof h < h.bytes)
            break;
        fill_row(s, stream, &h, s->in.data + at + sizeof h);
        buf_append(&s->rows, s->in.data + at + sizeof h, h.bytes);
        at += sizeof h + h.bytes;
    }
    buf_consume(&s->in, at);
}

static int read_more(struct batch_spool *s, struct stream *t)
{
    char *to = buf_reserve(&s->in, READ_BYTES);
    ssize_t n = to != NULL ? pread(t->fd, to, READ_BYTES, t->at) : -1;
    if (n < 0 || (n == 0 && t->at < t->bytes))
        return -1;
    buf_commit(&s->in, (size_t)n);
    t->at += n;
    return 0;
}

int batch_spool_source(void *arg, enum batch_stream stream, struct str *piece_out)
{
    struct batch_spool *s = arg;
    struct stream *t = &s->streams[stream];
    buf_clear(&s->rows);
    if (t->ended)
        return 0;
    if (!t->headed)
        buf_str(&s->rows, batch_copy_header);
    t->headed = true;
    while (t->at < t->bytes && s->rows.len <= batch_copy_header.n) {
        if (read_more(s, t) != 0) {
            log_error("a spooled batch cannot be read back");
            return -1;
        }
        take_rows(s, stream);
    }
    if (t->at >= t->bytes) {
        buf_str(&s->rows, batch_copy_trailer);
        t->ended = true;
        if (s->in.len > 0)
            return -1; /* half a row: cannot be */
    }
    *piece_out = buf_view(&s->rows);
    return s->rows.failed ? -1 : 1;
}
