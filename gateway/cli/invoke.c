/* invoke: submit, wait, print.
 *
 *   read the prompt -> POST /v1/invocations (Prefer: wait) -> GET ?wait= until it has ended -> output, or
 * what failed; with --stream its events instead, printed as they come (follow.c)
 *
 * Every submission carries an Idempotency-Key, so it may be sent again when its answer is lost. Ctrl-C
 * cancels the job; a second one leaves at once. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attach.h"
#include "base/id.h"
#include "cli.h"
#include "crypto/crypto.h"
#include "follow.h"
#include "json/writer.h"
#include "progress.h"

enum {
    PROMPT_MAX = 4 << 20,
    BODY_MAX = 28 << 20, /* a prompt of escapes grows sixfold */
    WAIT_S = 25,
    MARGIN_MS = 15000,
    OUTPUT_MS = 600000,
    UPLOAD_MS = 1200000, /* of what is attached */
    PATH_BYTES = 160,
};

struct invoke {
    struct cli *cli;
    const char *agent, *prompt, *file, *key, *priority, *not_before;
    int64_t timeout_s;
    char begin[CLI_WHEN_BYTES]; /* not_before as a time: the same when it is sent again */
    struct cli_list metadata, attach, env;
    struct attach_form form; /* of what is attached */
    struct progress sent;
    bool detach, stream;
    struct buf text; /* the prompt, when it was read */
    char key_text[80], id[ID_TEXT_BYTES];
    struct reply record;
    char last_output; /* the last byte written to stdout */
};

/* ---- the submission ---- */

/* All of fd. */
static int read_prompt(struct invoke *in, int fd, const char *name)
{
    for (;;) {
        char *to = buf_reserve(&in->text, 65536);
        if (to == NULL)
            break;
        ssize_t n = read(fd, to, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return cli_error("cannot read the prompt from %s: %s", name, strerror(errno));
        if (n == 0)
            return 0;
        buf_commit(&in->text, (size_t)n);
        if (in->text.len > PROMPT_MAX)
            break;
    }
    return cli_error("the prompt exceeds 4 MiB");
}

static int read_file(struct invoke *in)
{
    int fd = open(in->file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return cli_error("cannot open %s: %s", in->file, strerror(errno));
    int status = read_prompt(in, fd, in->file);
    close(fd);
    return status;
}

static int take_prompt(struct invoke *in)
{
    const char *from = in->file != NULL ? in->file : in->prompt;
    bool from_stdin = from != NULL ? strcmp(from, "-") == 0 : isatty(STDIN_FILENO) == 0;
    if (in->file != NULL && in->prompt != NULL)
        return cli_error("give a prompt or --file, not both");
    if (!from_stdin && from == NULL)
        return cli_error(
            "give a prompt, - to read it from stdin, or --file PATH\nUsage: sandpiper invoke AGENT [PROMPT | "
            "-]");
    if (from_stdin && read_prompt(in, STDIN_FILENO, "stdin") != 0)
        return STATUS_USAGE;
    if (!from_stdin && in->file != NULL && read_file(in) != 0)
        return STATUS_USAGE;
    if (!from_stdin && in->file == NULL && !buf_cstr_append(&in->text, in->prompt))
        return cli_error("the prompt exceeds 4 MiB");
    struct str s = buf_view(&in->text);
    if (!str_is_utf8(s) || memchr(s.p, '\0', s.n) != NULL)
        return cli_error("the prompt must be UTF-8 text without NUL bytes");
    return 0;
}

/* Values come from our own environment: arguments are there for every process to see. */
static int write_env(const struct cli_list *names, struct json_writer *w)
{
    jw_key(w, "env");
    jw_object(w);
    for (int i = 0; i < names->count; i++) {
        const char *name = names->items[i], *value = getenv(name);
        if (strchr(name, '=') != NULL)
            return cli_error(
                "--env takes a name, its value comes from the environment (arguments are there for "
                "every process to see): NAME=… sandpiper invoke … --env NAME");
        if (value == NULL)
            return cli_error("--env %s: there is no such variable in the environment", name);
        if (!str_is_utf8(str_of(value)))
            return cli_error("--env %s: its value is not UTF-8 text", name);
        jw_kcstr(w, name, value);
    }
    jw_object_end(w);
    return 0;
}

static int write_body(struct invoke *in, struct buf *body)
{
    struct json_writer w = json_writer(body);
    jw_object(&w);
    jw_kcstr(&w, "agent", in->agent);
    jw_kstr(&w, "prompt", buf_view(&in->text));
    if (in->timeout_s > 0)
        jw_kint(&w, "timeout_s", in->timeout_s);
    if (in->priority != NULL)
        jw_kcstr(&w, "priority", in->priority);
    if (in->begin[0] != '\0')
        jw_kcstr(&w, "not_before", in->begin);
    if (in->metadata.count > 0 && cli_metadata(&w, &in->metadata) != 0)
        return STATUS_USAGE;
    if (in->env.count > 0 && write_env(&in->env, &w) != 0)
        return STATUS_USAGE;
    jw_object_end(&w);
    return body->failed ? cli_error("the submission is too large") : 0;
}

static void forget(const struct invoke *in, struct buf *body)
{
    if (in->env.count > 0)
        crypto_wipe(body->data, body->len);
    buf_deinit(body);
}

static void on_sent(void *arg, int64_t sent)
{
    struct invoke *in = arg;
    if (!progress_is_due((int64_t)in->form.bytes) || in->cli->json || sent == 0)
        return;
    cli_spin(in->cli, NULL);
    progress_draw_bytes(&in->sent, "sending", sent, (int64_t)in->form.bytes);
    if (sent == (int64_t)in->form.bytes)
        fputs("\r\033[K", stderr);
}

/* The request's body and what goes with it: the document, or a form with the files that are attached. */
static int set_body(struct invoke *in, struct buf *document, struct api_request *q)
{
    int status = write_body(in, document);
    q->headers[0] = "Content-Type: application/json";
    q->body = buf_view(document);
    if (status != 0 || in->attach.count == 0)
        return status;
    if (in->form.map == NULL)
        status = attach_make(&in->attach, buf_view(document), &in->form);
    q->headers[0] = in->form.content_type;
    q->body = str_make(in->form.map, in->form.bytes);
    q->timeout_ms += UPLOAD_MS;
    q->on_sent = on_sent;
    q->sent_arg = in;
    return status;
}

/* Keeps the record's id; complains when the answer is none. */
static int take_record(struct invoke *in)
{
    if (in->record.kind != REPLY_OK)
        return api_complain(in->cli, &in->record);
    struct str id = reply_str(json_root(in->record.doc), "id");
    if (id.n > 0 && str_copy(id, in->id, sizeof in->id))
        return 0;
    cli_error("the gateway's answer is not an invocation");
    return STATUS_API;
}

/* wait_s 0: answer as soon as it is committed. */
static int submit(struct invoke *in, int wait_s)
{
    char key[400];
    struct buf body;
    buf_init(&body, BODY_MAX);
    snprintf(key, sizeof key, "Idempotency-Key: %s", in->key != NULL ? in->key : in->key_text);
    struct api_request q = {
        .method = "POST", .path = "/v1/invocations", .headers = {NULL, key}, .retry = API_RETRY_BUSY};
    char prefer[32];
    snprintf(prefer, sizeof prefer, "Prefer: wait=%d", wait_s);
    if (wait_s > 0) {
        q.headers[2] = prefer;
        q.timeout_ms = wait_s * 1000 + MARGIN_MS;
    }
    int status = set_body(in, &body, &q);
    if (status == 0) {
        reply_deinit(&in->record);
        api_call(in->cli, &q, &in->record);
        status = take_record(in);
    }
    forget(in, &body);
    return status;
}

/* ---- waiting ---- */

static bool has_ended(const struct invoke *in)
{
    static const char *const open[] = {"scheduled", "queued", "starting", "running"};
    struct str status = reply_str(json_root(in->record.doc), "status");
    for (size_t i = 0; i < sizeof open / sizeof *open; i++)
        if (str_eq_c(status, open[i]))
            return false;
    return true;
}

static int wait_for_end(struct invoke *in)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "/v1/invocations/%s?wait=%d", in->id, WAIT_S);
    while (!has_ended(in)) {
        const struct api_request q = {
            .method = "GET", .path = path, .timeout_ms = WAIT_S * 1000 + MARGIN_MS, .retry = API_RETRY_ALL};
        reply_deinit(&in->record);
        api_call(in->cli, &q, &in->record);
        if (in->record.kind != REPLY_OK)
            return api_complain(in->cli, &in->record);
    }
    return 0;
}

/* After Ctrl-C. While its submission waits, the job's id is not known: the same submission under the same key
 * tells it. */
static int cancel(struct invoke *in)
{
    char path[PATH_BYTES];
    cli_spin(in->cli, NULL);
    cli_spin(in->cli, "canceling; Ctrl-C again leaves");
    in->cli->interrupted = false;
    if (in->id[0] == '\0' && submit(in, 0) != 0) {
        cli_spin(in->cli, NULL);
        cli_error("the job may have been accepted; the same command with --idempotency-key %s finds it",
                  in->key != NULL ? in->key : in->key_text);
        return STATUS_INTERRUPTED;
    }
    snprintf(path, sizeof path, "/v1/invocations/%s/cancel", in->id);
    const struct api_request q = {.method = "POST", .path = path, .retry = API_RETRY_ALL};
    reply_deinit(&in->record);
    api_call(in->cli, &q, &in->record);
    cli_spin(in->cli, NULL);
    if (in->record.kind != REPLY_OK) {
        cli_error("%s could not be canceled", in->id);
        return api_complain(in->cli, &in->record);
    }
    struct str state = reply_str(json_root(in->record.doc), "status");
    if (str_eq_c(state, "canceled"))
        cli_error("canceled %s", in->id);
    else if (has_ended(in))
        cli_error("%s had ended already: %.*s", in->id, STR_ARG(state));
    else
        cli_error("canceling %s; 'sandpiper get %s' shows its end", in->id, in->id);
    return STATUS_ENDED;
}

/* ---- the result ---- */

static bool to_stdout(void *arg, struct str piece)
{
    struct invoke *in = arg;
    if (piece.n > 0)
        in->last_output = piece.p[piece.n - 1];
    return fwrite(piece.p, 1, piece.n, stdout) == piece.n;
}

static void end_output(const struct invoke *in)
{
    if (in->last_output != '\0' && in->last_output != '\n' && isatty(STDOUT_FILENO) != 0)
        fputc('\n', stdout);
    fflush(stdout);
}

static int print_output(struct invoke *in)
{
    const struct json_value *record = json_root(in->record.doc);
    struct str text;
    int status = 0;
    if (json_str(json_get(record, "output"), &text)) {
        to_stdout(in, text);
    } else if (reply_int(&in->record, record, "output_size") > 0) {
        char path[PATH_BYTES];
        snprintf(path, sizeof path, "/v1/invocations/%s/output", in->id);
        const struct api_request q = {
            .method = "GET", .path = path, .timeout_ms = OUTPUT_MS, .on_data = to_stdout, .arg = in};
        struct reply r;
        api_call(in->cli, &q, &r);
        status = r.kind == REPLY_OK ? 0 : api_complain(in->cli, &r);
        reply_deinit(&r);
    }
    end_output(in);
    return status;
}

/* The last 4 KiB of stderr, when there is any. */
static void print_log_tail(struct invoke *in)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "/v1/invocations/%s/logs", in->id);
    const struct api_request q = {.method = "GET", .path = path, .headers = {"Range: bytes=-4096"}};
    struct reply r;
    api_call(in->cli, &q, &r);
    if (r.kind == REPLY_OK && r.body.len > 0) {
        fwrite(r.body.data, 1, r.body.len, stderr);
        if (r.body.data[r.body.len - 1] != '\n')
            fputc('\n', stderr);
    }
    reply_deinit(&r);
}

static void print_failure(struct invoke *in)
{
    const struct json_value *record = json_root(in->record.doc), *error = json_get(record, "error");
    struct str status = reply_str(record, "status"), signal = reply_str(record, "signal");
    struct str message = reply_str(error, "message"), code = reply_str(error, "code");
    int64_t exit_code = reply_int(&in->record, record, "exit_code");
    if (!in->stream)
        print_log_tail(in);
    fprintf(stderr, "sandpiper: %s %.*s", in->id, STR_ARG(status));
    if (exit_code >= 0)
        fprintf(stderr, ", exit code %lld", (long long)exit_code);
    if (signal.n > 0)
        fprintf(stderr, ", signal %.*s", STR_ARG(signal));
    if (code.n > 0)
        fprintf(stderr, ": %.*s (%.*s)", STR_ARG(message), STR_ARG(code));
    fputc('\n', stderr);
}

static int print_result(struct invoke *in)
{
    bool succeeded = str_eq_c(reply_str(json_root(in->record.doc), "status"), "succeeded");
    int status = 0;
    cli_spin(in->cli, NULL);
    if (in->stream)
        end_output(in);
    else if (in->cli->json)
        reply_print(&in->record);
    else
        status = print_output(in);
    if (!succeeded && !in->cli->json)
        print_failure(in);
    return status != 0 ? status : succeeded ? STATUS_OK : STATUS_ENDED;
}

/* Prints it as it comes; the record is kept. What is attached is sent by itself before: nothing comes while
 * it goes, so that a stream would seem to be dead. */
static int stream(struct invoke *in)
{
    char key[400];
    struct buf body;
    struct follow f = {.out = stdout, .err = stderr};
    buf_init(&body, BODY_MAX);
    snprintf(key, sizeof key, "Idempotency-Key: %s", in->key != NULL ? in->key : in->key_text);
    struct api_request q = {
        .method = "POST", .path = "/v1/invocations", .headers = {NULL, key, "Accept: text/event-stream"}};
    bool before = in->attach.count > 0;
    int status = before ? submit(in, 0) : set_body(in, &body, &q);
    str_copy(str_of(in->id), f.id, sizeof f.id);
    if (status == 0)
        status = follow_run(in->cli, &f, before ? NULL : &q);
    forget(in, &body);
    reply_deinit(&in->record);
    in->record = f.result;
    in->last_output = f.last_output;
    str_copy(str_of(f.id), in->id, sizeof in->id);
    return status;
}

static int print_accepted(struct invoke *in)
{
    if (in->cli->json)
        reply_print(&in->record);
    else
        printf("%s\n", in->id);
    return STATUS_OK;
}

static int invoke(struct invoke *in)
{
    int status = take_prompt(in);
    if (status != 0)
        return status;
    cli_catch_interrupt(in->cli);
    if (in->stream) {
        status = stream(in);
    } else {
        cli_spin(in->cli, in->detach ? NULL : "running");
        status = submit(in, in->detach ? 0 : WAIT_S);
        if (status == 0 && in->detach)
            return print_accepted(in);
        if (status == 0)
            status = wait_for_end(in);
        cli_spin(in->cli, NULL);
    }
    if (status == STATUS_INTERRUPTED)
        return cancel(in);
    return status == 0 ? print_result(in) : status;
}

int command_invoke(struct cli *cli, int argc, char **argv)
{
    struct invoke in = {.cli = cli, .timeout_s = -1};
    bool wait = false;
    const struct cli_option options[] = {
        {"file", CLI_TEXT, &in.file, "PATH", "read the prompt from a file"},
        {"timeout", CLI_NUMBER, &in.timeout_s, "S", "the program's time limit in seconds (default 120)"},
        {"stream", CLI_FLAG, &in.stream, NULL, "print its output and log as they come"},
        {"wait", CLI_FLAG, &wait, NULL,
         "wait for its end and print its answer: so it is without any of these"},
        {"detach", CLI_FLAG, &in.detach, NULL, "print the invocation's id and leave"},
        {"no-wait", CLI_FLAG, &in.detach, NULL, "the same as --detach"},
        {"idempotency-key", CLI_TEXT, &in.key, "K", "submit at most once under this key"},
        {"priority", CLI_TEXT, &in.priority, "P", "high, normal or low"},
        {"attach", CLI_LIST, &in.attach, "PATH[=NAME]",
         "send a file along, under its own or that name; may be repeated"},
        {"env", CLI_LIST, &in.env, "NAME", "pass a variable of this environment on; may be repeated"},
        {"metadata", CLI_LIST, &in.metadata, "KEY=VALUE", "kept with the invocation; may be repeated"},
        {"not-before", CLI_TEXT, &in.not_before, "T",
         "begin then: 90s, 15m, 1h, 2d from now, or an RFC 3339 time"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {
        "invoke AGENT [PROMPT | -]",
        "Runs an agent on a prompt and prints its answer. Without a prompt it is read from stdin.\n"
        "Ctrl-C cancels the job. Exit status: 0 only when the job succeeded, 1 when it ended otherwise.",
        options, 1, 2};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    if (in.timeout_s == 0)
        return cli_error("--timeout needs a number of seconds from 1 up");
    if (in.detach && (wait || in.stream))
        return cli_error("--%s waits for the end; leave out --detach", in.stream ? "stream" : "wait");
    if (in.key != NULL && (in.key[0] == '\0' || strlen(in.key) > 255))
        return cli_error("an idempotency key has 1 to 255 characters");
    if (in.not_before != NULL && !cli_when_ahead(in.not_before, in.begin))
        return cli_error("--not-before needs a span from now as in 90s, 15m, 1h, 2d, or a time as in "
                         "2026-11-21T07:30:00Z, not \"%s\"",
                         in.not_before);
    in.agent = argv[first];
    in.prompt = argc - first > 1 ? argv[first + 1] : NULL;
    id_format("cli", uuid_new(), in.key_text);
    buf_init(&in.text, PROMPT_MAX + 65536 * 2);
    status = invoke(&in);
    attach_deinit(&in.form);
    reply_deinit(&in.record);
    buf_deinit(&in.text);
    return status;
}
