/* Calls to the gateway, one after the other: each runs the loop until its answer is there.
 *
 * The url is --url, SANDPIPER_URL, the profile's, or 127.0.0.1 at SANDPIPER_PORT; the key SANDPIPER_API_KEY,
 * SANDPIPER_API_KEY_FILE's, the profile's, or that of the file that deploy/quickstart writes. --profile goes
 * before the environment. A profile's key is for its gateway: with another url it is not sent. Both are
 * looked up at the first call, so commands that need neither work without. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli.h"
#include "crypto/crypto.h"
#include "http/client.h"
#include "profile.h"

#define KEY_FILE ".sandpiper/api-key"
enum {
    DEFAULT_TIMEOUT_MS = 30000,
    PATIENCE_MS = 30000,
    RETRY_MS = 500,
    BODY_MAX = 64 << 20,
    HEADERS_MAX = 8,
    SPIN_MS = 120,
    KEY_FILE_BYTES = 256,
};

/* ---- where and as whom ---- */

static char *find_url(const struct cli *cli, const struct profile *profile)
{
    const char *url = cli->url_option != NULL       ? cli->url_option
                      : cli->profile_option != NULL ? profile->url
                                                    : getenv("SANDPIPER_URL");
    if (url == NULL || url[0] == '\0')
        url = profile->url;
    const char *port = getenv("SANDPIPER_PORT");
    char *found = NULL;
    if (url != NULL && url[0] != '\0')
        found = strdup(url);
    else if (asprintf(&found, "http://127.0.0.1:%s", port != NULL && port[0] != '\0' ? port : "8080") < 0)
        found = NULL;
    for (size_t n = found != NULL ? strlen(found) : 0; n > 0 && found[n - 1] == '/'; n--)
        found[n - 1] = '\0';
    return found;
}

/* "Authorization: Bearer sp_…" from the first line of a file; NULL when there is no such file. */
static char *read_key(const char *path)
{
    char line[KEY_FILE_BYTES] = "", *header = NULL;
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return NULL;
    if (fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\r\n")] = '\0';
        if (asprintf(&header, "Authorization: Bearer %s", line) < 0)
            header = NULL;
    }
    fclose(f);
    crypto_wipe(line, sizeof line);
    return header;
}

static char *find_key(const struct cli *cli, const struct profile *profile)
{
    const char *key = getenv("SANDPIPER_API_KEY"), *file = getenv("SANDPIPER_API_KEY_FILE");
    bool theirs = profile->key[0] != '\0' && cli->url != NULL && strcmp(cli->url, profile->url) == 0;
    char *header = NULL;
    if (theirs && (cli->profile_option != NULL || key == NULL || key[0] == '\0'))
        key = profile->key;
    if (key != NULL && key[0] != '\0')
        return asprintf(&header, "Authorization: Bearer %s", key) >= 0 ? header : NULL;
    return read_key(file != NULL && file[0] != '\0' ? file : KEY_FILE);
}

static int prepare(struct cli *cli, struct err *err)
{
    if (cli->http != NULL)
        return 0;
    const struct http_client_options options = {.user_agent = "sandpiper-cli/" SP_VERSION};
    struct profile profile;
    if (profile_load(cli->profile_option, &profile) < 0)
        return err_set(err, ERR_CONFIG, "no such profile");
    cli->url = find_url(cli, &profile);
    cli->authorization = find_key(cli, &profile);
    crypto_wipe(&profile, sizeof profile);
    cli->http = cli->url != NULL ? http_client_open(cli->loop, &options, err) : NULL;
    return cli->http != NULL ? 0 : -1;
}

bool api_has_key(struct cli *cli)
{
    struct err err;
    return prepare(cli, &err) == 0 && cli->authorization != NULL;
}

/* ---- interruption and waiting ---- */

static void on_sigint(void *arg, int signum)
{
    (void)signum;
    struct cli *cli = arg;
    cli->interrupted = true;
    loop_stop(cli->loop);
}

void cli_catch_interrupt(struct cli *cli)
{
    if (cli->sigint == NULL)
        cli->sigint = loop_signal_new(cli->loop, SIGINT, on_sigint, cli);
}

static void stop_loop(void *arg)
{
    loop_stop(((struct cli *)arg)->loop);
}

void cli_sleep(struct cli *cli, int64_t ms)
{
    struct loop_timer *t = loop_timer_new(cli->loop, stop_loop, cli);
    if (t == NULL || cli->interrupted)
        return;
    loop_timer_start(t, ms);
    loop_run(cli->loop);
    loop_timer_free(&t);
}

static void spin_once(void *arg)
{
    static const char signs[] = "|/-\\";
    struct cli *cli = arg;
    char sign = signs[cli->spin_turn++ % 4];
    long long seconds = mono_ms_between(cli->spin_from, mono_now()) / 1000;
    fprintf(stderr, "\r\033[K%c %s %llds", sign, cli->spin_text, seconds);
}

void cli_spin(struct cli *cli, const char *text)
{
    if (isatty(STDERR_FILENO) == 0 || cli->json)
        return;
    if (text == NULL) {
        if (cli->spin != NULL)
            fputs("\r\033[K", stderr);
        loop_timer_free(&cli->spin);
        return;
    }
    cli->spin_text = text;
    if (cli->spin != NULL)
        return;
    cli->spin_from = mono_now();
    cli->spin = loop_timer_new(cli->loop, spin_once, cli);
    if (cli->spin != NULL)
        loop_timer_every(cli->spin, SPIN_MS);
}

/* ---- one call ---- */

struct exchange {
    struct cli *cli;
    const struct api_request *request;
    struct reply *reply;
    bool done;
};

static bool on_piece(void *arg, struct str piece)
{
    const struct exchange *x = arg;
    return x->request->on_data(x->request->arg, piece);
}

static void on_sent(void *arg, int64_t sent)
{
    const struct exchange *x = arg;
    x->request->on_sent(x->request->sent_arg, sent);
}

static void on_done(void *arg, const struct http_response *response, const struct err *err)
{
    struct exchange *x = arg;
    struct reply *r = x->reply;
    x->done = true;
    r->status = response != NULL ? response->status : 0;
    r->retry_after_sec = response != NULL ? response->retry_after_sec : -1;
    if (err != NULL) {
        r->kind = REPLY_FAILED;
        r->err = *err;
    } else {
        r->kind = r->status / 100 == 2 ? REPLY_OK : REPLY_PROBLEM;
        buf_str(&r->body, response->body);
    }
    loop_stop(x->cli->loop);
}

static int start(struct exchange *x, const struct api_request *q, struct http_transfer **t, struct err *err)
{
    struct cli *cli = x->cli;
    const char *headers[HEADERS_MAX] = {NULL};
    int n = 0;
    char *url = NULL;
    if (prepare(cli, err) != 0 || asprintf(&url, "%s%s", cli->url, q->path) < 0)
        return -1;
    if (cli->authorization != NULL)
        headers[n++] = cli->authorization;
    for (int i = 0; i < 4 && q->headers[i] != NULL; i++)
        headers[n++] = q->headers[i];
    const struct http_call call = {.method = q->method,
                                   .url = url,
                                   .headers = headers,
                                   .body = q->body,
                                   .body_borrowed = true,
                                   .once = q->retry == API_ONCE && q->body.n > 0,
                                   .max_body = BODY_MAX,
                                   .timeout_ms = q->idle_ms > 0      ? 0
                                                 : q->timeout_ms > 0 ? q->timeout_ms
                                                                     : DEFAULT_TIMEOUT_MS,
                                   .idle_timeout_ms = q->idle_ms,
                                   .on_data = q->on_data != NULL ? on_piece : NULL,
                                   .on_sent = q->on_sent != NULL ? on_sent : NULL,
                                   .done = on_done,
                                   .arg = x};
    *t = http_call(cli->http, &call, err);
    free(url);
    return *t != NULL ? 0 : -1;
}

static void call_once(struct cli *cli, const struct api_request *q, struct reply *r)
{
    struct exchange x = {.cli = cli, .request = q, .reply = r};
    struct http_transfer *t = NULL;
    err_set(&r->err, ERR_NO_MEMORY, "no memory");
    r->kind = REPLY_FAILED;
    if (start(&x, q, &t, &r->err) != 0)
        return;
    while (!x.done && !cli->interrupted)
        loop_run(cli->loop);
    if (!x.done) {
        http_cancel(&t);
        r->kind = REPLY_INTERRUPTED;
    }
    if (r->body.len > 0)
        r->doc = json_parse(buf_view(&r->body), NULL);
}

static bool is_worth_repeating(const struct reply *r, enum api_retry retry)
{
    if (retry == API_ONCE || r->kind == REPLY_OK || r->kind == REPLY_INTERRUPTED)
        return false;
    if (r->kind == REPLY_PROBLEM)
        return r->status == 429 || (r->status >= 502 && r->status <= 504);
    return retry == API_RETRY_ALL || r->err.code == ERR_PROTOCOL;
}

static void reply_init(struct reply *r)
{
    *r = (struct reply){.retry_after_sec = -1};
    buf_init(&r->body, BODY_MAX);
}

void api_call(struct cli *cli, const struct api_request *q, struct reply *out)
{
    mono_t until = mono_add_ms(mono_now(), PATIENCE_MS);
    for (;;) {
        reply_init(out);
        call_once(cli, q, out);
        if (!is_worth_repeating(out, q->retry) || mono_before(until, mono_now()))
            return;
        cli_sleep(cli, out->retry_after_sec > 0 ? out->retry_after_sec * 1000 : RETRY_MS);
        if (cli->interrupted) {
            out->kind = REPLY_INTERRUPTED;
            return;
        }
        reply_deinit(out);
    }
}

void reply_deinit(struct reply *r)
{
    json_free(&r->doc);
    buf_deinit(&r->body);
}

/* ---- reading replies ---- */

void reply_print(const struct reply *r)
{
    fwrite(r->body.data, 1, r->body.len, stdout);
    if (r->body.len == 0 || r->body.data[r->body.len - 1] != '\n')
        fputc('\n', stdout);
}

struct str reply_str(const struct json_value *object, const char *key)
{
    struct str s = STR("");
    json_str(json_get(object, key), &s);
    return s;
}

int64_t reply_int(const struct reply *r, const struct json_value *object, const char *key)
{
    int64_t v = -1;
    json_int(r->doc, json_get(object, key), &v);
    return v;
}

/* ---- errors: what happened, and what to do next ---- */

static const char *advice(const struct cli *cli, struct str code, int status)
{
    if (status == 401)
        return cli->authorization == NULL
                   ? "Set SANDPIPER_API_KEY, or run this where deploy/quickstart wrote " KEY_FILE "."
                   : "Check SANDPIPER_API_KEY; 'sandpiper keys create' makes a new key.";
    if (str_eq_c(code, "agent_not_found"))
        return "'sandpiper agents' lists the agents; 'sandpiper deploy DIR' makes one.";
    if (str_eq_c(code, "agent_not_ready"))
        return "'sandpiper agents' shows the state of its build.";
    if (status == 429 || status == 503)
        return "Try again in a moment.";
    return NULL;
}

static int complain_failed(const struct cli *cli, const struct reply *r)
{
    const char *url = cli->url != NULL ? cli->url : "the gateway";
    if (r->err.code == ERR_CONFIG)
        return STATUS_USAGE; /* told */
    if (r->err.code == ERR_IO)
        cli_error("cannot reach %s: %s\nIs the gateway running? Try deploy/quickstart, or set SANDPIPER_URL.",
                  url, r->err.msg);
    else
        cli_error("no usable answer from %s: %s\nThe gateway's log may say more.", url, r->err.msg);
    return STATUS_API;
}

int api_complain(const struct cli *cli, const struct reply *r)
{
    if (r->kind == REPLY_INTERRUPTED)
        return STATUS_INTERRUPTED;
    if (r->kind == REPLY_FAILED)
        return complain_failed(cli, r);
    const struct json_value *problem = json_root(r->doc);
    struct str code = reply_str(problem, "code"), detail = reply_str(problem, "detail");
    if (detail.n == 0)
        detail = reply_str(problem, "title");
    if (code.n == 0)
        cli_error("%s answered with status %d, and not as a gateway does: check SANDPIPER_URL", cli->url,
                  r->status);
    else
        cli_error("%.*s (%.*s, status %d)", STR_ARG(detail), STR_ARG(code), r->status);
    const char *next = code.n > 0 ? advice(cli, code, r->status) : NULL;
    if (next != NULL)
        fprintf(stderr, "%s\n", next);
    return STATUS_API;
}

int reply_check(const struct cli *cli, const struct reply *r, const char *member)
{
    if (r->kind != REPLY_OK)
        return api_complain(cli, r);
    if (json_get(json_root(r->doc), member) != NULL)
        return STATUS_OK;
    cli_error("%s does not answer as a gateway does: check SANDPIPER_URL", cli->url);
    return STATUS_API;
}
