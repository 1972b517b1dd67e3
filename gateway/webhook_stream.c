/* GET /v1/webhooks/{id}/stream: what a stream has been given, signed as a receiver would get it. A listener
 * asks again and again, each time with the id of the last that it has; `wait` holds the answer until there is
 * something. While it waits, PostgreSQL is asked a few times a second. */
#include <stdlib.h>

#include "json/writer.h"
#include "webhooks.h"

enum { STORE_MS = 5000, ASK_MS = 200, WAIT_MAX_S = 30, PAGE = 100, ANSWER_BYTES = 32 * 1024 * 1024 };

struct stream {
    struct call *c;
    struct uuid endpoint, after;
    mono_t until;
    struct loop_timer *again;
};

static void ask(void *arg);

static void stream_free(void *data)
{
    struct stream *s = data;
    loop_timer_free(&s->again);
    free(s);
}

static void answer(struct stream *s, const struct webhook_streamed *list, size_t n)
{
    struct buf body;
    buf_init(&body, ANSWER_BYTES);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    jw_key(&w, "data");
    jw_array(&w);
    for (size_t i = 0; i < n; i++) {
        jw_object(&w);
        jw_kid(&w, "id", "dlv", list[i].id);
        jw_kstr(&w, "webhook_id", list[i].webhook_id);
        jw_kint(&w, "webhook_timestamp", list[i].sent_at);
        jw_kstr(&w, "webhook_signature", list[i].signature);
        jw_kstr(&w, "body", list[i].body); /* text: the signature is over its bytes */
        jw_object_end(&w);
    }
    jw_array_end(&w);
    jw_object_end(&w);
    call_reply_json(s->c, 200, &body);
}

static void on_streamed(void *arg, bool found, const struct webhook_streamed *list, size_t n,
                        const struct err *err)
{
    struct stream *s = arg;
    if (!call_leave(s->c))
        return;
    if (err != NULL)
        call_fail_query(s->c, err);
    else if (!found)
        call_fail_code(s->c, ERR_NOT_FOUND, "there is no stream of that id");
    else if (n > 0 || !mono_before(loop_now(s->c->g->loop), s->until))
        answer(s, list, n);
    else
        loop_timer_start(s->again, ASK_MS);
}

static void ask(void *arg)
{
    struct stream *s = arg;
    struct call *c = s->c;
    struct err err = ERR_INIT;
    call_enter(c);
    if (webhook_stream_get(c->g->read, c->tenant, s->endpoint, s->after, PAGE, STORE_MS, on_streamed, s,
                           &err) == 0)
        return;
    if (call_leave(c))
        call_fail(c, &err);
}

static void on_gone(struct call *c)
{
    struct stream *s = c->data;
    loop_timer_stop(s->again);
}

static int read_query(struct call *c, struct uuid *after, uint64_t *wait_s, struct err *err)
{
    struct str text;
    int got = http_query_get(c->req, "after", &text, err);
    if (got > 0 && !id_parse("dlv", text, after))
        return err_set(err, ERR_BAD_QUERY, "after must be the id of a delivery: they look like dlv_…");
    if (got >= 0)
        got = http_query_get(c->req, "wait", &text, err);
    if (got > 0 && (!str_to_u64(text, wait_s) || *wait_s > WAIT_MAX_S))
        return err_set(err, ERR_BAD_QUERY, "wait must be a whole number from 0 to %d", WAIT_MAX_S);
    return got < 0 ? -1 : 0;
}

void webhook_stream(struct call *c)
{
    struct err err = ERR_INIT;
    struct uuid id, after = {0};
    uint64_t wait_s = 0;
    if (!webhook_id_of(c, &id))
        return;
    if (read_query(c, &after, &wait_s, &err) != 0) {
        call_fail(c, &err);
        return;
    }
    struct stream *s = calloc(1, sizeof *s);
    if (s != NULL)
        *s = (struct stream){.c = c,
                             .endpoint = id,
                             .after = after,
                             .until = mono_add_ms(loop_now(c->g->loop), (int64_t)wait_s * 1000),
                             .again = loop_timer_new(c->g->loop, ask, s)};
    if (s == NULL || s->again == NULL) {
        free(s);
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    c->data = s;
    c->free_data = stream_free;
    c->gone = on_gone;
    ask(s);
}
