/* What was sent to a webhook, and sending it again: test, redeliver, replay, and the log. */
#include <stdlib.h>
#include <string.h>

#include "invocations.h"
#include "json/writer.h"
#include "page.h"
#include "webhooks.h"

enum {
    STORE_MS = 8000,
    ANSWER_BYTES = 4 * 1024 * 1024,
    LIST_MAX = 200,
    REPLAY_SPAN_MAX_S = 14 * 24 * 3600,
};

/* ---- test, redeliver, replay: events put into the outbox ---- */

struct put {
    struct call *c;
    struct uuid endpoint, event; /* event zero: a replay */
    const char *nothing;         /* what to say when nothing was put */
};

static void write_put(const struct put *p, int64_t queued, struct uuid last, struct json_writer *w)
{
    jw_object(w);
    if (!uuid_is_zero(p->event)) {
        char id[WEBHOOK_ID_BYTES];
        webhook_id_format(p->event, p->endpoint, id);
        jw_kcstr(w, "webhook_id", id);
    } else {
        jw_kint(w, "queued", queued);
        if (queued == WEBHOOK_REPLAY_MAX) /* there may be more: go on from here */
            jw_kid(w, "next_after", "inv", last);
        else
            jw_knull(w, "next_after");
    }
    jw_object_end(w);
}

static void on_put(void *arg, bool found, int64_t queued, struct uuid last, const struct err *err)
{
    struct put *p = arg;
    struct call *c = p->c;
    if (err == NULL && queued > 0)
        webhook_poke(c, uuid_is_zero(p->event) ? last : p->event);
    if (!call_leave(c)) {
        free(p);
        return;
    }
    if (err != NULL) {
        call_fail(c, err);
    } else if (!found) {
        call_fail_code(c, ERR_NOT_FOUND, "there is no webhook of that id that is enabled");
    } else if (queued == 0 && p->nothing != NULL) {
        call_fail_code(c, ERR_NOT_FOUND, p->nothing);
    } else {
        struct buf body;
        buf_init(&body, 1024);
        struct json_writer w = json_writer(&body);
        write_put(p, queued, last, &w);
        call_reply_json(c, 202, &body);
    }
    free(p);
}

static struct put *put_new(struct call *c, struct uuid endpoint)
{
    struct put *p = calloc(1, sizeof *p);
    if (p == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return NULL;
    }
    *p = (struct put){.c = c, .endpoint = endpoint};
    call_enter(c);
    return p;
}

static void put_refused(struct put *p, const struct err *err)
{
    struct call *c = p->c;
    free(p);
    if (call_leave(c))
        call_fail(c, err);
}

static void test(struct call *c, const struct json *doc)
{
    static const char *const none[] = {NULL};
    struct err err = ERR_INIT;
    struct uuid id;
    if (!webhook_id_of(c, &id))
        return;
    struct put *p = put_new(c, id);
    if (p == NULL)
        return;
    p->event = uuid_new();
    if (json_known_fields(json_root(doc), none, &err) != 0 ||
        webhook_test(
            c->g->files, c->tenant, id, p->event,
            STR("{\"message\":\"This is a test. Webhooks of this endpoint arrive and their signatures "
                "can be verified.\"}"),
            STORE_MS, on_put, p, &err) != 0)
        put_refused(p, &err);
}

void webhook_test_call(struct call *c)
{
    webhook_read_body(c, test);
}

static int read_redelivery(const struct json *doc, struct uuid endpoint, struct uuid *event, struct err *err)
{
    static const char *const known[] = {"webhook_id", NULL};
    const struct json_value *root = json_root(doc), *v = json_get(root, "webhook_id");
    struct str text;
    if (json_known_fields(root, known, err) != 0)
        return -1;
    if (v == NULL)
        return err_set(err, ERR_MISSING_FIELD, "webhook_id is required: its deliveries show it");
    if (!json_str(v, &text) || !webhook_id_parse(text, endpoint, event))
        return err_set(err, ERR_BAD_FIELD, "webhook_id is none of this webhook: they look like msg_…");
    return 0;
}

static void redeliver(struct call *c, const struct json *doc)
{
    struct err err = ERR_INIT;
    struct uuid id;
    if (!webhook_id_of(c, &id))
        return;
    struct put *p = put_new(c, id);
    if (p == NULL)
        return;
    p->nothing = "the event is not known any more, or is just being delivered";
    if (read_redelivery(doc, id, &p->event, &err) != 0 ||
        webhook_redeliver(c->g->files, c->tenant, id, p->event, STORE_MS, on_put, p, &err) != 0)
        put_refused(p, &err);
}

void webhook_redeliver_call(struct call *c)
{
    webhook_read_body(c, redeliver);
}

static void redeliver_hook(struct call *c, const struct json *doc)
{
    static const char *const none[] = {NULL};
    struct err err = ERR_INIT;
    struct uuid id;
    if (!invocation_id(c, &id))
        return;
    struct put *p = put_new(c, id);
    if (p == NULL)
        return;
    p->event = id;
    p->nothing = "the invocation has not ended, or its webhook is just being delivered";
    if (json_known_fields(json_root(doc), none, &err) != 0 ||
        webhook_redeliver(c->g->files, c->tenant, id, id, STORE_MS, on_put, p, &err) != 0)
        put_refused(p, &err);
}

void hook_redeliver(struct call *c)
{
    webhook_read_body(c, redeliver_hook);
}

/* A moment, or the id of an invocation to go on after. */
static int read_moment(const struct json_value *root, const char *name, struct uuid fallback,
                       struct uuid *out, struct err *err)
{
    const struct json_value *v = json_get(root, name);
    struct str text;
    wall_t t;
    *out = fallback;
    if (v == NULL)
        return 0;
    if (json_str(v, &text) && id_parse("inv", text, out))
        return 0;
    if (!json_str(v, &text) || !wall_parse(text, &t))
        return err_set(err, ERR_BAD_FIELD,
                       "%s must be a time such as 2026-11-21T07:30:00Z, or an invocation's id", name);
    *out = uuid_floor(t);
    return 0;
}

static int read_replay(const struct json_value *root, struct uuid *after, struct uuid *before, bool *all,
                       struct err *err)
{
    static const char *const known[] = {"since", "until", "only", NULL};
    const struct json_value *only = json_get(root, "only");
    struct str text = STR("undelivered");
    wall_t now = wall_now();
    struct uuid most = uuid_floor((wall_t){.us = now.us + 60 * 1000000LL});
    if (json_known_fields(root, known, err) != 0)
        return -1;
    if (json_get(root, "since") == NULL)
        return err_set(err, ERR_MISSING_FIELD, "since is required: a time, at most 14 days ago");
    if (read_moment(root, "since", most, after, err) != 0 ||
        read_moment(root, "until", most, before, err) != 0)
        return -1;
    if (now.us - uuid_time(*after).us > REPLAY_SPAN_MAX_S * 1000000LL || uuid_cmp(*after, *before) >= 0)
        return err_set(err, ERR_BAD_FIELD, "since must be at most 14 days ago, and before until");
    if (only != NULL &&
        (!json_str(only, &text) || (!str_eq_c(text, "undelivered") && !str_eq_c(text, "all"))))
        return err_set(err, ERR_BAD_FIELD, "only must be \"undelivered\" or \"all\"");
    *all = str_eq_c(text, "all");
    return 0;
}

static void replay(struct call *c, const struct json *doc)
{
    struct err err = ERR_INIT;
    struct uuid id, after, before;
    bool all = false;
    if (!webhook_id_of(c, &id))
        return;
    struct put *p = put_new(c, id);
    if (p != NULL &&
        (read_replay(json_root(doc), &after, &before, &all, &err) != 0 ||
         webhook_replay(c->g->lists, c->tenant, id, after, before, all, STORE_MS, on_put, p, &err) != 0))
        put_refused(p, &err);
}

void webhook_replay_call(struct call *c)
{
    webhook_read_body(c, replay);
}

/* ---- the log ---- */

struct log_page {
    struct call *c;
    struct uuid endpoint;
    struct page page;
    const struct webhook_attempt *list;
};

static void write_event_id(struct json_writer *w, const struct webhook_attempt *a)
{
    if (webhook_event_is_invocation(a->event))
        jw_kid(w, "invocation_id", "inv", a->event_id);
    else if (a->event == WEBHOOK_BATCH_COMPLETED)
        jw_kid(w, "batch_id", "bat", a->event_id);
}

static void write_row(const void *rows, size_t i, struct json_writer *w)
{
    const struct log_page *p = rows;
    const struct webhook_attempt *a = &p->list[i];
    char id[WEBHOOK_ID_BYTES];
    webhook_id_format(a->event_id, p->endpoint, id);
    jw_object(w);
    jw_kid(w, "id", "dlv", a->id);
    jw_kcstr(w, "webhook_id", id);
    jw_kcstr(w, "event", webhook_event_name(a->event));
    write_event_id(w, a);
    jw_kint(w, "attempt", a->try);
    jw_ktime(w, "attempted_at", uuid_time(a->id));
    jw_kcstr(w, "outcome", webhook_verdict_name(a->verdict));
    jw_key(w, "request");
    jw_object(w);
    jw_kstr(w, "url", a->url);
    jw_kint(w, "body_size", a->body_bytes);
    jw_object_end(w);
    jw_key(w, "status");
    if (a->status > 0)
        jw_int(w, a->status);
    else
        jw_null(w);
    jw_kint(w, "duration_ms", a->duration_ms);
    jw_kstr(w, "response", a->response);
    if (a->error.n > 0)
        jw_kstr(w, "error", a->error);
    else
        jw_knull(w, "error");
    jw_ktime(w, "next_attempt_at", a->next_at);
    jw_object_end(w);
}

static struct str place_of(const void *rows, size_t i)
{
    const struct log_page *p = rows;
    return str_make((const char *)p->list[i].id.b, sizeof p->list[i].id.b);
}

static void on_attempts(void *arg, const struct webhook_attempt *list, size_t n, const struct err *err)
{
    struct log_page *p = arg;
    struct call *c = p->c;
    const struct page_rows rows = {.rows = p, .n = n, .write = write_row, .place = place_of};
    p->list = list;
    if (call_leave(c)) {
        if (err != NULL)
            call_fail_query(c, err);
        else
            page_reply(c, &p->page, "data", &rows, ANSWER_BYTES);
    }
    free(p);
}

/* A log is its endpoint's, so a cursor is bound to its id. */
static void deliveries(struct call *c, struct uuid endpoint)
{
    struct err err = ERR_INIT;
    struct uuid before = {0};
    struct log_page *p = calloc(1, sizeof *p);
    if (p == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    *p = (struct log_page){.c = c, .endpoint = endpoint};
    call_enter(c);
    if (page_read_id(c, c->arg, LIST_MAX, &p->page, &before, &err) == 0 &&
        webhook_attempts_get(c->g->read, c->tenant, endpoint, before, p->page.limit + 1, STORE_MS,
                             on_attempts, p, &err) == 0)
        return;
    free(p);
    if (call_leave(c))
        call_fail(c, &err);
}

void webhook_deliveries(struct call *c)
{
    struct uuid id;
    if (webhook_id_of(c, &id))
        deliveries(c, id);
}

void hook_deliveries(struct call *c)
{
    struct uuid id;
    if (invocation_id(c, &id))
        deliveries(c, id);
}
