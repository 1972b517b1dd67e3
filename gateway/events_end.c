/* Live streams: what is left when the invocation has ended, and `result`.
 *
 *   finish ──▶ rest of stdout ──▶ rest of stderr ──▶ result, end of the answer
 *     ▲            │ large: a chunk at a time; the client is slow: paused
 *     └── record ◀─┘
 *
 * Nothing is kept between two steps: the record is read again when the stream goes on, and says what is left.
 * When PostgreSQL cannot be read the answer ends without `result`, so the client resumes. */
#include <stdlib.h>

#include "base/log.h"
#include "events.h"
#include "store/record_json.h"

enum {
    STORE_MS = 10000,
};

static void next_chunk(struct stream *s, enum output_stream stream);

/* ---- a record for the next step ---- */

static void on_record(void *arg, const struct record *records, size_t n, const struct err *err)
{
    struct stream *s = arg;
    s->busy = false;
    if (!call_leave(s->c))
        return;
    if (err != NULL || n != 1 || !inv_state_ended(records[0].state))
        stream_close(s);
    else
        stream_finish(s, &records[0]);
}

void stream_finish_later(struct stream *s)
{
    struct call *c = s->c;
    struct record_key key = {.id = s->id, .tenant = c->tenant};
    if (s->busy)
        return;
    call_enter(c);
    s->busy = records_get(c->g->read, &key, 1, STORE_MS, on_record, s, NULL) == 0;
    if (!s->busy && call_leave(c))
        stream_close(s);
}

/* ---- the rest of the streams ---- */

/* Sends up to the stream's end, while there is room. */
static void put_pieces(struct stream *s, enum output_stream stream, struct str bytes)
{
    while (bytes.n > 0 && !s->paused) {
        int64_t left = s->end[stream] - s->reader.at[stream];
        size_t n = bytes.n < OUTPUT_PIECE_BYTES ? bytes.n : OUTPUT_PIECE_BYTES;
        if (!stream_put(s, stream, str_make(bytes.p, n), (int64_t)n == left)) {
            stream_pause(s); /* no memory: again in a moment */
            return;
        }
        bytes = str_make(bytes.p + n, bytes.n - n);
    }
}

/* What cannot be had is said, and passed over. */
static void skip_rest(struct stream *s, enum output_stream stream)
{
    struct event_position p = stream_position(s);
    int64_t to[OUTPUT_STREAMS] = {p.at[OUTPUT_STDOUT], p.at[OUTPUT_STDERR]};
    to[stream] = s->end[stream];
    s->reader.at[stream] = s->end[stream];
    s->carried[stream] = 0;
    stream_gap(s, p.at, to);
}

static void on_chunk(void *arg, struct str data, const struct err *err)
{
    struct stream *s = arg;
    enum output_stream stream =
        s->reader.at[OUTPUT_STDOUT] < s->end[OUTPUT_STDOUT] ? OUTPUT_STDOUT : OUTPUT_STDERR;
    size_t skip = (size_t)(s->reader.at[stream] % INV_CHUNK_BYTES);
    s->busy = false;
    if (!call_leave(s->c))
        return;
    if (err != NULL) {
        stream_close(s);
        return;
    }
    if (data.n > skip)
        put_pieces(s, stream, str_make(data.p + skip, data.n - skip));
    else
        skip_rest(s, stream);
    if (s->paused)
        return; /* on_drained goes on */
    if (s->reader.at[stream] < s->end[stream])
        next_chunk(s, stream);
    else
        stream_finish_later(s);
}

static void next_chunk(struct stream *s, enum output_stream stream)
{
    struct call *c = s->c;
    call_enter(c);
    s->busy =
        blob_get(c->g->read, s->id, stream == OUTPUT_STDOUT ? BLOB_OUTPUT : BLOB_LOGS, s->reader.attempt,
                 (int32_t)(s->reader.at[stream] / INV_CHUNK_BYTES), STORE_MS, on_chunk, s, NULL) == 0;
    if (!s->busy && call_leave(c))
        stream_close(s);
}

/* The stream's bytes were all taken; those of a character that stays incomplete were not sent yet. A record
 * that was cut may lack them (executor/spool.c). */
static bool send_carried(struct stream *s, enum output_stream stream)
{
    int64_t beyond = s->reader.at[stream] - s->end[stream];
    if (beyond >= s->carried[stream]) {
        s->carried[stream] = 0;
        return true;
    }
    s->carried[stream] = (uint8_t)(s->carried[stream] - beyond);
    s->reader.at[stream] = s->end[stream];
    if (stream_put(s, stream, STR(""), true))
        return true;
    stream_pause(s); /* no memory: again in a moment */
    return false;
}

/* True when all of it is sent. */
static bool send_rest(struct stream *s, enum output_stream stream, const struct record *r)
{
    bool whole = stream == OUTPUT_STDOUT ? r->output_inline : r->logs_inline;
    struct str bytes = stream == OUTPUT_STDOUT ? r->output : r->logs;
    int64_t at = s->reader.at[stream];
    if (at >= s->end[stream])
        return send_carried(s, stream);
    if (!whole) {
        next_chunk(s, stream);
        return false;
    }
    put_pieces(s, stream, str_make(bytes.p + at, bytes.n - (size_t)at));
    return !s->paused;
}

/* The record may be of a later attempt than the one that the client saw. */
static void come_to(struct stream *s, const struct record *r)
{
    int16_t before = s->reader.attempt;
    if (before < r->result_attempt) {
        if (before > 0)
            stream_leave(s);
        stream_enter(s, r->result_attempt);
        if (before > 0)
            stream_status(
                s, (struct feed_state){.known = true, .state = r->state, .attempt = r->result_attempt});
    }
    s->end[OUTPUT_STDOUT] = r->output_inline ? (int64_t)r->output.n : r->output_bytes;
    s->end[OUTPUT_STDERR] = r->logs_inline ? (int64_t)r->logs.n : r->logs_bytes;
}

static void send_result(struct stream *s, const struct record *r)
{
    struct buf json, text;
    struct event_position p = stream_position(s);
    buf_init(&json, RECORD_JSON_BYTES);
    buf_init(&text, RECORD_JSON_BYTES + 256);
    record_write(r, NULL, &json);
    event_flatten(&json);
    event_write(&text, &p, "result", buf_view(&json));
    if (json.failed || text.failed)
        log_error("a record is too large for its stream's last event");
    else
        http_stream_write(s->c->req, buf_view(&text));
    buf_deinit(&json);
    buf_deinit(&text);
    stream_close(s);
}

void stream_finish(struct stream *s, const struct record *r)
{
    s->ending = true;
    if (s->paused || s->busy)
        return;
    if (s->reader.attempt > r->result_attempt) { /* settled for an attempt whose end nobody saw */
        send_result(s, r);
        return;
    }
    come_to(s, r);
    for (int k = 0; k < OUTPUT_STREAMS; k++)
        if (!send_rest(s, (enum output_stream)k, r))
            return;
    if (s->paused)
        return;
    send_result(s, r);
}
