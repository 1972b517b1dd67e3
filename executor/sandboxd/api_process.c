/* process.Process (E2B.md C.4 in spirit: envd's process service).
 *
 * Start and Connect are streams: `start`, data, keepalives, `end`, then the end-stream frame. A stream is a watcher of
 * its process; a client that leaves takes only the stream along. The `end` event carries an extension that E2B's
 * SDKs ignore: "sandpiper": {"cpuMs": "…", "peakMemoryBytes": "…", "oomKilled": true}, of the whole sandbox. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "connect.h"
#include "crypto/crypto.h"
#include "process.h"

enum { MAX_FRAME = 256 * 1024, MAX_START_BODY = 1 << 20, MAX_ARGS = 1024, DEFAULT_KEEPALIVE_SEC = 90 };

struct stream {
    struct api_pending pending;
    struct http_request *req;
    struct process_watch watch;
    struct loop_timer *keepalive;
    struct loop_timer *deadline; /* of a Connect */
    int64_t keepalive_ms;
    struct buf frame;
    bool open; /* the answer's head is out */
};

/* ---- a stream's life ---- */

static void stream_free(struct stream *t)
{
    process_unfollow(&t->watch);
    loop_timer_free(&t->keepalive);
    loop_timer_free(&t->deadline);
    buf_deinit(&t->frame);
    free(t);
}

static void stream_gone(struct api_pending *self)
{
    stream_free((struct stream *)self);
}

static void stream_open(struct stream *t)
{
    if (t->open) return;
    t->open = true;
    http_stream_start(t->req, 200, "application/connect+json", -1);
}

static void on_drain(void *arg, struct http_request *req)
{
    struct stream *t = arg;
    (void)req;
    process_resume(&t->watch);
}

/* Sends the frame; false when the client is behind (process_resume follows). */
static bool stream_send(struct stream *t)
{
    stream_open(t);
    loop_timer_start(t->keepalive, t->keepalive_ms);
    if (http_stream_write(t->req, buf_view(&t->frame))) return true;
    http_stream_on_drain(t->req, on_drain, t);
    return false;
}

/* The last frame; code NULL for success. Frees the stream. */
static void stream_finish(struct stream *t, const char *code, const char *text)
{
    buf_clear(&t->frame);
    connect_end_stream(&t->frame, code, text);
    stream_send(t);
    http_set_data(t->req, NULL);
    http_stream_end(t->req);
    stream_free(t);
}

/* ---- events ---- */

static struct json_writer event_begin(struct stream *t, size_t *head, const char *name)
{
    buf_clear(&t->frame);
    *head = connect_frame_begin(&t->frame);
    struct json_writer w = json_writer(&t->frame);
    jw_object(&w);
    jw_key(&w, "event");
    jw_object(&w);
    jw_key(&w, name);
    jw_object(&w);
    return w;
}

static bool event_send(struct stream *t, struct json_writer *w, size_t head)
{
    jw_object_end(w);
    jw_object_end(w);
    jw_object_end(w);
    connect_frame_end(&t->frame, head, 0);
    return stream_send(t);
}

static void on_start(void *arg, int64_t pid)
{
    struct stream *t = arg;
    size_t head;
    struct json_writer w = event_begin(t, &head, "start");
    jw_kint(&w, "pid", pid);
    event_send(t, &w, head);
}

static bool on_output(void *arg, enum process_stream stream, struct str piece)
{
    static const char *const names[] = {"stdout", "stderr", "pty"};
    struct stream *t = arg;
    size_t head;
    struct json_writer w = event_begin(t, &head, "data");
    jw_key(&w, names[stream]);
    jw_base64(&w, piece);
    return event_send(t, &w, head);
}

static void on_keepalive(void *arg)
{
    struct stream *t = arg;
    size_t head;
    struct json_writer w = event_begin(t, &head, "keepalive");
    event_send(t, &w, head);
}

/* Go's names, which envd's status has. */
static const char *signal_text(int number, char *room, size_t room_bytes)
{
    static const char *const names[] = {
        [SIGHUP] = "hangup", [SIGINT] = "interrupt", [SIGQUIT] = "quit", [SIGILL] = "illegal instruction",
        [SIGTRAP] = "trace/breakpoint trap", [SIGABRT] = "aborted", [SIGBUS] = "bus error",
        [SIGFPE] = "floating point exception", [SIGKILL] = "killed", [SIGUSR1] = "user defined signal 1",
        [SIGSEGV] = "segmentation fault", [SIGUSR2] = "user defined signal 2", [SIGPIPE] = "broken pipe",
        [SIGALRM] = "alarm clock", [SIGTERM] = "terminated",
    };
    bool known = number > 0 && (size_t)number < sizeof names / sizeof names[0] && names[number] != NULL;
    if (known) snprintf(room, room_bytes, "signal: %s", names[number]);
    else snprintf(room, room_bytes, "signal: signal %d", number);
    return room;
}

static void put_extension(struct json_writer *w, const struct process_exit *e)
{
    char text[32];
    jw_key(w, "sandpiper");
    jw_object(w);
    if (e->cpu_us >= 0) {
        snprintf(text, sizeof text, "%lld", (long long)e->cpu_us / 1000);
        jw_kcstr(w, "cpuMs", text);
    }
    if (e->memory_peak_bytes >= 0) {
        snprintf(text, sizeof text, "%lld", (long long)e->memory_peak_bytes);
        jw_kcstr(w, "peakMemoryBytes", text);
    }
    if (e->oom_killed) jw_kbool(w, "oomKilled", true);
    jw_object_end(w);
}

static void send_exit(struct stream *t, const struct process_exit *e)
{
    char status[64];
    size_t head;
    struct json_writer w = event_begin(t, &head, "end");
    if (e->exited) snprintf(status, sizeof status, "exit status %d", e->code);
    else signal_text(e->code, status, sizeof status);
    int code = e->exited ? e->code : -1;
    if (code != 0) jw_kint(&w, "exitCode", code);
    if (e->exited) jw_kbool(&w, "exited", true);
    jw_kcstr(&w, "status", status);
    if (code != 0) jw_kcstr(&w, "error", status);
    put_extension(&w, e);
    event_send(t, &w, head);
}

static void on_end(void *arg, const struct process_exit *exit, const char *code, const char *text)
{
    struct stream *t = arg;
    if (exit != NULL) send_exit(t, exit);
    stream_finish(t, code, text);
}

static void on_deadline(void *arg)
{
    stream_finish(arg, "deadline_exceeded", "the stream's time limit is over");
}

static struct stream *stream_new(struct api *a, struct http_request *r)
{
    struct stream *t = calloc(1, sizeof *t);
    struct str text;
    uint64_t sec = DEFAULT_KEEPALIVE_SEC;
    if (t == NULL) return NULL;
    t->pending.on_gone = stream_gone;
    t->req = r;
    t->watch = (struct process_watch){.on_output = on_output, .on_start = on_start, .on_end = on_end, .arg = t};
    if (http_header(r, "Keepalive-Ping-Interval", &text) && (!str_to_u64(text, &sec) || sec == 0 || sec > 3600))
        sec = DEFAULT_KEEPALIVE_SEC;
    t->keepalive_ms = (int64_t)sec * 1000;
    buf_init(&t->frame, MAX_FRAME);
    t->keepalive = loop_timer_new(a->loop, on_keepalive, t);
    t->deadline = loop_timer_new(a->loop, on_deadline, t);
    if (t->keepalive == NULL || t->deadline == NULL) {
        stream_free(t);
        return NULL;
    }
    http_set_data(r, &t->pending);
    return t;
}

/* A streaming call that fails before it begins. */
static void stream_error(struct http_request *r, const char *code, const char *text)
{
    struct buf frame;
    buf_init(&frame, MAX_FRAME);
    connect_end_stream(&frame, code, text);
    http_reply(r, 200, "application/connect+json", buf_view(&frame));
    buf_deinit(&frame);
}

static const char *code_of(const struct err *err)
{
    switch (err_http_status(err->code)) {
    case 413:
    case 429: return "resource_exhausted";
    case 503: return "unavailable";
    case 400: return "invalid_argument";
    default: return "internal";
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
    if (!json_str(json_get(process, "cmd"), &s->argv[0]) || s->argv[0].n == 0) return false;
    s->spec.argc = 1;
    for (v = json_first(v); v != NULL; v = json_next(v))
        if (s->spec.argc == MAX_ARGS || !json_str(v, &s->argv[s->spec.argc++])) return false;
    s->spec.argv = s->argv;
    return true;
}

static bool read_env(const struct json_value *envs, struct pairs *out)
{
    struct str value;
    for (const struct json_value *v = json_first(envs); v != NULL; v = json_next(v)) {
        struct str name = json_key(v);
        if (name.n == 0 || memchr(name.p, '=', name.n) != NULL || !json_str(v, &value)) return false;
        if (!pairs_add(out, name, value)) return false;
    }
    return true;
}

static bool read_pty(const struct json *doc, const struct json_value *pty, struct process_spec *spec)
{
    const struct json_value *size = json_get(pty, "size");
    int64_t cols = 80, rows = 24;
    if (pty == NULL || json_type_of(pty) == JSON_NULL) return true;
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
    if (!read_argv(process, s)) return "process: cmd and args are expected";
    if (!read_env(json_get(process, "envs"), &s->spec.env)) return "process.envs: names and strings are expected";
    if (!str_or_absent(json_get(process, "cwd"), &s->spec.cwd)) return "process.cwd: a string is expected";
    v = json_get(root, "tag");
    s->spec.has_tag = v != NULL && json_type_of(v) != JSON_NULL;
    if (!str_or_absent(v, &s->spec.tag)) return "tag: a string is expected";
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
    if (wrong == NULL && !read_timeout(r, &start->spec.kill_after_ms)) wrong = "Connect-Timeout-Ms: malformed";
    if (wrong != NULL) {
        stream_error(r, "invalid_argument", wrong);
        return;
    }
    start->spec.user = api_user(r);
    struct stream *t = stream_new(a, r);
    if (t == NULL) {
        stream_error(r, "resource_exhausted", "no memory");
    } else if (process_start(s, &start->spec, &t->watch, &err) != 0) {
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
    if (doc == NULL) stream_error(r, "invalid_argument", err.msg);
    return doc;
}

static void rpc_start(void *arg, struct http_request *r, struct str body)
{
    struct api *a = arg;
    struct sandbox *s = api_sandbox(a, r, true);
    struct start *start;
    if (s == NULL) return;
    start = calloc(1, sizeof *start);
    if (start == NULL) {
        stream_error(r, "resource_exhausted", "no memory");
        return;
    }
    start->doc = stream_body(r, body);
    if (start->doc != NULL) start_process(a, r, s, start);
    pairs_free(&start->spec.env);
    json_free(&start->doc);
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
    on_start(t, process_pid(p));
    const struct process_exit *exit = process_ended(p);
    if (exit != NULL) {
        on_end(t, exit, NULL, NULL);
        return;
    }
    process_follow(p, &t->watch);
    if (ms > 0) loop_timer_start(t->deadline, ms);
}

static void rpc_connect(void *arg, struct http_request *r, struct str body)
{
    struct api *a = arg;
    struct sandbox *s = api_sandbox(a, r, true);
    const char *code;
    char text[128];
    struct json *doc = s != NULL ? stream_body(r, body) : NULL;
    if (doc == NULL) return;
    struct process *p = selected(s, doc, &code, text);
    if (p != NULL) connect_process(a, r, p);
    else stream_error(r, code, text);
    json_free(&doc);
}

/* ---- List ---- */

static void rpc_list(void *arg, struct http_request *r, struct str body)
{
    struct sandbox *s = api_sandbox(arg, r, true);
    struct buf out;
    struct str tag;
    (void)body;
    if (s == NULL) return;
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
        if (process_tag(p, &tag)) jw_kstr(&w, "tag", tag);
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
    if (code == NULL) http_reply(w->req, 200, "application/json", STR("{}"));
    else api_rpc_error(w->req, code, text);
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
    if (!found || !crypto_unbase64(text, &data)) api_rpc_error(r, "invalid_argument", "input: base64 is expected");
    else send_input(r, p, buf_view(&data));
    buf_deinit(&data);
}

static void close_for(struct http_request *r, struct process *p, const struct json *doc)
{
    (void)doc;
    if (process_close_input(p) != 0) api_rpc_error(r, "unknown", "a terminal's input cannot be closed");
    else http_reply(r, 200, "application/json", STR("{}"));
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
    const char *text = "the sandbox is gone";
    (void)fds;
    (void)fd_count;
    if (!last) return;
    http_set_data(w->req, NULL);
    const char *code = type == WIRE_FAILED ? api_fault_code(sandbox_fault(r, &text)) : "unavailable";
    if (type == WIRE_DONE) http_reply(w->req, 200, "application/json", STR("{}"));
    else api_rpc_error(w->req, code, text);
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
    if (json_str(v, &name)) return str_eq_c(name, "SIGNAL_SIGKILL") ? SIGKILL : str_eq_c(name, "SIGNAL_SIGTERM") ? SIGTERM : 0;
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

static void dispatch_unary(struct http_request *r, struct sandbox *s, struct process *p, const struct json *doc)
{
    struct str path = http_path(r);
    if (str_eq_c(path, "/process.Process/SendInput")) input_for(r, p, doc);
    else if (str_eq_c(path, "/process.Process/CloseStdin")) close_for(r, p, doc);
    else if (str_eq_c(path, "/process.Process/SendSignal")) signal_for(r, s, p, doc);
    else update_for(r, s, p, doc);
}

static void rpc_unary(void *arg, struct http_request *r, struct str body)
{
    struct sandbox *s = api_sandbox(arg, r, true);
    const char *code;
    char text[128];
    struct json *doc = s != NULL ? api_rpc_body(r, body) : NULL;
    if (doc == NULL) return;
    struct process *p = selected(s, doc, &code, text);
    if (p == NULL || process_ended(p) != NULL) api_rpc_error(r, p == NULL ? code : "not_found", text);
    else dispatch_unary(r, s, p, doc);
    json_free(&doc);
}

void process_request(struct api *a, struct http_request *r, struct str method)
{
    if (http_method_of(r) != HTTP_M_POST) api_error(r, 405, "method not allowed");
    else if (str_eq_c(method, "Start")) http_read_body(r, MAX_START_BODY, rpc_start, a);
    else if (str_eq_c(method, "Connect")) http_read_body(r, API_MAX_BODY, rpc_connect, a);
    else if (str_eq_c(method, "List")) http_read_body(r, API_MAX_BODY, rpc_list, a);
    else if (str_eq_c(method, "SendInput") || str_eq_c(method, "CloseStdin") || str_eq_c(method, "SendSignal") ||
             str_eq_c(method, "Update"))
        http_read_body(r, 2 * PROCESS_INPUT_MAX, rpc_unary, a);
    else api_rpc_error(r, "unimplemented", "this method is not available");
}
