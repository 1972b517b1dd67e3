/* GET /v1/batches/{id}/results: what has ended, as NDJSON, in an order that stays: each line has a cursor
 * that goes on behind it. With ?follow=true the answer goes on until the batch has ended.
 *
 *   batch -> page of places -> their records -> lines, as fast as the client takes them -> next page …
 *                   └─ none: complete, or not followed: the end; else again in a moment
 *
 * One page of records is held; how many go into one follows their size. */
#include <stdlib.h>

#include "base/log.h"
#include "batches.h"
#include "json/writer.h"
#include "store/record_json.h"
#include "store/records.h"

enum {
    STORE_MS = 10000,
    AGAIN_MS = 250,
    STREAMS_MAX = 256,
    PAGE_FIRST = 16,
    PAGE_BYTES = 1024 * 1024, /* what a page of lines should come to */
    PIECE_BYTES = 64 * 1024,
};

struct results {
    struct call *c;
    struct uuid id, first, last;
    struct batch_place at;
    struct buf scope;
    bool follow, counted, started;
    struct loop_timer *again;
    int limit;
    struct batch_place page[BATCH_RESULTS_PAGE_MAX];
    size_t n;
    struct buf lines;
    size_t sent; /* of the lines */
};

static void ask(void *arg);
static void send_lines(struct results *r);

static void results_free(void *data)
{
    struct results *r = data;
    loop_timer_free(&r->again);
    buf_deinit(&r->scope);
    buf_deinit(&r->lines);
    if (r->counted)
        r->c->g->batch_streams--;
    free(r);
}

/* The client hung up: nothing more is asked for. */
static void on_gone(struct call *c)
{
    struct results *r = c->data;
    loop_timer_free(&r->again);
}

static void end_stream(struct results *r)
{
    struct call *c = r->c;
    http_stream_end(c->req);
    call_streamed(c, 200);
}

/* What cannot be completed must not look complete. */
static void fail(struct results *r, const struct err *err)
{
    struct call *c = r->c;
    if (!r->started) {
        call_fail_query(c, err);
        return;
    }
    log_warn("results of a batch broke off; the caller goes on from the last cursor", LF_ERR(err));
    http_abort(c->req);
    call_streamed(c, 500);
}

/* ---- lines ---- */

static void put_cursor(const struct results *r, const struct batch_place *at, struct json_writer *w)
{
    char position[sizeof at->xid + sizeof at->id];
    struct buf text;
    memcpy(position, &at->xid, sizeof at->xid);
    memcpy(position + sizeof at->xid, &at->id, sizeof at->id);
    buf_init(&text, CURSOR_TEXT_MAX);
    cursor_write(&r->c->g->cursor_key, r->c->tenant, buf_view(&r->scope), str_make(position, sizeof position),
                 &text);
    jw_kstr(w, "cursor", buf_view(&text));
    buf_deinit(&text);
}

static int read_cursor(struct results *r, struct str text, struct err *err)
{
    struct buf position;
    buf_init(&position, CURSOR_POSITION_MAX);
    int rc = cursor_read(&r->c->g->cursor_key, r->c->tenant, buf_view(&r->scope), text, &position, err);
    if (rc == 0 && position.len == sizeof r->at.xid + sizeof r->at.id) {
        memcpy(&r->at.xid, position.data, sizeof r->at.xid);
        memcpy(&r->at.id, position.data + sizeof r->at.xid, sizeof r->at.id);
    } else if (rc == 0) {
        rc = err_set(err, ERR_BAD_CURSOR, "the cursor is of another version");
    }
    buf_deinit(&position);
    return rc;
}

/* The record, and the cursor as its last member. */
static void put_line(struct results *r, const struct record *record, const struct batch_place *at)
{
    record_write_result(record, &r->lines);
    if (r->lines.failed)
        return;
    r->lines.len--; /* the closing brace */
    struct json_writer w = json_writer(&r->lines);
    w.comma = true;
    put_cursor(r, at, &w);
    buf_cstr_append(&r->lines, "}\n");
}

static const struct record *record_of(const struct record *records, size_t n, struct uuid id)
{
    for (size_t i = 0; i < n; i++)
        if (uuid_eq(records[i].id, id))
            return &records[i];
    return NULL;
}

/* Records come mostly in the order asked for. */
static void put_page(struct results *r, const struct record *records, size_t n)
{
    for (size_t i = 0; i < r->n; i++) {
        bool in_place = i < n && uuid_eq(records[i].id, r->page[i].id);
        const struct record *record = in_place ? &records[i] : record_of(records, n, r->page[i].id);
        if (record != NULL)
            put_line(r, record, &r->page[i]);
    }
    size_t line = r->n > 0 ? r->lines.len / r->n + 1 : 1;
    size_t limit = PAGE_BYTES / line;
    r->limit = limit < PAGE_FIRST               ? PAGE_FIRST
               : limit > BATCH_RESULTS_PAGE_MAX ? BATCH_RESULTS_PAGE_MAX
                                                : (int)limit;
}

/* ---- sending ---- */

static void on_drained(void *arg, struct http_request *req)
{
    (void)req;
    send_lines(arg);
}

static void send_lines(struct results *r)
{
    while (r->sent < r->lines.len) {
        size_t left = r->lines.len - r->sent, n = left < PIECE_BYTES ? left : PIECE_BYTES;
        bool room = http_stream_write(r->c->req, str_make(r->lines.data + r->sent, n));
        r->sent += n;
        if (!room) {
            http_stream_on_drain(r->c->req, on_drained, r);
            return;
        }
    }
    r->sent = 0;
    if (r->lines.cap > 2 * PAGE_BYTES)
        buf_deinit(&r->lines);
    else
        buf_clear(&r->lines);
    loop_timer_start(r->again, 0); /* in a turn of its own: no page within a page */
}

static void on_records(void *arg, const struct record *records, size_t n, const struct err *err)
{
    struct results *r = arg;
    struct err full;
    if (!call_leave(r->c))
        return;
    if (err == NULL)
        put_page(r, records, n);
    if (err == NULL && r->lines.failed) {
        err_set(&full, ERR_NO_MEMORY, "no memory for results");
        err = &full;
    }
    if (err != NULL) {
        fail(r, err);
        return;
    }
    r->at = r->page[r->n - 1];
    send_lines(r);
}

/* ---- pages ---- */

static void on_page(void *arg, const struct batch_results *page, const struct err *err)
{
    struct results *r = arg;
    struct call *c = r->c;
    struct record_key keys[BATCH_RESULTS_PAGE_MAX];
    struct err none = ERR_INIT;
    if (!call_leave(c))
        return;
    if (err != NULL) {
        fail(r, err);
        return;
    }
    if (page->n == 0) {
        if (page->complete || !page->found || !r->follow || c->g->draining)
            end_stream(r);
        else
            loop_timer_start(r->again, AGAIN_MS);
        return;
    }
    r->n = page->n;
    for (size_t i = 0; i < page->n; i++) {
        r->page[i] = page->places[i];
        keys[i] = (struct record_key){.id = page->places[i].id, .tenant = c->tenant};
    }
    call_enter(c);
    if (records_get_results(c->g->read, keys, r->n, STORE_MS, on_records, r, &none) != 0 && call_leave(c))
        fail(r, &none);
}

static void ask(void *arg)
{
    struct results *r = arg;
    struct call *c = r->c;
    struct err err = ERR_INIT;
    call_enter(c);
    if (batch_results_get(c->g->read, r->id, c->tenant, r->first, r->last, r->at, r->limit, STORE_MS, on_page,
                          r, &err) != 0 &&
        call_leave(c))
        fail(r, &err);
}

static void on_batch(void *arg, const struct batch *batches, size_t n, const struct err *err)
{
    struct results *r = arg;
    struct call *c = r->c;
    if (!call_leave(c))
        return;
    if (err != NULL) {
        call_fail_query(c, err);
        return;
    }
    if (n == 0) {
        call_fail_code(c, ERR_NOT_FOUND, "there is no batch of that id");
        return;
    }
    r->first = batches[0].first;
    r->last = batches[0].last;
    http_stream_start(c->req, 200, "application/x-ndjson", -1);
    r->started = true;
    ask(r);
}

/* ---- the request ---- */

static int read_query(struct results *r, struct err *err)
{
    struct str v;
    int got = http_query_get(r->c->req, "follow", &v, err);
    if (got < 0)
        return -1;
    r->follow = got > 0 && str_eq_c(v, "true");
    if (got > 0 && !r->follow && !str_eq_c(v, "false"))
        return err_set(err, ERR_BAD_QUERY, "follow must be true or false");
    got = http_query_get(r->c->req, "cursor", &v, err);
    return got <= 0 ? got : read_cursor(r, v, err);
}

static int begin(struct results *r, struct err *err)
{
    struct gateway *g = r->c->g;
    char text[UUID_TEXT_BYTES];
    uuid_format(r->id, text);
    buf_printf(&r->scope, "results\n%s", text);
    if (read_query(r, err) != 0)
        return -1;
    if (g->batch_streams >= STREAMS_MAX)
        return err_set(err, ERR_OVERLOADED, "too many callers are sent results; try again later");
    g->batch_streams++;
    r->counted = true;
    r->again = loop_timer_new(g->loop, ask, r);
    return r->again != NULL ? 0 : err_set(err, ERR_NO_MEMORY, "no memory for results");
}

void batch_results_call(struct call *c)
{
    struct uuid id;
    struct err err = ERR_INIT;
    if (!batch_id(c, &id))
        return;
    struct results *r = calloc(1, sizeof *r);
    if (r == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    *r = (struct results){.c = c, .id = id, .limit = PAGE_FIRST};
    buf_init(&r->scope, 128);
    buf_init(&r->lines, (size_t)PAGE_FIRST * RECORD_JSON_BYTES + PAGE_BYTES);
    c->data = r;
    c->free_data = results_free;
    c->gone = on_gone;
    if (begin(r, &err) != 0) {
        call_fail(c, &err);
        return;
    }
    call_enter(c);
    if (batch_get(c->g->read, id, c->tenant, STORE_MS, on_batch, r, &err) != 0 && call_leave(c))
        call_fail(c, &err);
}
