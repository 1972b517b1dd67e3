/* GET /v1/invocations/{id}/output and …/logs: the raw bytes, ranged; from the result's row when they are
 * small, streamed chunk by chunk in constant memory when they are large. */
#include <stdlib.h>

#include "byte_range.h"
#include "invocations.h"
#include "store/records.h"

enum { STORE_MS = 10000 };

struct output {
    struct call *c;
    struct uuid id;
    bool logs;
    int16_t attempt;
    struct byte_range range;
    int64_t at; /* the next byte to send */
    bool paused;
};

/* ---- streaming ---- */

static void next_chunk(struct output *o);

static void on_drained(void *arg, struct http_request *req)
{
    (void)req;
    struct output *o = arg;
    o->paused = false;
    next_chunk(o);
}

static void on_chunk(void *arg, struct str data, const struct err *err)
{
    struct output *o = arg;
    struct call *c = o->c;
    if (!call_leave(c))
        return;
    size_t skip = (size_t)(o->at % INV_CHUNK_BYTES);
    if (err != NULL || data.n <= skip) { /* cannot be completed: must not look complete */
        http_abort(c->req);
        call_streamed(c, 500);
        return;
    }
    int64_t left = o->range.to + 1 - o->at;
    size_t n = data.n - skip < (size_t)left ? data.n - skip : (size_t)left;
    bool room = http_stream_write(c->req, str_make(data.p + skip, n));
    o->at += (int64_t)n;
    if (room || o->at > o->range.to) {
        next_chunk(o);
        return;
    }
    o->paused = true;
    http_stream_on_drain(c->req, on_drained, o);
}

static void next_chunk(struct output *o)
{
    struct call *c = o->c;
    if (o->at > o->range.to) {
        http_stream_end(c->req);
        call_streamed(c, 200);
        return;
    }
    call_enter(c);
    if (blob_get(c->g->read, o->id, o->logs ? BLOB_LOGS : BLOB_OUTPUT, o->attempt,
                 (int32_t)(o->at / INV_CHUNK_BYTES), STORE_MS, on_chunk, o, NULL) == 0)
        return;
    if (call_leave(c)) {
        http_abort(c->req);
        call_streamed(c, 500);
    }
}

/* ---- the record ---- */

static void send(struct output *o, const struct record *r)
{
    struct call *c = o->c;
    struct str bytes = o->logs ? r->logs : r->output;
    bool whole = o->logs ? r->logs_inline : r->output_inline;
    int64_t size = whole ? (int64_t)bytes.n : o->logs ? r->logs_bytes : r->output_bytes;
    const char *type = o->logs ? "text/plain; charset=utf-8" : "application/octet-stream";
    if (!byte_range_read(c->req, size, NULL, &o->range)) {
        call_fail_code(c, ERR_RANGE, "the range lies outside the content");
        return;
    }
    byte_range_headers(c->req, &o->range, size);
    o->attempt = r->result_attempt;
    o->at = o->range.from;
    int status = o->range.partial ? 206 : 200;
    int64_t length = o->range.to + 1 - o->range.from;
    if (whole) {
        call_reply_bytes(c, status, type, str_make(bytes.p + o->range.from, (size_t)length));
        return;
    }
    http_stream_start(c->req, status, type, length);
    next_chunk(o);
}

static void on_record(void *arg, const struct record *records, size_t n, const struct err *err)
{
    struct output *o = arg;
    struct call *c = o->c;
    if (!call_leave(c))
        return;
    if (err != NULL)
        call_fail_query(c, err);
    else if (n == 0)
        call_fail_code(c, ERR_NOT_FOUND, "there is no invocation of that id");
    else if (!inv_state_ended(records[0].state))
        call_fail_code(c, ERR_CONFLICT,
                       "the invocation has not ended; wait for it with ?wait=N on its record");
    else
        send(o, &records[0]);
}

static void show(struct call *c, bool logs)
{
    struct uuid id;
    struct err err = ERR_INIT;
    if (!invocation_id(c, &id))
        return;
    struct output *o = calloc(1, sizeof *o);
    if (o == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    *o = (struct output){.c = c, .id = id, .logs = logs};
    c->data = o;
    c->free_data = free;
    call_enter(c);
    struct record_key key = {.id = id, .tenant = c->tenant};
    if (records_get(c->g->read, &key, 1, STORE_MS, on_record, o, &err) == 0)
        return;
    if (call_leave(c))
        call_fail(c, &err);
}

void invocation_output(struct call *c)
{
    show(c, false);
}

void invocation_logs(struct call *c)
{
    show(c, true);
}
