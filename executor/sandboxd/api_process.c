/* process.Process: the requests. The streams themselves are stream.c's. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "connect.h"
#include "crypto/crypto.h"
#include "process.h"
#include "stream.h"

enum { MAX_START_BODY = 2 << 20, MAX_ARGS = 1024 };

static const char *code_of(const struct err *err)
{
    switch (err_http_status(err->code)) {
    case 413:
    case 429:
        return "resource_exhausted";
    case 503:
        return "unavailable";
    case 400:
        return "invalid_argument";
    default:
        return "internal";
    }
}

/* ---- Start ---- */

struct start {
    struct json *doc;
    struct process_spec spec;
    struct str argv[MAX_ARGS];
};

static bool str_or_absent(const struct json_value *v, struct str *out)
{
    *out = STR("");
    return v == NULL || json_type_of(v) == JSON_NULL || json_str(v, out);
}

static bool read_argv(const struct json_value *process, struct start *s)
{
    const struct json_value *v = json_get(process, "args");
    if (!json_str(json_get(process, "cmd"), &s->argv[0]) || s->argv[0].n == 0)
        return false;
    s->spec.argc = 1;
    for (v = json_first(v); v != NULL; v = json_next(v))
        if (s->spec.argc == MAX_ARGS || !json_str(v, &s->argv[s->spec.argc++]))
            return false;
    s->spec.argv = s->argv;
    return true;
}

static bool read_env(const struct json_value *envs, struct pairs *out)
{
    struct str value;
    for (const struct json_value *v = json_first(envs); v != NULL; v = json_next(v)) {
        struct str name = json_key(v);
        if (name.n == 0 || memchr(name.p, '=', name.n) != NULL || !json_str(v, &value))
            return false;
        if (!pairs_add(out, name, value))
            return false;
    }
    return true;
}

static bool read_pty(const struct json *doc, const struct json_value *pty, struct process_spec *spec)
{
    const struct json_value *size = json_get(pty, "size");
    int64_t cols = 80, rows = 24;
    if (pty == NULL || json_type_of(pty) == JSON_NULL)
        return true;
    spec->pty = true;
    json_int(doc, json_get(size, "cols"), &cols);
    json_int(doc, json_get(size, "rows"), &rows);
    spec->cols = (uint32_t)cols;
    spec->rows = (uint32_t)rows;
    return cols > 0 && cols < 65536 && rows > 0 && rows < 65536;
}

/* NULL, or what is wrong. */
static const char *read_start(struct start *s)
{
    const struct json_value *root = json_root(s->doc), *process = json_get(root, "process"), *v;
    s->spec.stdin_open = true; /* E2B's default: an absent field means an open pipe */
    if (!read_argv(process, s))
        return "process: cmd and args are expected";
    if (!read_env(json_get(process, "envs"), &s->spec.env))
        return "process.envs: names and strings are expected";
    if (!str_or_absent(json_get(process, "cwd"), &s->spec.cwd))
        return "process.cwd: a string is expected";
    v = json_get(root, "tag");
    s->spec.has_tag = v != NULL && json_type_of(v) != JSON_NULL;
    if (!str_or_absent(v, &s->spec.tag))
        return "tag: a string is expected";
    v = json_get(root, "stdin");
    if (v != NULL && json_type_of(v) != JSON_NULL && !json_bool(v, &s->spec.stdin_open))
        return "stdin: true or false is expected";
    return read_pty(s->doc, json_get(root, "pty"), &s->spec) ? NULL : "pty.size: cols and rows are expected";
}

static bool read_timeout(struct http_request *r, int64_t *ms)
{
    struct str text;
    *ms = 0;
    return !http_header(r, "Connect-Timeout-Ms", &text) || connect_timeout(text, ms);
}

static void start_process(struct api *a, struct http_request *r, struct sandbox *s, struct start *start)
{
    struct err err = ERR_INIT;
    const char *wrong = read_start(start);
    if (wrong == NULL && !read_timeout(r, &start->spec.kill_after_ms))
        wrong = "Connect-Timeout-Ms: malformed";
    if (wrong != NULL) {
        stream_error(r, "invalid_argument", wrong);
        return;
    }
    start->spec.user = api_user(r);
    struct stream *t = stream_new(a, r);
    if (t == NULL) {
        stream_error(r, "resource_exhausted", "no memory");
    } else if (process_start(s, &start->spec, stream_watch(t), &err) != 0) {
        http_set_data(r, NULL);
        stream_free(t);
        stream_error(r, code_of(&err), err.msg);
    }
}

/* Parses the one message of a streaming request. NULL: answered. */
static struct json *stream_body(struct http_request *r, struct str body)
{
    struct err err = ERR_INIT;
    struct str payload;
    if (!connect_single(body, &payload)) {
        stream_error(r, "invalid_argument", "one enveloped message is expected");
        return NULL;
    }
    struct json *doc = json_parse(payload.n > 0 ? payload : STR("{}"), &err);
    if (doc == NULL)
        stream_error(r, "invalid_argument", err.msg);
    return doc;
}

static void rpc_start(void *arg, struct http_request *r, struct str body)
{
    struct api *a = arg;
    struct sandbox *s = api_sandbox(a, r, true);
    struct start *start;
    if (s == NULL)
        return;
    start = calloc(1, sizeof *start);
    if (start == NULL) {
        stream_error(r, "resource_exhausted", "no memory");
        return;
    }
    start->doc = stream_body(r, body);
    if (start->doc != NULL)
        start_process(a, r, s, start);
    pairs_free(&start->spec.env);
    json_free_secret(&start->doc);
    free(start);
}

/* ---- selecting ---- */

/* {"pid":1} or {"tag":"x"}. NULL and the code and text of why. */
static struct process *selected(struct sandbox *s, const struct json *doc, const char **code, char text[128])
{
    const struct json_value *selector = json_get(json_root(doc), "process");
    struct process *p = NULL;
    struct str tag;
    int64_t pid;
    *code = "not_found";
    if (json_int(doc, json_get(selector, "pid"), &pid)) {
        p = process_by_pid(s, pid);
        snprintf(text, 128, "process with pid %lld not found", (long long)pid);
    } else if (json_str(json_get(selector, "tag"), &tag)) {
        p = process_by_tag(s, tag);
        snprintf(text, 128, "process with tag %.*s not found", tag.n < 64 ? (int)tag.n : 64, tag.p);
    } else {
        *code = "invalid_argument";
        snprintf(text, 128, "process: a pid or a tag is expected");
    }
    return p;
}

/* ---- Connect ---- */

static void connect_process(struct api *a, struct http_request *r, struct process *p)
{
    int64_t ms;
    if (!read_timeout(r, &ms)) {
        stream_error(r, "invalid_argument", "Connect-Timeout-Ms: malformed");
        return;
    }
    struct stream *t = stream_new(a, r);
    if (t == NULL) {
        stream_error(r, "resource_exhausted", "no memory");
        return;
    }
    const struct process_exit *exit = process_ended(p);
    stream_begin(t, process_pid(p), exit);
    if (exit != NULL)
        return;
    process_follow(p, stream_watch(t));
    stream_limit(t, ms);
}

static void rpc_connect(void *arg, struct http_request *r, struct str body)
{
    struct api *a = arg;
    struct sandbox *s = api_sandbox(a, r, true);
    const char *code;
    char text[128];
    struct json *doc = s != NULL ? stream_body(r, body) : NULL;
    if (doc == NULL)
        return;
    struct process *p = selected(s, doc, &code, text);
    if (p != NULL)
        connect_process(a, r, p);
    else
        stream_error(r, code, text);
    json_free(&doc);
}

/* ---- List ---- */

static void rpc_list(void *arg, struct http_request *r, struct str body)
{
    struct sandbox *s = api_sandbox(arg, r, true);
    struct buf out;
    struct str tag;
    (void)body;
    if (s == NULL)
        return;
    buf_init(&out, API_MAX_ANSWER);
    struct json_writer w = json_writer(&out);
    jw_object(&w);
    jw_key(&w, "processes");
    jw_array(&w);
    for (struct process *p = process_next(s, NULL); p != NULL; p = process_next(s, p)) {
        jw_object(&w);
        jw_key(&w, "config");
        jw_raw(&w, process_config(p));
        jw_kint(&w, "pid", process_pid(p));
        if (process_tag(p, &tag))
            jw_kstr(&w, "tag", tag);
        jw_object_end(&w);
    }
    jw_array_end(&w);
    jw_object_end(&w);
    api_json(r, 200, &out);
}

/* ---- SendInput, CloseStdin ---- */

struct input_wait {
    struct api_pending pending;
    struct http_request *req;
    struct sandbox *sandbox; /* compared only through the process: valid while the input is pending */
    struct process *process;
};

static void input_gone(struct api_pending *self)
{
    struct input_wait *w = (struct input_wait *)self;
    process_input_forget(w->process, w);
    free(w);
}

static void input_done(void *arg, const char *code, const char *text)
{
    struct input_wait *w = arg;
    http_set_data(w->req, NULL);
    if (code == NULL)
        http_reply(w->req, 200, "application/json", STR("{}"));
    else
        api_rpc_error(w->req, code, text);
    free(w);
}

static void send_input(struct http_request *r, struct process *p, struct str data)
{
    struct err err = ERR_INIT;
    struct input_wait *w = calloc(1, sizeof *w);
    if (w == NULL) {
        api_rpc_error(r, "resource_exhausted", "no memory");
        return;
    }
    *w = (struct input_wait){.pending.on_gone = input_gone, .req = r, .process = p};
    if (process_input(p, data, input_done, w, &err) == 0) {
        http_set_data(r, &w->pending);
        return;
    }
    free(w);
    api_rpc_error(r, err.code == ERR_OVERLOADED ? "resource_exhausted" : "internal", err.msg);
}

static void input_for(struct http_request *r, struct process *p, const struct json *doc)
{
    const struct json_value *input = json_get(json_root(doc), "input");
    struct str text;
    struct buf data;
    bool found = json_str(json_get(input, "stdin"), &text) || json_str(json_get(input, "pty"), &text);
    buf_init(&data, PROCESS_INPUT_MAX);
    if (!found || !crypto_unbase64(text, &data))
        api_rpc_error(r, "invalid_argument", "input: base64 is expected");
    else
        send_input(r, p, buf_view(&data));
    buf_deinit(&data);
}

static void close_for(struct http_request *r, struct process *p, const struct json *doc)
{
    (void)doc;
    if (process_close_input(p) != 0)
        api_rpc_error(r, "unknown", "a terminal's input cannot be closed");
    else
        http_reply(r, 200, "application/json", STR("{}"));
}

/* ---- SendSignal, Update ---- */

struct signal_wait {
    struct api_pending pending;
    struct http_request *req;
    struct sandbox *sandbox;
    uint32_t ticket;
};

static void signal_gone(struct api_pending *self)
{
    struct signal_wait *w = (struct signal_wait *)self;
    sandbox_forget(w->sandbox, w->ticket);
    free(w);
}

static void signal_answer(void *arg, int type, struct wire_reader *r, const int *fds, int fd_count, bool last)
{
    struct signal_wait *w = arg;
    const char *text = sandbox_over_text(type);
    (void)fds;
    (void)fd_count;
    if (!last)
        return;
    http_set_data(w->req, NULL);
    const char *code = type == WIRE_FAILED ? api_fault_code(sandbox_fault(r, &text)) : "unavailable";
    if (type == WIRE_DONE)
        http_reply(w->req, 200, "application/json", STR("{}"));
    else
        api_rpc_error(w->req, code, text);
    free(w);
}

/* Sends a message whose answer is the request's answer. */
static void forward(struct http_request *r, struct sandbox *s, struct wire_writer *msg)
{
    struct err err = ERR_INIT;
    struct signal_wait *w = calloc(1, sizeof *w);
    if (w == NULL) {
        api_rpc_error(r, "resource_exhausted", "no memory");
        return;
    }
    *w = (struct signal_wait){.pending.on_gone = signal_gone, .req = r, .sandbox = s};
    w->ticket = sandbox_send(s, msg, NULL, 0, signal_answer, w, &err);
    if (w->ticket != 0) {
        http_set_data(r, &w->pending);
        return;
    }
    free(w);
    api_rpc_error(r, code_of(&err), err.msg);
}

static int signal_number(const struct json *doc)
{
    const struct json_value *v = json_get(json_root(doc), "signal");
    struct str name;
    int64_t number = 0;
    if (json_str(v, &name))
        return str_eq_c(name, "SIGNAL_SIGKILL") ? SIGKILL : str_eq_c(name, "SIGNAL_SIGTERM") ? SIGTERM : 0;
    json_int(doc, v, &number);
    return number == SIGKILL || number == SIGTERM ? (int)number : 0;
}

static void signal_for(struct http_request *r, struct sandbox *s, struct process *p, const struct json *doc)
{
    int number = signal_number(doc);
    if (number == 0) {
        api_rpc_error(r, "unimplemented", "only SIGNAL_SIGKILL and SIGNAL_SIGTERM are supported");
        return;
    }
    process_note_kill(p);
    struct wire_writer *msg = sandbox_message(s, WIRE_SIGNAL);
    wire_put_u32(msg, (uint32_t)process_pid(p));
    wire_put_u32(msg, (uint32_t)number);
    forward(r, s, msg);
}

static void update_for(struct http_request *r, struct sandbox *s, struct process *p, const struct json *doc)
{
    const struct json_value *size = json_get(json_get(json_root(doc), "pty"), "size");
    int64_t cols, rows;
    if (!json_int(doc, json_get(size, "cols"), &cols) || !json_int(doc, json_get(size, "rows"), &rows)) {
        api_rpc_error(r, "invalid_argument", "pty.size: cols and rows are expected");
        return;
    }
    struct wire_writer *msg = sandbox_message(s, WIRE_RESIZE);
    wire_put_u32(msg, (uint32_t)process_pid(p));
    wire_put_u32(msg, (uint32_t)cols);
    wire_put_u32(msg, (uint32_t)rows);
    forward(r, s, msg);
}

/* ---- the unary calls on one process ---- */

static void dispatch_unary(struct http_request *r, struct sandbox *s, struct process *p,
                           const struct json *doc)
{
    struct str path = http_path(r);
    if (str_eq_c(path, "/process.Process/SendInput"))
        input_for(r, p, doc);
    else if (str_eq_c(path, "/process.Process/CloseStdin"))
        close_for(r, p, doc);
    else if (str_eq_c(path, "/process.Process/SendSignal"))
        signal_for(r, s, p, doc);
    else
        update_for(r, s, p, doc);
}

static void rpc_unary(void *arg, struct http_request *r, struct str body)
{
    struct sandbox *s = api_sandbox(arg, r, true);
    const char *code;
    char text[128];
    struct json *doc = s != NULL ? api_rpc_body(r, body) : NULL;
    if (doc == NULL)
        return;
    struct process *p = selected(s, doc, &code, text);
    if (p == NULL || process_ended(p) != NULL)
        api_rpc_error(r, p == NULL ? code : "not_found", text);
    else
        dispatch_unary(r, s, p, doc);
    json_free(&doc);
}

void process_request(struct api *a, struct http_request *r, struct str method)
{
    if (http_method_of(r) != HTTP_M_POST)
        api_error(r, 405, "method not allowed");
    else if (str_eq_c(method, "Start"))
        http_read_body(r, MAX_START_BODY, rpc_start, a);
    else if (str_eq_c(method, "Connect"))
        http_read_body(r, API_MAX_BODY, rpc_connect, a);
    else if (str_eq_c(method, "List"))
        http_read_body(r, API_MAX_BODY, rpc_list, a);
    else if (str_eq_c(method, "SendInput") || str_eq_c(method, "CloseStdin") ||
             str_eq_c(method, "SendSignal") || str_eq_c(method, "Update"))
        http_read_body(r, 2 * PROCESS_INPUT_MAX, rpc_unary, a);
    else
        api_rpc_error(r, "unimplemented", "this method is not available");
}
