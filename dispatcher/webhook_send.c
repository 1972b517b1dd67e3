/* One delivery: payload, signature, request, and what its end means. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "json/writer.h"
#include "store/record_json.h"
#include "webhook_delivery.h"

enum { STREAM_PUT_MS = 5000, PAYLOAD_BYTES = RECORD_EVENT_BYTES + 1024, SIGNATURES_BYTES = 128 };

/* ---- the row's copy ---- */

static void copy_secret(struct webhook_sealed *out, struct str key_id, struct str sealed)
{
    if (sealed.n == 0 || sealed.n > sizeof out->b || !str_copy(key_id, out->key_id, sizeof out->key_id))
        return; /* n stays 0: cannot be opened, and said so when it is tried */
    memcpy(out->b, sealed.p, sealed.n);
    out->n = sealed.n;
}

static struct str copy_text(char **to, struct str s)
{
    struct str copy = str_make(*to, s.n);
    memcpy(*to, s.p, s.n);
    (*to)[s.n] = '\0';
    *to += s.n + 1;
    return copy;
}

struct webhook_delivery *delivery_new(struct webhooks *w, const struct webhook_due *due)
{
    struct webhook_delivery *d = calloc(1, sizeof *d + due->url.n + due->data.n + 2);
    if (d == NULL)
        return NULL;
    d->w = w;
    d->due = *due;
    d->taken = loop_now(w->d->loop);
    char *to = d->text;
    d->due.url = copy_text(&to, due->url);
    d->due.data = copy_text(&to, due->data);
    copy_secret(&d->secret, due->key_id, due->secret);
    copy_secret(&d->previous, due->previous_key_id, due->previous_secret);
    d->due.key_id = d->due.secret = d->due.previous_key_id = d->due.previous_secret = str_of(NULL);
    webhook_id_format(due->event, due->endpoint, d->webhook_id);
    buf_init(&d->body, PAYLOAD_BYTES);
    d->end = (struct webhook_end){.ref = {due->event, due->endpoint},
                                  .tenant = due->tenant,
                                  .what = due->what,
                                  .url = d->due.url,
                                  .data = d->due.data};
    w->in_hand++;
    return d;
}

void delivery_free(struct webhook_delivery *d)
{
    struct webhooks *w = d->w;
    http_cancel(&d->transfer);
    buf_deinit(&d->body);
    free(d);
    webhooks_gone(w);
}

/* ---- the payload ---- */

bool delivery_needs_record(const struct webhook_delivery *d)
{
    return d->due.data.n == 0;
}

static struct json_writer payload_begin(struct webhook_delivery *d, wall_t at)
{
    struct json_writer w = json_writer(&d->body);
    jw_object(&w);
    jw_kcstr(&w, "type", webhook_event_name(d->due.what));
    jw_ktime(&w, "timestamp", at);
    jw_key(&w, "data");
    return w;
}

void delivery_write_record(struct webhook_delivery *d, const struct record *r)
{
    struct json_writer w = payload_begin(d, r->finished_at);
    str_copy(r->traceparent, d->traceparent, sizeof d->traceparent);
    record_write_event(r, &d->body);
    jw_object_end(&w);
}

void delivery_write_data(struct webhook_delivery *d)
{
    struct json_writer w = payload_begin(d, d->due.queued_at);
    jw_raw(&w, d->due.data);
    jw_object_end(&w);
}

/* ---- ends ---- */

static void set_error(struct webhook_delivery *d, const char *text)
{
    str_copy(str_of(text), d->error, sizeof d->error);
    d->end.error = str_of(d->error);
}

static void judge(struct webhook_delivery *d, const struct webhook_attempt_end *a)
{
    int64_t wait_ms = 0;
    d->end.verdict = webhook_judge(&d->w->schedule, a, &wait_ms);
    d->end.next_at.us = wall_now().us + wait_ms * 1000;
    d->end.duration_ms = mono_ms_between(d->begun, mono_now());
}

static void end(struct webhook_delivery *d, int status, bool answered, int64_t retry_after_sec)
{
    struct webhook_attempt_end a = {
        .tries = d->end.try, .status = status, .answered = answered, .retry_after_sec = retry_after_sec};
    random_bytes(&a.random, sizeof a.random);
    d->end.status = status;
    judge(d, &a);
    bool throttled = answered && retry_after_sec > 0 && d->end.verdict != WEBHOOK_DELIVERED;
    webhooks_ended(d->w, d, throttled ? retry_after_sec * 1000 : 0);
}

void delivery_give_up(struct webhook_delivery *d, const char *why)
{
    d->begun = mono_now();
    d->end.id = uuid_new();
    d->end.try = d->due.tries;
    d->end.verdict = WEBHOOK_GAVE_UP;
    set_error(d, why);
}

/* What a receiver wrote is shown as text: bytes that are none are left to the reader. */
static void keep_answer(struct webhook_delivery *d, struct str body)
{
    size_t n = body.n < sizeof d->answer ? body.n : sizeof d->answer;
    memcpy(d->answer, body.p, n);
    d->end.response = str_make(d->answer, n);
}

static void on_answer(void *arg, const struct http_response *r, const struct err *err)
{
    struct webhook_delivery *d = arg;
    d->transfer = NULL;
    keep_answer(d, r->body);
    if (err != NULL)
        set_error(d, err->msg);
    else if (r->status / 100 == 3)
        set_error(d, "redirects are not followed");
    end(d, r->status, err == NULL, r->retry_after_sec);
}

static void on_streamed(void *arg, const struct err *err)
{
    struct webhook_delivery *d = arg;
    if (err != NULL)
        set_error(d, err->msg);
    end(d, err == NULL ? 200 : 0, err == NULL, -1);
}

/* ---- the attempt ---- */

struct signature {
    char timestamp[32], header[SIGNATURES_BYTES + 32];
    struct str value; /* within header */
    int64_t at;
};

static bool sign(struct webhook_delivery *d, struct signature *out)
{
    struct buf text;
    struct str id = str_of(d->webhook_id), body = buf_view(&d->body);
    struct webhook_keys *k = d->w->keys;
    out->at = wall_now().us / 1000000;
    buf_init(&text, SIGNATURES_BYTES);
    bool fine = webhook_keys_sign(k, d->due.endpoint, &d->secret, id, out->at, body, &text);
    if (fine && d->previous.n > 0) {
        size_t len = text.len;
        if (!buf_byte(&text, ' ') ||
            !webhook_keys_sign(k, d->due.endpoint, &d->previous, id, out->at, body, &text))
            text.len = len; /* the previous key is gone: the current one is enough */
    }
    snprintf(out->timestamp, sizeof out->timestamp, "webhook-timestamp: %lld", (long long)out->at);
    snprintf(out->header, sizeof out->header, "webhook-signature: %.*s", STR_ARG(buf_view(&text)));
    out->value = str_of(out->header + strlen("webhook-signature: "));
    buf_deinit(&text);
    return fine;
}

static void send_request(struct webhook_delivery *d, const struct signature *s)
{
    struct webhooks *w = d->w;
    struct err err = ERR_INIT;
    char id[WEBHOOK_ID_BYTES + 16], trace[TRACEPARENT_TEXT_BYTES + 16];
    snprintf(id, sizeof id, "webhook-id: %s", d->webhook_id);
    snprintf(trace, sizeof trace, "traceparent: %s", d->traceparent);
    const char *headers[] = {"Content-Type: application/json",         id,  s->timestamp, s->header,
                             d->traceparent[0] != '\0' ? trace : NULL, NULL};
    const struct http_call call = {.method = "POST",
                                   .url = d->due.url.p,
                                   .headers = headers,
                                   .body = buf_view(&d->body),
                                   .body_borrowed = true,
                                   .max_body = WEBHOOK_ANSWER_BYTES,
                                   .cut = true,
                                   .http1 = true,
                                   .timeout_ms = w->d->settings->webhook_timeout_ms,
                                   .connect_timeout_ms = WEBHOOK_CONNECT_MS,
                                   .guard = &w->guard,
                                   .done = on_answer,
                                   .arg = d};
    if (guard_url(&w->guard, d->due.url, &err) == 0)
        d->transfer = http_call(w->http, &call, &err);
    if (d->transfer != NULL)
        return;
    set_error(d, err.msg);
    end(d, 0, false, -1);
}

void delivery_start(struct webhook_delivery *d)
{
    struct signature s;
    d->begun = mono_now();
    d->end.id = uuid_new();
    d->end.try = d->due.tries + 1;
    d->end.body_bytes = (int64_t)d->body.len;
    if (d->body.failed) {
        set_error(d, "the payload is too large");
        end(d, 0, false, -1);
    } else if (!sign(d, &s)) {
        set_error(d, "its secret was sealed by a key that this dispatcher does not have: "
                     "see SANDPIPER_WEBHOOK_PRIVATE_KEY");
        end(d, 0, false, -1);
    } else if (d->due.url.n > 0) {
        send_request(d, &s);
    } else if (webhook_stream_put(d->w->pg, d->due.endpoint, d->end.id, str_of(d->webhook_id), s.at, s.value,
                                  buf_view(&d->body), STREAM_PUT_MS, on_streamed, d) != 0) {
        set_error(d, "the database is not available");
        end(d, 0, false, -1);
    }
}
