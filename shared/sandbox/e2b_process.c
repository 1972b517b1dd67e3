/* A running program: the Start stream, and what happens when it breaks.
 *
 * The host runs the program whether or not anybody listens. When the stream ends without the program's end
 * (the connection broke, the silence grew too long, the proxy said `unavailable`), the sandbox's health is
 * asked: 502 means that the sandbox is gone; otherwise the program is attached to again by its pid. The host
 * keeps an exit for 30 s, so that is the window; within it everything is repeated with backoff.
 *
 * Output written while nobody listened is lost on E2B's host and on any that does not replay, and nothing
 * tells how much it was: whoever reads the output is told of each gap. `output_bytes` counts what arrived.
 *
 * A stream has two ends: the end event and the end-stream message. The outcome is known with the first; it is
 * told at once, and the transfer runs on unowned for a moment so that its connection can be used again. */
#include <stdio.h>
#include <stdlib.h>

#include "sandbox/connect.h"
#include "sandbox/e2b.h"
#include "sandbox/e2b_event.h"

enum {
    REQUEST_BYTES = 2 * 1024 * 1024,
    SCRATCH_BYTES = CONNECT_FRAME_MAX,
    HEALTH_MS = 5000,
    DRAIN_MS = 2000,
    URL_BYTES = 1024,
    ATTACH_TRY_MS = 10000,
    MAX_BREAKS = 20, /* of one program's stream: then the way to the sandbox is of no use */
};

enum process_state {
    PROCESS_STARTING,  /* Start was sent; the start event is awaited until start_deadline */
    PROCESS_RUNNING,   /* events flow */
    PROCESS_PROBING,   /* the stream broke: asking for the sandbox's health, or pausing before it */
    PROCESS_ATTACHING, /* Connect was sent; its start event is awaited */
    PROCESS_DRAINING,  /* the end was told; the transfer ends by itself */
};

struct process {
    struct e2b_request r;
    enum process_state state;
    struct sandbox sandbox;
    struct sandbox_process_events events;
    struct connect_decoder decoder;
    struct buf scratch;
    int64_t pid;
    int64_t output_bytes;
    mono_t started, broken_at;
    int64_t kill_after_ms;
    int breaks;
    bool feeding;  /* on_piece is on the stack */
    bool canceled; /* by its owner while feeding */
    bool has_exit;
    struct sandbox_exit exit;
    struct e2b_stream_end stream_end;
    bool has_stream_end;
    struct err broken; /* what broke the stream */
};

static void release(struct e2b_request *r)
{
    struct process *p = (struct process *)r;
    connect_deinit(&p->decoder);
    buf_deinit(&p->scratch);
    crypto_wipe(p->sandbox.token, sizeof p->sandbox.token);
}

static void process_cancel(struct sandbox_request *r)
{
    struct process *p = (struct process *)r;
    if (p->feeding)
        p->canceled = true; /* freed when the callback returns */
    else
        e2b_request_free(&p->r);
}

/* ---- the end ---- */

static void drain_late(struct e2b_request *r)
{
    e2b_request_free(r);
}

/* Tells the end. Afterwards the owner has nothing to do with it any more. */
static void process_end(struct process *p, const struct sandbox_exit *exit,
                        const struct sandbox_failure *failure)
{
    bool was_feeding = p->feeding;
    p->feeding = true; /* a cancel from inside must not free what is in use here */
    p->events.on_end(p->events.arg, exit, failure);
    p->feeding = was_feeding;
    p->canceled = false;
    p->state = PROCESS_DRAINING;
    if (failure == NULL && p->r.transfer != NULL)
        e2b_after(&p->r, DRAIN_MS, drain_late);
    else if (was_feeding)
        p->canceled = true; /* freed by on_piece */
    else
        e2b_request_free(&p->r);
}

/* A death by KILL after the host's own deadline was the deadline. */
static bool was_deadline(const struct process *p)
{
    int64_t ran_ms = mono_ms_between(p->started, mono_now());
    return p->kill_after_ms > 0 && ran_ms >= p->kill_after_ms && p->exit.kind == SANDBOX_SIGNALED &&
           strcmp(p->exit.signal, "KILL") == 0 && !p->exit.oom_killed;
}

static void tell_exit(struct process *p)
{
    struct sandbox_failure late = e2b_failure_make(ERR_TIMEOUT, RETRY_NEVER, "the host's time limit passed");
    if (was_deadline(p))
        process_end(p, NULL, &late);
    else
        process_end(p, &p->exit, NULL);
}

static void tell_failure(struct process *p, struct sandbox_failure f)
{
    process_end(p, NULL, &f);
}

/* ---- requests ---- */

static void envs_object(struct json_writer *w, const char *const *env)
{
    jw_key(w, "envs");
    jw_object(w);
    for (; env != NULL && *env != NULL; env++) {
        struct str value = str_of(*env), key;
        str_split(&value, '=', &key);
        jw_key_str(w, key);
        jw_str(w, value.p != NULL ? value : STR(""));
    }
    jw_object_end(w);
}

static void start_message(const struct sandbox_spawn *spec, struct buf *out)
{
    struct json_writer w = json_writer(out);
    jw_object(&w);
    jw_key(&w, "process");
    jw_object(&w);
    jw_kcstr(&w, "cmd", spec->cmd);
    jw_key(&w, "args");
    jw_array(&w);
    for (const char *const *a = spec->args; a != NULL && *a != NULL; a++)
        jw_cstr(&w, *a);
    jw_array_end(&w);
    envs_object(&w, spec->env);
    if (spec->cwd != NULL)
        jw_kcstr(&w, "cwd", spec->cwd);
    jw_object_end(&w);
    jw_kbool(&w, "stdin", spec->stdin_open);
    jw_object_end(&w);
}

static bool on_piece(void *arg, struct str piece);
static void on_stream_done(struct e2b_request *r, const struct http_response *answer, const struct err *err);

static int64_t ping_sec(void)
{
    uint16_t dice;
    random_bytes(&dice, sizeof dice);
    return E2B_PING_SEC - dice % (E2B_PING_SPREAD_SEC + 1);
}

/* Opens a stream with one message. */
static void open_stream(struct process *p, const char *path, struct str message, int64_t kill_after_ms)
{
    struct buf url, body;
    buf_init(&url, URL_BYTES);
    buf_init_secret(&body, REQUEST_BYTES + CONNECT_HEAD_BYTES); /* environments hold secrets */
    struct e2b_headers h = {.count = 0};
    e2b_data_headers(&h, &p->sandbox);
    e2b_header(&h, "Content-Type", STR("application/connect+json"));
    e2b_header(&h, "Connect-Protocol-Version", STR("1"));
    e2b_header_int(&h, "Keepalive-Ping-Interval", ping_sec());
    if (kill_after_ms > 0)
        e2b_header_int(&h, "Connect-Timeout-Ms", kill_after_ms);
    bool fine = message.p != NULL && connect_encode(message, &body);
    struct http_call call = {
        .method = "POST",
        .url = fine && e2b_data_url(p->r.e2b, &p->sandbox, path, &url) ? buf_cstr(&url) : NULL,
        .headers = h.list,
        .body = buf_view(&body),
        .body_secret = true,
        .once = true,
        .max_body = 64 * 1024,
        .idle_timeout_ms = E2B_SILENCE_MS,
        .on_data = on_piece,
    };
    p->has_stream_end = false;
    p->stream_end.code[0] = '\0';
    e2b_send(&p->r, &call, on_stream_done);
    buf_deinit(&url);
    buf_deinit(&body);
    crypto_wipe(h.text, h.used);
}

/* ---- re-attaching ---- */

static void ask_health(struct e2b_request *r);

static bool window_open(const struct process *p)
{
    return p->breaks <= MAX_BREAKS && mono_ms_between(p->broken_at, mono_now()) < E2B_ATTACH_MS;
}

/* Another try after a pause, or the end of trying. */
static void recover_later(struct process *p, const char *why)
{
    if (window_open(p)) {
        p->state = PROCESS_PROBING;
        e2b_after(&p->r, e2b_backoff_ms(++p->r.tries), ask_health);
        return;
    }
    struct sandbox_failure f = e2b_failure_make(ERR_PROTOCOL, RETRY_CHECK, p->broken.msg);
    err_wrap(&f.err, "the stream was lost and not recovered (%s)", why);
    tell_failure(p, f);
}

static void attach_late(struct e2b_request *r)
{
    http_cancel(&r->transfer);
    recover_later((struct process *)r, "attaching took too long");
}

static void attach(struct process *p)
{
    char message[64];
    int n = snprintf(message, sizeof message, "{\"process\":{\"pid\":%lld}}", (long long)p->pid);
    p->state = PROCESS_ATTACHING;
    connect_deinit(&p->decoder);
    connect_init(&p->decoder);
    open_stream(p, "/process.Process/Connect", str_make(message, (size_t)n), 0);
    e2b_after(&p->r, ATTACH_TRY_MS, attach_late);
}

static void on_health(struct e2b_request *r, const struct http_response *answer, const struct err *err)
{
    struct process *p = (struct process *)r;
    if (err == NULL && answer->status / 100 == 2) {
        attach(p);
        return;
    }
    struct sandbox_failure f = e2b_failure(answer, err, true);
    if (!f.sandbox_gone) {
        recover_later(p, "the sandbox does not answer");
        return;
    }
    f.retry = RETRY_CHECK; /* the program ran */
    err_wrap(&f.err, "the sandbox is gone");
    tell_failure(p, f);
}

static void ask_health(struct e2b_request *r)
{
    struct process *p = (struct process *)r;
    struct buf url;
    buf_init(&url, URL_BYTES);
    struct e2b_headers h = {.count = 0};
    e2b_data_headers(&h, &p->sandbox);
    p->state = PROCESS_PROBING;
    struct http_call call = {
        .method = "GET",
        .url = e2b_data_url(r->e2b, &p->sandbox, "/health", &url) ? buf_cstr(&url) : NULL,
        .headers = h.list,
        .max_body = 64 * 1024,
        .timeout_ms = HEALTH_MS,
    };
    e2b_send(r, &call, on_health);
    buf_deinit(&url);
    crypto_wipe(h.text, h.used);
}

/* The stream ended before the program did. A break of a running stream is looked into at once; breaks on the
 * way back wait, and keep the first one's window. */
static void stream_broke(struct process *p, const struct err *why)
{
    bool was_running = p->state == PROCESS_RUNNING;
    if (was_running) {
        p->broken_at = mono_now();
        p->broken = *why;
        p->r.tries = 0;
        p->breaks++;
        p->state = PROCESS_PROBING;
        if (p->events.on_break != NULL)
            p->events.on_break(p->events.arg);
    }
    if (was_running && p->breaks <= MAX_BREAKS)
        ask_health(&p->r);
    else
        recover_later(p, why->msg);
}

/* ---- the end of a stream ---- */

/* What the sandbox itself said at a stream's end, other than the program's end. */
static void ended_by_sandbox(struct process *p)
{
    const char *code = p->stream_end.code;
    struct sandbox_failure f = e2b_stream_failure(code, p->stream_end.message);
    bool late = strcmp(code, "deadline_exceeded") == 0, unknown = strcmp(code, "not_found") == 0;
    if (p->state == PROCESS_STARTING) {
        f.sandbox_gone =
            strcmp(code, "unavailable") == 0; /* the proxy's word for a sandbox that is not there */
        tell_failure(p, f);
    } else if (late) {
        f.retry = RETRY_NEVER;
        tell_failure(p, f);
    } else if (unknown && p->state == PROCESS_ATTACHING) {
        f = e2b_failure_make(ERR_PROTOCOL, RETRY_CHECK,
                             "the program ended while the stream was lost; its exit is not known");
        tell_failure(p, f);
    } else {
        stream_broke(p, &f.err);
    }
}

static void on_stream_done(struct e2b_request *r, const struct http_response *answer, const struct err *err)
{
    struct process *p = (struct process *)r;
    if (p->state == PROCESS_DRAINING) {
        e2b_request_free(r);
        return;
    }
    e2b_timer_stop(r);
    if (p->has_exit) {
        tell_exit(p);
        return;
    }
    if (p->has_stream_end && p->stream_end.code[0] != '\0') {
        ended_by_sandbox(p);
        return;
    }
    struct err early = {.code = ERR_PROTOCOL, .msg = "the stream ended before the program"};
    bool answered = err == NULL && answer->status == 200;
    struct sandbox_failure f =
        answered ? e2b_failure_make(early.code, RETRY_CHECK, early.msg) : e2b_failure(answer, err, true);
    if (p->broken.code != ERR_NONE && (answered || (err != NULL && err->code == ERR_CANCELED)))
        f.err = p->broken; /* a malformed frame made us stop */
    if (p->state == PROCESS_STARTING)
        tell_failure(p, f);
    else if (p->state == PROCESS_ATTACHING && err == NULL && answer->status == 404)
        tell_failure(
            p, e2b_failure_make(ERR_PROTOCOL, RETRY_CHECK, "the program ended while the stream was lost"));
    else
        stream_broke(p, &f.err);
}

/* ---- events ---- */

static void on_started(struct process *p, int64_t pid)
{
    bool first = p->state == PROCESS_STARTING;
    e2b_timer_stop(&p->r);
    if (p->state == PROCESS_STARTING || p->state == PROCESS_ATTACHING)
        p->state = PROCESS_RUNNING;
    if (!first) {
        if (p->events.on_resume != NULL)
            p->events.on_resume(p->events.arg);
        return;
    }
    p->pid = pid;
    p->started = mono_now();
    p->events.on_start(p->events.arg, pid);
}

static int on_event(struct process *p, const struct e2b_event *e, struct err *err)
{
    if (p->state == PROCESS_STARTING && e->kind != E2B_EVENT_START && e->kind != E2B_EVENT_OTHER)
        return err_set(err, ERR_PROTOCOL, "an event before the start");
    switch (e->kind) {
    case E2B_EVENT_START:
        on_started(p, e->pid);
        break;
    case E2B_EVENT_STDOUT:
        p->output_bytes += (int64_t)e->bytes.n;
        p->events.on_stdout(p->events.arg, e->bytes);
        break;
    case E2B_EVENT_STDERR:
        p->output_bytes += (int64_t)e->bytes.n;
        p->events.on_stderr(p->events.arg, e->bytes);
        break;
    case E2B_EVENT_END:
        p->exit = e->exit;
        p->has_exit = true;
        break;
    case E2B_EVENT_OTHER:
        break;
    }
    return 0;
}

static int on_frame(struct process *p, const struct connect_frame *frame, struct err *err)
{
    if (frame->end_stream) {
        p->has_stream_end = true;
        return e2b_stream_end_decode(frame->payload, &p->stream_end, err);
    }
    if (p->has_exit)
        return 0; /* nothing counts behind the end */
    struct e2b_event e;
    if (e2b_event_decode(frame->payload, &p->scratch, &e, err) != 0)
        return -1;
    return on_event(p, &e, err);
}

static int feed(struct process *p, struct str piece)
{
    struct connect_frame frame;
    int got = 0;
    while (!p->canceled && (got = connect_next(&p->decoder, &piece, &frame, &p->broken)) > 0)
        if (on_frame(p, &frame, &p->broken) != 0)
            return -1;
    return got;
}

/* Large output leaves no large buffer behind: thousands of programs idle. */
static void trim_scratch(struct process *p)
{
    if (p->scratch.cap <= 4096)
        return;
    buf_deinit(&p->scratch);
    buf_init(&p->scratch, SCRATCH_BYTES);
}

static bool on_piece(void *arg, struct str piece)
{
    struct process *p = arg;
    if (p->state == PROCESS_DRAINING)
        return true;
    p->feeding = true;
    bool fine = feed(p, piece) >= 0;
    trim_scratch(p);
    if (p->has_exit && !p->canceled)
        tell_exit(p);
    p->feeding = false;
    if (p->canceled) {
        e2b_request_free(&p->r);
        return true;
    }
    return fine; /* false: on_stream_done gets ERR_CANCELED and sees `broken` */
}

/* ---- starting ---- */

static void start_late(struct e2b_request *r)
{
    struct process *p = (struct process *)r;
    http_cancel(&r->transfer);
    tell_failure(p, e2b_failure_make(ERR_TIMEOUT, RETRY_CHECK, "the program did not start in time"));
}

struct sandbox_request *e2b_spawn(struct provider *provider, const struct sandbox_spawn *spec,
                                  const struct sandbox_process_events *events)
{
    struct process *p = e2b_request_new(provider, sizeof *p, spec->start_deadline_ms);
    if (p == NULL)
        return NULL;
    p->r.release = release;
    p->r.base.cancel = process_cancel;
    p->sandbox = *spec->sandbox;
    p->events = *events;
    p->kill_after_ms = spec->kill_after_ms;
    p->started = mono_now();
    connect_init(&p->decoder);
    buf_init(&p->scratch, SCRATCH_BYTES);
    struct buf message;
    buf_init_secret(&message, REQUEST_BYTES);
    start_message(spec, &message);
    struct str text = buf_view(&message);
    if (message.failed)
        text.p = NULL; /* refused: too large */
    if (spec->start_deadline_ms > 0)
        e2b_after(&p->r, spec->start_deadline_ms, start_late);
    open_stream(p, "/process.Process/Start", text, spec->kill_after_ms);
    buf_deinit(&message);
    return &p->r.base;
}
