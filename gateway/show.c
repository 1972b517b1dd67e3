/* Answering with an invocation's record. One `show` a call, kept as the call's data:
 *
 *   (wait first) -> fetch -> ended: answer
 *                         -> open and to be waited for: wait (the waiter was added before the fetch) -> told:
 * answer
 *                         -> open: live state -> answer
 */
#include "show.h"

#include <stdio.h>
#include <stdlib.h>

#include "crypto/crypto.h"
#include "store/record_json.h"
#include "waiters.h"

enum { FETCH_MS = 5000, ETAG_HASH_BYTES = 16, ETAG_BYTES = 2 * ETAG_HASH_BYTES + 3 };

struct show {
    struct call *c;
    struct uuid id;
    struct waiter *waiter;
    int open_status;
    bool fetching;
    struct record record;
    struct arena *arena;
};

static void fetch(struct show *s);

static void show_free(void *data)
{
    struct show *s = data;
    waiter_remove(&s->waiter);
    arena_free(&s->arena);
    free(s);
}

static void on_gone(struct call *c)
{
    struct show *s = c->data;
    waiter_remove(&s->waiter);
}

static struct show *show_new(struct call *c, struct uuid id, int open_status)
{
    struct show *s = calloc(1, sizeof *s);
    if (s == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return NULL;
    }
    *s = (struct show){.c = c, .id = id, .open_status = open_status};
    if (c->free_data != NULL)
        c->free_data(c->data);
    c->data = s;
    c->free_data = show_free;
    c->gone = on_gone;
    return s;
}

/* Strong: it is made of the very bytes. */
static void make_etag(struct str body, char out[ETAG_BYTES])
{
    uint8_t hash[SHA256_BYTES];
    struct buf text;
    crypto_sha256(body, hash);
    buf_init(&text, ETAG_BYTES);
    buf_byte(&text, '"');
    crypto_hex(str_make((const char *)hash, ETAG_HASH_BYTES), &text);
    buf_byte(&text, '"');
    str_copy(buf_view(&text), out, ETAG_BYTES);
    buf_deinit(&text);
}

/* RFC 9110, 13.1.2: any of the listed, weakly compared; "*" is whatever there is. */
static bool has_already(struct http_request *r, struct str etag)
{
    struct str rest, item;
    if (!http_header(r, "If-None-Match", &rest))
        return false;
    while (str_split(&rest, ',', &item)) {
        item = str_trim(item);
        if (str_starts(item, STR("W/")))
            item = str_make(item.p + 2, item.n - 2);
        if (str_eq(item, etag) || str_eq_c(item, "*"))
            return true;
    }
    return false;
}

static void set_headers(struct show *s, const struct record *r, int status, const char *etag)
{
    struct http_request *req = s->c->req;
    if (status == 202) {
        char id[ID_TEXT_BYTES], location[ID_TEXT_BYTES + 24];
        id_format("inv", r->id, id);
        snprintf(location, sizeof location, "/v1/invocations/%s", id);
        http_set_header(req, "Location", str_of(location));
    } else {
        http_set_header(req, "ETag", str_of(etag));
    }
    if (!inv_state_ended(r->state))
        http_set_header_int(req, "Retry-After", 1);
}

static void answer(struct show *s, const struct record *r, const struct live_state *live)
{
    struct call *c = s->c;
    struct buf body;
    char etag[ETAG_BYTES];
    int status = live == NULL ? 200 : s->open_status;
    buf_init(&body, RECORD_JSON_BYTES);
    record_write(r, live, &body);
    make_etag(buf_view(&body), etag);
    if (c->req != NULL)
        set_headers(s, r, status, etag);
    if (c->req == NULL || http_method_of(c->req) == HTTP_M_POST || !has_already(c->req, str_of(etag))) {
        call_reply_json(c, status, &body);
        return;
    }
    buf_deinit(&body);
    call_reply_bytes(c, 304, NULL, STR(""));
}

/* ---- open records: live state ---- */

static void on_live(void *arg, const struct queue_live *live, size_t n, const struct err *err)
{
    struct show *s = arg;
    if (!call_leave(s->c))
        return;
    struct live_state state = {.stale = err != NULL, .state = record_waiting_state(&s->record, wall_now())};
    if (err == NULL && n == 1 && live[0].state != INV_NONE)
        state = (struct live_state){.state = live[0].state, .attempt = live[0].attempt};
    answer(s, &s->record, &state);
}

/* The record's views die with the query's result: what an open record shows is copied. */
static bool keep(struct show *s, const struct record *r)
{
    s->arena = arena_new(256 * 1024);
    if (s->arena == NULL)
        return false;
    s->record = *r;
    struct str *views[] = {&s->record.agent,    &s->record.prompt,    &s->record.metadata,
                           &s->record.attempts, &s->record.custom_id, &s->record.traceparent,
                           &s->record.files};
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) {
        const char *copy = arena_dup(s->arena, *views[i]);
        if (copy == NULL)
            return false;
        views[i]->p = copy;
    }
    return true;
}

static void answer_open(struct show *s, const struct record *r)
{
    struct call *c = s->c;
    if (!keep(s, r)) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    call_enter(c);
    if (queue_states(c->g->queue, &s->id, 1, on_live, s, NULL) != 0) {
        struct err down;
        err_set(&down, ERR_REDIS, "not connected");
        on_live(s, NULL, 0, &down);
    }
}

/* ---- waiting and fetching ---- */

static void on_told(void *arg, const struct record *r)
{
    struct show *s = arg;
    s->waiter = NULL;
    if (r != NULL)
        answer(s, r, NULL);
    else if (!s->fetching)
        fetch(s); /* the time is up: show it as it stands */
}

static void on_record(void *arg, const struct record *records, size_t n, const struct err *err)
{
    struct show *s = arg;
    struct call *c = s->c;
    s->fetching = false;
    if (!call_leave(c))
        return;
    if (err != NULL) {
        waiter_remove(&s->waiter);
        call_fail_query(c, err);
    } else if (n == 0) {
        waiter_remove(&s->waiter);
        call_fail_code(c, ERR_NOT_FOUND, "there is no invocation of that id");
    } else if (inv_state_ended(records[0].state)) {
        waiter_remove(&s->waiter);
        answer(s, &records[0], NULL);
    } else if (s->waiter == NULL) {
        answer_open(s, &records[0]);
    }
}

static void fetch(struct show *s)
{
    struct err err;
    struct call *c = s->c;
    struct record_key key = {.id = s->id, .tenant = c->tenant};
    call_enter(c);
    s->fetching = records_get(c->g->read, &key, 1, FETCH_MS, on_record, s, &err) == 0;
    if (s->fetching)
        return;
    waiter_remove(&s->waiter);
    if (call_leave(c))
        call_fail(c, &err);
}

static bool wait(struct show *s, int64_t wait_ms)
{
    s->waiter = waiter_add(s->c->g->waiters, s->id, s->c->tenant, wait_ms, on_told, s);
    if (s->waiter == NULL)
        call_fail_code(s->c, ERR_OVERLOADED, NULL);
    return s->waiter != NULL;
}

void show_invocation(struct call *c, struct uuid id, int64_t wait_ms, int open_status)
{
    struct show *s = show_new(c, id, open_status);
    if (s == NULL || (wait_ms > 0 && !wait(s, wait_ms)))
        return;
    fetch(s);
}

void show_after_commit(struct call *c, struct uuid id, int64_t wait_ms)
{
    struct show *s = show_new(c, id, 202);
    if (s != NULL)
        wait(s, wait_ms);
}

/* ---- N ---- */

static int64_t wait_ms(struct str n, enum err_code code, struct err *err)
{
    uint64_t sec;
    if (!str_to_u64(n, &sec))
        return err_set(err, code, "wait must be a whole number of seconds, at most %d", INV_WAIT_MAX_SEC);
    return (int64_t)(sec < INV_WAIT_MAX_SEC ? sec : INV_WAIT_MAX_SEC) * 1000;
}

/* RFC 7240: preferences are comma-separated; those that are not known are ignored, and the answer tells of
 * the one that was honoured. */
static int64_t wait_prefer(struct call *c, struct err *err)
{
    struct str rest, item;
    char applied[32];
    if (!http_header(c->req, "Prefer", &rest))
        return 0;
    while (str_split(&rest, ',', &item)) {
        item = str_trim(item);
        if (!str_starts(item, STR("wait=")))
            continue;
        int64_t ms = wait_ms(str_make(item.p + 5, item.n - 5), ERR_BAD_HEADER, err);
        snprintf(applied, sizeof applied, "wait=%lld", (long long)(ms / 1000));
        if (ms >= 0)
            http_set_header(c->req, "Preference-Applied", str_of(applied));
        return ms;
    }
    return 0;
}

int64_t show_wait(struct call *c, struct err *err)
{
    struct str n;
    int got = http_query_get(c->req, "wait", &n, err);
    if (got == 0)
        return wait_prefer(c, err);
    return got < 0 ? got : wait_ms(n, ERR_BAD_QUERY, err);
}
