/* GET /v1/invocations/{id}/output and …/logs: the raw bytes, ranged; from the result's row when they are
 * small, streamed chunk by chunk in constant memory when they are large. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "invocations.h"
#include "store/records.h"

enum { STORE_MS = 10000 };

struct range {
    int64_t from, to; /* inclusive */
    bool partial;
};

struct output {
    struct call *c;
    struct uuid id;
    bool logs;
    int16_t attempt;
    struct range range;
    int64_t at; /* the next byte to send */
    bool paused;
};

/* "bytes=a-b", "bytes=a-", "bytes=-n"; one range. Anything else is ignored, as RFC 9110 allows. False: not
 * satisfiable. */
static bool parse_range(struct str header, int64_t size, struct range *out)
{
    struct str rest, first;
    int64_t a = 0, b = 0;
    *out = (struct range){.to = size - 1};
    if (!str_starts(header, STR("bytes=")))
        return true;
    rest = str_make(header.p + 6, header.n - 6);
    if (memchr(rest.p, ',', rest.n) != NULL || !str_split(&rest, '-', &first) || rest.p == NULL)
        return true;
    bool has_a = str_to_i64(first, &a) && a >= 0, has_b = str_to_i64(rest, &b) && b >= 0;
    if ((first.n > 0 && !has_a) || (rest.n > 0 && !has_b) || (!has_a && !has_b) || (has_a && has_b && b < a))
        return true;
    if (!has_a && b == 0)
        return false;
    out->from = has_a ? a : size - b > 0 ? size - b : 0;
    out->to = has_a && has_b && b < size ? b : size - 1;
    out->partial = true;
    return out->from < size;
}

static void set_headers(struct output *o, int64_t size)
{
    http_set_header(o->c->req, "Accept-Ranges", STR("bytes"));
    http_set_header(o->c->req, "X-Content-Type-Options", STR("nosniff"));
    if (!o->range.partial)
        return;
    char text[80];
    snprintf(text, sizeof text, "bytes %lld-%lld/%lld", (long long)o->range.from, (long long)o->range.to,
             (long long)size);
    http_set_header(o->c->req, "Content-Range", str_of(text));
}

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
    struct str header = str_of(NULL);
    http_header(c->req, "Range", &header);
    if (!parse_range(header, size, &o->range)) {
        call_fail_code(c, ERR_RANGE, "the range lies outside the content");
        return;
    }
    set_headers(o, size);
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
