/* GET /v1/invocations/{id}/artifacts and …/artifacts/{path}: what the program left.
 *
 * Contents never change, so their SHA-256 is the ETag; they are streamed chunk by chunk in constant memory,
 * ranged. What strangers' programs wrote is never shown in a page: it is an attachment, of no type that a
 * browser would guess. */
#include <stdio.h>
#include <stdlib.h>

#include "byte_range.h"
#include "invocations.h"
#include "json/writer.h"
#include "model/file_path.h"
#include "store/files.h"
#include "store/record_files.h"
#include "store/record_json.h"
#include "store/records.h"

enum { STORE_MS = 10000, ETAG_BYTES = 2 * SHA256_BYTES + 3, NAME_BYTES = 4 * FILE_NAME_MAX + 64 };

/* ---- the list ---- */

struct listing {
    struct call *c;
};

static void on_record(void *arg, const struct record *records, size_t n, const struct err *err)
{
    struct listing *l = arg;
    struct call *c = l->c;
    struct buf body;
    if (!call_leave(c))
        return;
    if (err != NULL) {
        call_fail_query(c, err);
    } else if (n == 0) {
        call_fail_code(c, ERR_NOT_FOUND, "there is no invocation of that id");
    } else if (!inv_state_ended(records[0].state)) {
        call_fail_code(c, ERR_CONFLICT,
                       "the invocation has not ended; wait for it with ?wait=N on its record");
    } else {
        buf_init(&body, RECORD_JSON_BYTES);
        struct json_writer w = json_writer(&body);
        jw_object(&w);
        jw_kid(&w, "id", "inv", records[0].id);
        record_artifacts_write(&records[0], &w);
        jw_object_end(&w);
        call_reply_json(c, 200, &body);
    }
}

void invocation_artifacts(struct call *c)
{
    struct uuid id;
    struct err err = ERR_INIT;
    struct listing *l;
    if (!invocation_id(c, &id))
        return;
    l = calloc(1, sizeof *l);
    if (l == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    l->c = c;
    c->data = l;
    c->free_data = free;
    call_enter(c);
    const struct record_key key = {.id = id, .tenant = c->tenant};
    if (records_get(c->g->read, &key, 1, STORE_MS, on_record, l, &err) != 0 && call_leave(c))
        call_fail(c, &err);
}

/* ---- one ---- */

struct download {
    struct call *c;
    struct file_set set;
    int32_t chunk; /* the file's first */
    struct byte_range range;
    int64_t at; /* the next byte to send */
};

static void next_chunk(struct download *d);

static void on_drained(void *arg, struct http_request *req)
{
    (void)req;
    next_chunk(arg);
}

/* Cannot be completed: must not look complete. */
static void break_off(struct call *c)
{
    http_abort(c->req);
    call_streamed(c, 500);
}

static void on_chunk(void *arg, struct str data, const struct err *err)
{
    struct download *d = arg;
    struct call *c = d->c;
    if (!call_leave(c))
        return;
    size_t skip = (size_t)(d->at % INV_CHUNK_BYTES);
    if (err != NULL || data.n <= skip) {
        break_off(c);
        return;
    }
    int64_t left = d->range.to + 1 - d->at;
    size_t n = data.n - skip < (size_t)left ? data.n - skip : (size_t)left;
    bool room = http_stream_write(c->req, str_make(data.p + skip, n));
    d->at += (int64_t)n;
    if (room || d->at > d->range.to)
        next_chunk(d);
    else
        http_stream_on_drain(c->req, on_drained, d);
}

static void next_chunk(struct download *d)
{
    struct call *c = d->c;
    if (d->at > d->range.to || http_method_of(c->req) == HTTP_M_HEAD) {
        http_stream_end(c->req);
        call_streamed(c, 200);
        return;
    }
    call_enter(c);
    if (file_chunk_get(c->g->read, d->set, d->chunk + (int32_t)(d->at / INV_CHUNK_BYTES), STORE_MS, on_chunk,
                       d, NULL) != 0 &&
        call_leave(c))
        break_off(c);
}

static struct str base_name(struct str path)
{
    for (size_t i = path.n; i > 0; i--)
        if (path.p[i - 1] == '/')
            return str_make(path.p + i, path.n - i);
    return path;
}

static void make_etag(const struct file_entry *f, char out[ETAG_BYTES])
{
    struct buf text;
    buf_init(&text, ETAG_BYTES);
    buf_byte(&text, '"');
    crypto_hex(str_make((const char *)f->sha256, sizeof f->sha256), &text);
    buf_byte(&text, '"');
    str_copy(buf_view(&text), out, ETAG_BYTES);
    buf_deinit(&text);
}

static void set_headers(struct download *d, const struct file_entry *f, const char *etag)
{
    struct buf text;
    buf_init(&text, NAME_BYTES);
    buf_str(&text, STR("attachment; filename*=UTF-8''"));
    record_path_encode(base_name(f->path), &text);
    http_set_header(d->c->req, "Content-Disposition", buf_view(&text));
    buf_deinit(&text);
    http_set_header(d->c->req, "ETag", str_of(etag));
    byte_range_headers(d->c->req, &d->range, f->bytes);
}

static void send(struct download *d, const struct file_entry *f)
{
    struct call *c = d->c;
    char etag[ETAG_BYTES];
    struct str known;
    make_etag(f, etag);
    if (http_header(c->req, "If-None-Match", &known) && (str_eq_c(known, etag) || str_eq_c(known, "*"))) {
        http_set_header(c->req, "ETag", str_of(etag));
        call_reply_bytes(c, 304, NULL, STR(""));
        return;
    }
    if (!byte_range_read(c->req, f->bytes, etag, &d->range)) {
        call_fail_code(c, ERR_RANGE, "the range lies outside the artifact");
        return;
    }
    set_headers(d, f, etag);
    d->chunk = f->chunk;
    d->at = d->range.from;
    http_stream_start(c->req, d->range.partial ? 206 : 200, "application/octet-stream",
                      d->range.to + 1 - d->range.from);
    next_chunk(d);
}

static void on_artifact(void *arg, const struct artifact_found *a, const struct err *err)
{
    struct download *d = arg;
    struct call *c = d->c;
    if (!call_leave(c))
        return;
    if (err != NULL) {
        call_fail_query(c, err);
    } else if (!a->found) {
        call_fail_code(c, ERR_NOT_FOUND, "there is no invocation of that id");
    } else if (a->set.attempt == 0) {
        call_fail_code(c, ERR_CONFLICT,
                       "the invocation has not ended; wait for it with ?wait=N on its record");
    } else if (a->file == NULL) {
        call_fail_code(c, ERR_NOT_FOUND, "the invocation left no artifact of that path");
    } else {
        d->set = a->set;
        send(d, a->file);
    }
}

/* What stands behind "/artifacts/", decoded. The arena lives as long as the request. */
static bool path_of(struct call *c, struct str *out)
{
    struct str rest = http_path(c->req), part;
    struct err err = ERR_INIT;
    for (int i = 0; i < 5; i++) /* "", v1, invocations, id, artifacts */
        str_split(&rest, '/', &part);
    return rest.p != NULL && http_decode(c->req, rest, false, out) && file_path_check(*out, &err) == 0;
}

void invocation_artifact(struct call *c)
{
    struct uuid id;
    struct str path;
    struct err err = ERR_INIT;
    struct download *d;
    if (!invocation_id(c, &id))
        return;
    if (!path_of(c, &path)) {
        call_fail_code(c, ERR_NOT_FOUND, "the invocation left no artifact of that path");
        return;
    }
    d = calloc(1, sizeof *d);
    if (d == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    *d = (struct download){.c = c};
    c->data = d;
    c->free_data = free;
    call_enter(c);
    if (artifact_get(c->g->read, id, c->tenant, path, STORE_MS, on_artifact, d, &err) != 0 && call_leave(c))
        call_fail(c, &err);
}
