/* Following a live stream: each connection takes up where the last whole event ended (sse.h), so nothing is
 * printed twice and nothing is missed. */
#include "follow.h"

#include <stdlib.h>
#include <unistd.h>

#include "crypto/crypto.h"
#include "sse.h"

enum {
    EVENT_BYTES = 8 << 20,
    IDLE_MS = 45000, /* three heartbeats */
    PATIENCE_MS = 60000,
    AGAIN_MS = 500,
    PATH_BYTES = 160,
};

struct session {
    struct cli *cli;
    struct follow *f;
    struct sse sse;
    int64_t attempt;
    bool printed; /* something of this attempt */
    mono_t heard; /* the last event */
    bool broken;  /* an event that cannot be understood */
};

/* ---- events ---- */

static void print_bytes(struct session *s, FILE *to, struct str bytes)
{
    if (to == NULL || bytes.n == 0)
        return;
    if (to == s->f->out)
        s->f->last_output = bytes.p[bytes.n - 1];
    s->printed = true;
    if (fwrite(bytes.p, 1, bytes.n, to) != bytes.n || fflush(to) != 0)
        s->broken = true;
}

/* A JSON string, or {"base64": …}. */
static void take_bytes(struct session *s, FILE *to, const struct json_value *data)
{
    struct str text;
    struct buf raw;
    buf_init(&raw, EVENT_BYTES);
    if (s->f->id[0] == '\0') /* it could not be resumed: a status comes before it */
        s->broken = true;
    else if (json_str(data, &text))
        print_bytes(s, to, text);
    else if (json_str(json_get(data, "base64"), &text) && crypto_unbase64(text, &raw))
        print_bytes(s, to, buf_view(&raw));
    else
        s->broken = true;
    buf_deinit(&raw);
}

static void take_status(struct session *s, const struct json *doc)
{
    const struct json_value *data = json_root(doc);
    struct str id = reply_str(data, "id");
    int64_t attempt = s->attempt;
    if (s->f->id[0] == '\0' && !str_copy(id, s->f->id, sizeof s->f->id))
        s->broken = true;
    json_int(doc, json_get(data, "attempt"), &attempt);
    if (attempt != s->attempt && s->printed)
        cli_error("attempt %lld begins; what was printed came from an attempt before it", (long long)attempt);
    if (attempt != s->attempt)
        s->printed = false;
    s->attempt = attempt;
}

static void take_result(struct session *s, struct str data)
{
    struct reply *r = &s->f->result;
    *r = (struct reply){.kind = REPLY_OK, .status = 200, .retry_after_sec = -1};
    buf_init(&r->body, EVENT_BYTES);
    if (buf_str(&r->body, data))
        r->doc = json_parse(buf_view(&r->body), NULL);
    s->broken = s->broken || r->doc == NULL;
}

static void print_json(const struct session *s, struct str name, struct str data)
{
    printf("{\"event\":\"%.*s\",\"id\":\"%s\",\"data\":%.*s}\n", STR_ARG(name), s->sse.id, STR_ARG(data));
    fflush(stdout);
}

static void on_event(void *arg, struct str name, struct str data)
{
    struct session *s = arg;
    struct json *doc = json_parse(data, NULL);
    s->heard = mono_now();
    if (doc == NULL) {
        s->broken = true;
        return;
    }
    if (str_eq_c(name, "status"))
        take_status(s, doc);
    else if (str_eq_c(name, "result"))
        take_result(s, data);
    else if (str_eq_c(name, "gap") && !s->cli->json)
        cli_error("some output of an attempt that was lost is missing");
    else if (str_eq_c(name, "stdout") && !s->cli->json)
        take_bytes(s, s->f->out, json_root(doc));
    else if (str_eq_c(name, "stderr") && !s->cli->json)
        take_bytes(s, s->f->err, json_root(doc));
    if (s->cli->json)
        print_json(s, name, data);
    json_free(&doc);
}

static bool on_piece(void *arg, struct str piece)
{
    struct session *s = arg;
    return sse_feed(&s->sse, piece) && !s->broken;
}

/* ---- connections ---- */

static void connect_once(struct session *s, const struct api_request *submission, struct reply *r)
{
    char path[PATH_BYTES], last[SSE_ID_BYTES + 32];
    struct api_request q = {.method = "GET", .path = path, .headers = {"Accept: text/event-stream"}};
    snprintf(path, sizeof path, "/v1/invocations/%s/events", s->f->id);
    snprintf(last, sizeof last, "Last-Event-ID: %s", s->sse.id);
    if (s->sse.id[0] != '\0')
        q.headers[1] = last;
    if (s->f->id[0] == '\0')
        q = *submission;
    q.idle_ms = IDLE_MS;
    q.on_data = on_piece;
    q.arg = s;
    sse_reset(&s->sse);
    api_call(s->cli, &q, r);
}

static bool is_final(const struct session *s, const struct reply *r)
{
    bool busy = r->status == 429 || (r->status >= 502 && r->status <= 504);
    return s->broken || r->kind == REPLY_INTERRUPTED || (r->kind == REPLY_PROBLEM && !busy) ||
           mono_ms_between(s->heard, mono_now()) > PATIENCE_MS;
}

static int fail(const struct session *s, const struct reply *r)
{
    if (s->broken)
        cli_error("the gateway's stream cannot be understood, or the output cannot be written");
    else if (r->kind == REPLY_OK)
        cli_error("%s does not stream: check SANDPIPER_URL", s->cli->url);
    else
        return api_complain(s->cli, r);
    return STATUS_API;
}

int follow_run(struct cli *cli, struct follow *f, const struct api_request *submission)
{
    struct session s = {.cli = cli, .f = f, .heard = mono_now()};
    int status = -1;
    sse_init(&s.sse, EVENT_BYTES, on_event, &s);
    while (status < 0) {
        struct reply r;
        mono_t before = s.heard;
        connect_once(&s, submission, &r);
        if (f->result.doc != NULL && !s.broken)
            status = STATUS_OK;
        else if (is_final(&s, &r))
            status = fail(&s, &r);
        else if (before.us == s.heard.us) /* it brought nothing: not at once */
            cli_sleep(cli, r.retry_after_sec > 0 ? r.retry_after_sec * 1000 : AGAIN_MS);
        reply_deinit(&r);
        if (status < 0 && cli->interrupted)
            status = STATUS_INTERRUPTED;
    }
    sse_deinit(&s.sse);
    return status;
}
