/* listen: webhooks without a public address. Makes an endpoint that is a stream, fetches what comes, verifies
 * each signature as a receiver would, prints it, and with --forward posts it to a local address with the same
 * headers. The stream goes when the command ends; the gateway drops one that nobody listens to. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "crypto/crypto.h"
#include "crypto/webhook_sign.h"
#include "http/client.h"
#include "json/writer.h"

enum {
    PATH_BYTES = 256,
    ID_MAX = 80,
    WAIT_S = 20,
    WAIT_MS = 40000,
    FORWARD_MS = 30000,
    BODY_BYTES = 64 * 1024
};

struct listen {
    struct cli *cli;
    const char *forward;
    struct cli_list events;
    char id[ID_MAX], after[ID_MAX];
    struct webhook_secret secret;
    struct http_client *http; /* for --forward: never with the API's key */
    int64_t left;             /* to print; -1: no end */
};

/* ---- the stream ---- */

static int open_stream(struct listen *l)
{
    struct buf body;
    struct reply r;
    buf_init(&body, BODY_BYTES);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    jw_kbool(&w, "stream", true);
    jw_kcstr(&w, "description", "sandpiper listen");
    if (l->events.count > 0) {
        jw_key(&w, "events");
        jw_array(&w);
        for (int i = 0; i < l->events.count; i++)
            jw_cstr(&w, l->events.items[i]);
        jw_array_end(&w);
    }
    jw_object_end(&w);
    const struct api_request q = {.method = "POST",
                                  .path = "/v1/webhooks",
                                  .headers = {"Content-Type: application/json"},
                                  .body = buf_view(&body)};
    api_call(l->cli, &q, &r);
    buf_deinit(&body);
    int status = reply_check(l->cli, &r, "secret");
    if (status == STATUS_OK && (!str_copy(reply_str(json_root(r.doc), "id"), l->id, sizeof l->id) ||
                                !webhook_secret_read(reply_str(json_root(r.doc), "secret"), &l->secret)))
        status = cli_error("the gateway's answer cannot be used");
    reply_deinit(&r);
    return status;
}

/* Also after an interruption: its own flag is put aside for this one call. */
static void close_stream(struct listen *l)
{
    char path[PATH_BYTES];
    struct reply r;
    if (l->id[0] == '\0')
        return;
    bool interrupted = l->cli->interrupted;
    l->cli->interrupted = false;
    snprintf(path, sizeof path, "/v1/webhooks/%s", l->id);
    const struct api_request q = {.method = "DELETE", .path = path, .timeout_ms = 5000};
    api_call(l->cli, &q, &r);
    reply_deinit(&r);
    l->cli->interrupted = interrupted;
}

/* ---- forwarding ---- */

struct forwarding {
    struct listen *l;
    bool done;
    char said[240];
};

static void on_forwarded(void *arg, const struct http_response *r, const struct err *err)
{
    struct forwarding *f = arg;
    f->done = true;
    if (err != NULL)
        snprintf(f->said, sizeof f->said, "%s", err->msg);
    else
        snprintf(f->said, sizeof f->said, "%d", r->status);
    loop_stop(f->l->cli->loop);
}

static void forward(struct listen *l, struct str id, int64_t at, struct str signature, struct str body)
{
    struct forwarding f = {.l = l};
    struct err err = ERR_INIT;
    char id_header[256], at_header[64], signature_header[512];
    snprintf(id_header, sizeof id_header, "webhook-id: %.*s", STR_ARG(id));
    snprintf(at_header, sizeof at_header, "webhook-timestamp: %lld", (long long)at);
    snprintf(signature_header, sizeof signature_header, "webhook-signature: %.*s", STR_ARG(signature));
    const char *headers[] = {"Content-Type: application/json", id_header, at_header, signature_header, NULL};
    const struct http_call call = {.method = "POST",
                                   .url = l->forward,
                                   .headers = headers,
                                   .body = body,
                                   .body_borrowed = true,
                                   .cut = true,
                                   .http1 = true,
                                   .timeout_ms = FORWARD_MS,
                                   .done = on_forwarded,
                                   .arg = &f};
    struct http_transfer *t = http_call(l->http, &call, &err);
    while (t != NULL && !f.done && !l->cli->interrupted)
        loop_run(l->cli->loop);
    if (!f.done)
        http_cancel(&t);
    fprintf(stderr, "  -> %s %s\n", l->forward, f.done ? f.said : err.msg);
}

/* ---- what comes ---- */

static void print_delivery(const struct listen *l, struct str id, int64_t at, struct str signature,
                           struct str body, bool valid)
{
    if (!l->cli->json) {
        struct json *doc = json_parse(body, NULL);
        const struct json_value *root = json_root(doc), *data = json_get(root, "data");
        struct str what = reply_str(data, "id");
        printf("%.*s  %-22.*s  %.*s  %s\n", STR_ARG(reply_str(root, "timestamp")),
               STR_ARG(reply_str(root, "type")), STR_ARG(what.n > 0 ? what : id),
               valid ? "verified" : "SIGNATURE IS WRONG");
        json_free(&doc);
    } else {
        struct buf out;
        buf_init(&out, body.n + 2048);
        struct json_writer w = json_writer(&out);
        jw_object(&w);
        jw_kstr(&w, "webhook_id", id);
        jw_kint(&w, "webhook_timestamp", at);
        jw_kstr(&w, "webhook_signature", signature);
        jw_kbool(&w, "verified", valid);
        jw_key(&w, "body");
        jw_raw(&w, body);
        jw_object_end(&w);
        printf("%.*s\n", STR_ARG(buf_view(&out)));
        buf_deinit(&out);
    }
    fflush(stdout);
}

/* Whether all signatures were right. */
static bool take(struct listen *l, const struct reply *r)
{
    bool fine = true;
    const struct json_value *list = json_get(json_root(r->doc), "data");
    for (const struct json_value *v = json_first(list); v != NULL && l->left != 0 && !l->cli->interrupted;
         v = json_next(v)) {
        struct str id = reply_str(v, "webhook_id"), signature = reply_str(v, "webhook_signature");
        struct str body = reply_str(v, "body");
        int64_t at = reply_int(r, v, "webhook_timestamp");
        bool valid = webhook_verify(&l->secret, id, at, body, signature);
        fine = fine && valid;
        print_delivery(l, id, at, signature, body, valid);
        if (valid && l->forward != NULL)
            forward(l, id, at, signature, body);
        str_copy(reply_str(v, "id"), l->after, sizeof l->after);
        l->left -= l->left > 0 ? 1 : 0;
    }
    return fine;
}

static int fetch(struct listen *l, bool *fine)
{
    char path[PATH_BYTES + ID_MAX];
    struct reply r;
    snprintf(path, sizeof path, "/v1/webhooks/%s/stream?wait=%d%s%s", l->id, WAIT_S,
             l->after[0] != '\0' ? "&after=" : "", l->after);
    const struct api_request q = {
        .method = "GET", .path = path, .timeout_ms = WAIT_MS, .retry = API_RETRY_ALL};
    api_call(l->cli, &q, &r);
    int status = r.kind == REPLY_INTERRUPTED ? STATUS_OK : reply_check(l->cli, &r, "data");
    if (r.kind == REPLY_OK && status == STATUS_OK)
        *fine = take(l, &r) && *fine;
    reply_deinit(&r);
    return status;
}

static int listen_on(struct listen *l)
{
    bool fine = true;
    int status = STATUS_OK;
    fprintf(stderr, "Listening%s%s; Ctrl-C ends it.\n", l->forward != NULL ? ", and forwarding to " : "",
            l->forward != NULL ? l->forward : "");
    while (status == STATUS_OK && l->left != 0 && !l->cli->interrupted)
        status = fetch(l, &fine);
    return status == STATUS_OK && !fine ? STATUS_ENDED : status;
}

static int open_forward(struct listen *l)
{
    struct err err = ERR_INIT;
    if (l->forward == NULL)
        return STATUS_OK;
    if (strncmp(l->forward, "http://", 7) != 0 && strncmp(l->forward, "https://", 8) != 0)
        return cli_error("--forward needs an address such as http://127.0.0.1:3000/hook");
    l->http = http_client_open(
        l->cli->loop, &(struct http_client_options){.user_agent = "sandpiper-cli/" SP_VERSION}, &err);
    return l->http != NULL ? STATUS_OK : cli_error("%s", err.msg);
}

int command_listen(struct cli *cli, int argc, char **argv)
{
    struct listen l = {.cli = cli, .left = -1};
    int64_t count = -1;
    const struct cli_option options[] = {
        {"forward", CLI_TEXT, &l.forward, "URL", "post each one there, with the same headers"},
        {"events", CLI_LIST, &l.events, "E", "only these, such as invocation.failed or batch.*"},
        {"count", CLI_NUMBER, &count, "N", "leave after so many"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {
        "listen", "Prints webhooks as they come, their signatures verified. No public address is needed.",
        options, 0, 0};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    l.left = count;
    cli_catch_interrupt(cli);
    status = open_forward(&l);
    if (status == STATUS_OK)
        status = open_stream(&l);
    if (status == STATUS_OK)
        status = listen_on(&l);
    close_stream(&l);
    http_client_close(&l.http);
    crypto_wipe(&l.secret, sizeof l.secret);
    return status;
}
