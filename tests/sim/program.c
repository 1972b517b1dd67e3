/* Programs: nothing runs. A program answers with what the options, or its own input, say it does:
 *
 *   input    the last argument of its command line; when that is empty, the file uploaded last
 *   {"sim": {"run_ms": …, "output": …, "output_bytes": …, "stderr": …, "pieces": …, "exit_code": …,
 *            "signal": …, "env": …}}   at the end of the input: this program does so
 *
 * A program's stream goes to everybody who asked for it (Start, Connect). What nobody listens to is dropped,
 * as envd does. It is paced by its slowest listener. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "connect.h"
#include "sim.h"

enum {
    CHUNK_BYTES = 32 * 1024,
    AT_ONCE_BYTES = 48 * 1024,
    ENDED_MAX = 64,
    FIRST_PID = 1000,
    PING_SEC = 90, /* envd's; Keepalive-Ping-Interval asks for another */
    PING_MAX_SEC = 3600,
};

static const char stream_type[] = "application/connect+json";

struct watcher {
    struct watcher *prev, *next;
    struct program *program;
    struct call *call;
    struct loop_timer *ping; /* since the last thing that it was told */
    int64_t ping_ms;
    bool full;
};

/* How a program will go. */
struct plan {
    int64_t start_ms, run_ms, kill_after_ms, pieces, exit_code;
    int64_t vanish_ms; /* >= 0: after the start its sandbox lives so long */
    char signal[32];   /* "" none; as envd names it: "killed" */
    char *out, *err;   /* out NULL: out_n bytes of lines, made as they are written */
    size_t out_n, err_n;
};

struct program {
    struct program *prev, *next;
    struct box *box;
    int64_t pid;
    struct plan plan;
    enum { PROGRAM_STARTING, PROGRAM_RUNNING, PROGRAM_ENDED } state;
    int64_t pieces_due;
    size_t sent, due; /* of the output */
    bool late;        /* ended by Connect-Timeout-Ms */
    struct loop_timer *timer;
    struct watcher *watchers;
};

/* ---- frames ---- */

static struct json_writer event_begin(struct buf *out, size_t *head)
{
    *head = connect_frame_begin(out);
    struct json_writer w = json_writer(out);
    jw_object(&w);
    jw_key(&w, "event");
    jw_object(&w);
    return w;
}

static void event_end(struct json_writer *w, size_t head)
{
    jw_object_end(w);
    jw_object_end(w);
    connect_frame_end(w->out, head, 0);
}

static void put_start(struct buf *out, int64_t pid)
{
    size_t head;
    struct json_writer w = event_begin(out, &head);
    jw_key(&w, "start");
    jw_object(&w);
    jw_kint(&w, "pid", pid);
    jw_object_end(&w);
    event_end(&w, head);
}

static void put_data(struct buf *out, const char *stream, struct str piece)
{
    size_t head;
    struct json_writer w = event_begin(out, &head);
    jw_key(&w, "data");
    jw_object(&w);
    jw_key(&w, stream);
    jw_base64(&w, piece);
    jw_object_end(&w);
    event_end(&w, head);
}

static void put_end(struct buf *out, const struct plan *p)
{
    char status[64];
    size_t head;
    struct json_writer w = event_begin(out, &head);
    bool signaled = p->signal[0] != '\0';
    snprintf(status, sizeof status, "signal: %s", p->signal);
    if (!signaled)
        snprintf(status, sizeof status, "exit status %lld", (long long)p->exit_code);
    jw_key(&w, "end");
    jw_object(&w);
    if (signaled || p->exit_code != 0)
        jw_kint(&w, "exitCode", signaled ? -1 : p->exit_code);
    if (!signaled)
        jw_kbool(&w, "exited", true);
    jw_kcstr(&w, "status", status);
    if (signaled || p->exit_code != 0)
        jw_kcstr(&w, "error", status);
    jw_object_end(&w);
    event_end(&w, head);
}

/* A stream's last two messages, but for those that its fault holds back. late: ended by the client's limit.
 */
static void put_ends(struct buf *out, const struct plan *p, bool late, enum fault_kind fault)
{
    if (!late && fault != FAULT_NO_END)
        put_end(out, p);
    if (fault != FAULT_NO_END_STREAM)
        connect_end_stream(out, late ? "deadline_exceeded" : NULL,
                           late ? "the program's time is over" : NULL);
}

/* A whole stream that is known already. */
static void say(struct http_request *r, struct buf *first, struct buf *rest)
{
    const struct call *c = http_data(r);
    if (c->fault.kind == FAULT_NONE && rest->len == 0) {
        http_reply(r, 200, stream_type, buf_view(first));
    } else if (answer_stream(r, 200, stream_type)) {
        answer_write(r, buf_view(first));
        answer_write(r, buf_view(rest));
        answer_end(r);
    }
    buf_deinit(first);
    buf_deinit(rest);
}

static void stream_refuse(struct http_request *r, const char *code, const char *text)
{
    struct buf out, none;
    buf_init(&out, ANSWER_MAX_BYTES);
    buf_init(&none, 1);
    connect_end_stream(&out, code, text);
    say(r, &out, &none);
}

/* ---- the plan ---- */

static bool set_out(struct plan *p, struct str s)
{
    free(p->out);
    p->out = str_dup(s);
    p->out_n = s.n;
    return p->out != NULL;
}

/* So many bytes, in lines of 64: made when they are written, so that a GiB costs no memory. */
static void set_bytes(struct plan *p, int64_t n)
{
    free(p->out);
    p->out = NULL;
    p->out_n = (size_t)n;
}

/* Bytes of the output from `at` on; in `room` when they are made. */
static struct str out_piece(const struct plan *p, size_t at, size_t n, char room[CHUNK_BYTES])
{
    static const char line[] = "the quick brown fox jumps over the lazy dog, and once more back\n";
    n = p->out_n - at < n ? p->out_n - at : n;
    if (p->out != NULL)
        return str_make(p->out + at, n);
    for (size_t done = 0; done < n;) {
        size_t from = (at + done) % (sizeof line - 1), part = sizeof line - 1 - from;
        part = part < n - done ? part : n - done;
        memcpy(room + done, line + from, part);
        done += part;
    }
    return str_make(room, n);
}

static bool whole(const struct json *doc, const struct json_value *v, const char *name, int64_t max,
                  int64_t *out)
{
    const struct json_value *m = json_get(v, name);
    return m == NULL || (json_int(doc, m, out) && *out >= 0 && *out <= max);
}

/* As Go's runtime calls them, which is what envd says. */
static bool set_signal(struct plan *p, struct str name)
{
    static const char *const signals[][2] = {{"KILL", "killed"},
                                             {"TERM", "terminated"},
                                             {"INT", "interrupt"},
                                             {"ABRT", "aborted"},
                                             {"SEGV", "segmentation fault"}};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (str_eq_c(name, signals[i][0]))
            return str_copy(str_of(signals[i][1]), p->signal, sizeof p->signal);
    return false;
}

/* The object that the input ends with and that begins with "sim"; empty: none. */
static struct str order_in(struct str input)
{
    static const char head[] = "{\"sim\"";
    input = str_trim(input);
    for (size_t at = input.n; at-- > 0 && input.n > 0 && input.p[input.n - 1] == '}';)
        if (str_starts(str_make(input.p + at, input.n - at), str_of(head)))
            return str_make(input.p + at, input.n - at);
    return str_of(NULL);
}

/* Of its environment; "" when it is not set. */
static struct str env_of(const struct json_value *envs, struct str name)
{
    struct str value;
    for (const struct json_value *v = json_first(envs); v != NULL; v = json_next(v))
        if (str_eq(json_key(v), name) && json_str(v, &value))
            return value;
    return STR("");
}

/* What the input itself asks for. False: it cannot be followed. */
static bool plan_ask(struct plan *p, struct str input, const struct json_value *envs)
{
    static const char *const known[] = {"run_ms",    "output", "output_bytes", "stderr", "pieces",
                                        "exit_code", "signal", "env",          NULL};
    struct err err = ERR_INIT;
    struct str text;
    int64_t bytes = -1;
    bool good = true;
    input = order_in(input);
    if (input.n == 0)
        return true;
    struct json *doc = json_parse(input, &err);
    const struct json_value *sim = doc != NULL ? json_get(json_root(doc), "sim") : NULL;
    if (sim != NULL) {
        good = json_known_fields(sim, known, &err) == 0 &&
               whole(doc, sim, "run_ms", 3600 * 1000, &p->run_ms) &&
               whole(doc, sim, "output_bytes", SIM_OUTPUT_MAX_BYTES, &bytes) &&
               whole(doc, sim, "pieces", SIM_PIECES_MAX, &p->pieces) &&
               whole(doc, sim, "exit_code", 255, &p->exit_code);
        if (good && json_str(json_get(sim, "output"), &text))
            good = set_out(p, text);
        if (good && json_str(json_get(sim, "env"), &text))
            good = set_out(p, env_of(envs, text));
        if (good && bytes >= 0)
            set_bytes(p, bytes);
        if (good && json_str(json_get(sim, "stderr"), &text)) {
            p->err = str_dup(text);
            p->err_n = p->err != NULL ? text.n : 0;
        }
        if (good && json_str(json_get(sim, "signal"), &text))
            good = set_signal(p, text);
    }
    json_free(&doc);
    p->pieces = p->pieces > 0 ? p->pieces : 1;
    return good;
}

static bool plan_make(struct plan *p, const struct sim *sim, const struct call *c, struct str input,
                      const struct json_value *envs)
{
    const struct options *o = &sim->o;
    const struct dice *d = faults_dice(sim->faults);
    *p = (struct plan){.start_ms = span_draw(&o->start_span, d, DICE_LATENCY + c->kind, c->turn),
                       .run_ms = span_draw(&o->run_span, d, DICE_RUN + c->kind, c->turn),
                       .pieces = o->pieces,
                       .vanish_ms = c->fault.kind == FAULT_VANISH ? c->fault.for_ms : -1};
    bool echo = strcmp(o->output, "echo") == 0, made = true;
    if (o->output_bytes > 0)
        set_bytes(p, o->output_bytes);
    else
        made = set_out(p, echo ? input : str_of(o->output));
    made = made && plan_ask(p, input, envs);
    if (made && c->fault.kind == FAULT_FLOOD)
        set_bytes(p, c->fault.bytes);
    return made;
}

static void plan_drop(struct plan *p)
{
    free(p->out);
    free(p->err);
    p->out = p->err = NULL;
    p->out_n = p->err_n = 0;
}

/* ---- lives ---- */

static void watcher_drop(struct watcher *w)
{
    DL_DELETE(w->program->watchers, w);
    w->call->gone = NULL;
    loop_timer_free(&w->ping);
    free(w);
}

static void program_free(struct program *p)
{
    DL_DELETE(p->box->running, p);
    while (p->watchers != NULL) {
        struct call *c = p->watchers->call;
        watcher_drop(p->watchers);
        answer_abort(c);
    }
    p->box->sim->programs_running -= p->state != PROGRAM_ENDED;
    loop_timer_free(&p->timer);
    plan_drop(&p->plan);
    free(p);
}

void programs_drop(struct box *b)
{
    while (b->running != NULL)
        program_free(b->running);
}

static struct program *program_new(struct box *b, const struct plan *plan)
{
    struct program *p = calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    p->box = b;
    p->plan = *plan;
    p->pid = FIRST_PID + ++b->programs;
    b->sim->programs++;
    b->sim->programs_running++;
    DL_APPEND(b->running, p);
    if (b->programs > ENDED_MAX && b->running->state == PROGRAM_ENDED)
        program_free(b->running);
    return p;
}

static void enter_ended(struct program *p)
{
    p->state = PROGRAM_ENDED;
    p->box->sim->programs_running--;
    loop_timer_free(&p->timer);
    plan_drop(&p->plan);
}

/* ---- telling ---- */

static void pump(struct program *p);

static void on_drain(void *arg, struct http_request *r)
{
    (void)r;
    struct watcher *w = arg;
    w->full = false;
    pump(w->program);
}

static void tell_one(struct watcher *w, struct str frames)
{
    loop_timer_start(w->ping, w->ping_ms);
    if (!answer_write(w->call->req, frames) && !w->full) {
        w->full = true;
        answer_on_drain(w->call->req, on_drain, w);
    }
}

static void on_ping(void *arg)
{
    struct buf out;
    size_t head;
    buf_init(&out, 256);
    struct json_writer w = event_begin(&out, &head);
    jw_key(&w, "keepalive");
    jw_object(&w);
    jw_object_end(&w);
    event_end(&w, head);
    tell_one(arg, buf_view(&out));
    buf_deinit(&out);
}

static void tell(struct program *p, struct buf *frames)
{
    struct watcher *w, *next;
    DL_FOREACH_SAFE(p->watchers, w, next)
    {
        tell_one(w, buf_view(frames));
    }
    buf_deinit(frames);
}

static void finish(struct program *p)
{
    while (p->watchers != NULL) {
        struct call *c = p->watchers->call;
        struct buf frames;
        buf_init(&frames, ANSWER_MAX_BYTES);
        watcher_drop(p->watchers);
        put_ends(&frames, &p->plan, p->late, c->fault.kind);
        answer_write(c->req, buf_view(&frames));
        answer_end(c->req);
        buf_deinit(&frames);
    }
    enter_ended(p);
}

static bool any_full(const struct program *p)
{
    for (const struct watcher *w = p->watchers; w != NULL; w = w->next)
        if (w->full)
            return true;
    return false;
}

static void wait_for_piece(struct program *p)
{
    int64_t done_ms = p->plan.run_ms * p->pieces_due / p->plan.pieces;
    int64_t next_ms = p->plan.run_ms * (p->pieces_due + 1) / p->plan.pieces;
    if (p->plan.kill_after_ms > 0 && next_ms > p->plan.kill_after_ms) {
        next_ms = p->plan.kill_after_ms > done_ms ? p->plan.kill_after_ms : done_ms;
        p->late = true;
    }
    loop_timer_start(p->timer, next_ms - done_ms);
}

/* Writes what is due, as its listeners take it; then waits for more, or ends. */
static void pump(struct program *p)
{
    if (p->state != PROGRAM_RUNNING)
        return;
    if (p->watchers == NULL)
        p->sent = p->due;
    while (p->sent < p->due && p->watchers != NULL && !any_full(p)) {
        struct buf frames;
        char room[CHUNK_BYTES];
        size_t n = p->due - p->sent < CHUNK_BYTES ? p->due - p->sent : CHUNK_BYTES;
        buf_init(&frames, ANSWER_MAX_BYTES);
        put_data(&frames, "stdout", out_piece(&p->plan, p->sent, n, room));
        p->sent += n;
        tell(p, &frames);
    }
    if (p->sent < p->due || loop_timer_active(p->timer))
        return;
    if (p->pieces_due < p->plan.pieces)
        wait_for_piece(p);
    else
        finish(p);
}

static void begin(struct program *p)
{
    struct buf frames;
    p->state = PROGRAM_RUNNING;
    buf_init(&frames, ANSWER_MAX_BYTES);
    put_start(&frames, p->pid);
    if (p->plan.err_n > 0)
        put_data(&frames, "stderr", str_make(p->plan.err, p->plan.err_n));
    tell(p, &frames);
    if (p->plan.vanish_ms >= 0)
        loop_timer_start(p->timer, p->plan.vanish_ms);
    else
        wait_for_piece(p);
}

static void on_timer(void *arg)
{
    struct program *p = arg;
    if (p->state == PROGRAM_STARTING) {
        begin(p);
    } else if (p->plan.vanish_ms >= 0) {
        box_end(p->box, BOX_VANISHED); /* and this program with it */
    } else if (p->late) {
        finish(p);
    } else {
        p->pieces_due++;
        p->due = (size_t)((double)p->plan.out_n * (double)p->pieces_due / (double)p->plan.pieces);
        if (p->pieces_due == p->plan.pieces)
            p->due = p->plan.out_n;
        pump(p);
    }
}

static void on_watcher_gone(void *owner)
{
    struct watcher *w = owner;
    struct program *p = w->program;
    watcher_drop(w); /* the program goes on, as envd's do */
    pump(p);
}

static int64_t ping_ms_of(struct http_request *r)
{
    struct str text;
    uint64_t sec = PING_SEC;
    if (http_header(r, "Keepalive-Ping-Interval", &text) &&
        (!str_to_u64(text, &sec) || sec == 0 || sec > PING_MAX_SEC))
        sec = PING_SEC;
    return (int64_t)sec * 1000;
}

/* From now on the request gets what the program says. False without memory. */
static bool watch(struct program *p, struct http_request *r)
{
    struct call *c = http_data(r);
    struct watcher *w = calloc(1, sizeof *w);
    struct loop_timer *ping = w != NULL ? loop_timer_new(p->box->sim->loop, on_ping, w) : NULL;
    if (ping == NULL || !answer_stream(r, 200, stream_type)) { /* broken off: the program runs for nobody */
        bool broken = ping != NULL;
        loop_timer_free(&ping);
        free(w);
        return broken;
    }
    *w = (struct watcher){.call = c, .program = p, .ping = ping, .ping_ms = ping_ms_of(r)};
    loop_timer_start(ping, w->ping_ms);
    DL_APPEND(p->watchers, w);
    c->gone = on_watcher_gone;
    c->owner = w;
    return true;
}

/* ---- Start ---- */

/* A program that takes no time, all of it in one answer. */
static void answer_at_once(struct program *p, struct http_request *r)
{
    struct buf out;
    char room[CHUNK_BYTES];
    buf_init(&out, ANSWER_MAX_BYTES);
    put_start(&out, p->pid);
    if (p->plan.err_n > 0)
        put_data(&out, "stderr", str_make(p->plan.err, p->plan.err_n));
    for (size_t at = 0; at < p->plan.out_n; at += CHUNK_BYTES)
        put_data(&out, "stdout", out_piece(&p->plan, at, CHUNK_BYTES, room));
    put_ends(&out, &p->plan, false, FAULT_NONE);
    enter_ended(p);
    http_reply(r, 200, stream_type, buf_view(&out));
    buf_deinit(&out);
}

static struct str input_of(struct box *b, const struct json_value *process)
{
    struct str last = str_of(NULL), text;
    for (const struct json_value *v = json_first(json_get(process, "args")); v != NULL; v = json_next(v))
        if (json_str(v, &text))
            last = text;
    if (last.n == 0 && b->file_count > 0)
        last = buf_view(&b->files[b->file_count - 1].data);
    return last;
}

static void run_plan(struct box *b, struct http_request *r, const struct plan *plan)
{
    const struct call *c = http_data(r);
    bool at_once = plan->start_ms + plan->run_ms == 0 && plan->out_n + plan->err_n <= AT_ONCE_BYTES &&
                   c->fault.kind == FAULT_NONE;
    struct program *p = program_new(b, plan);
    if (p == NULL) {
        struct plan lost = *plan;
        plan_drop(&lost);
        stream_refuse(r, "resource_exhausted", "no memory");
        return;
    }
    if (at_once) {
        answer_at_once(p, r);
        return;
    }
    p->timer = loop_timer_new(b->sim->loop, on_timer, p);
    if (p->timer == NULL || !watch(p, r)) {
        program_free(p);
        stream_refuse(r, "resource_exhausted", "no memory");
        return;
    }
    loop_timer_start(p->timer, p->plan.start_ms);
}

void program_start(struct box *b, struct http_request *r, struct str body)
{
    struct err err = ERR_INIT;
    struct str payload, text;
    struct plan plan = {0};
    int64_t kill_after_ms = 0;
    struct json *doc = connect_single(body, &payload) ? json_parse(payload, &err) : NULL;
    const struct json_value *process = doc != NULL ? json_get(json_root(doc), "process") : NULL;
    bool timed = http_header(r, "Connect-Timeout-Ms", &text);
    if (process == NULL || !json_str(json_get(process, "cmd"), &payload) ||
        (timed && !connect_timeout(text, &kill_after_ms))) {
        stream_refuse(r, "invalid_argument", "one message with process.cmd is expected");
    } else if (!plan_make(&plan, b->sim, http_data(r), input_of(b, process), json_get(process, "envs"))) {
        plan_drop(&plan);
        stream_refuse(r, "invalid_argument", "the input's \"sim\" has unknown names or values out of range");
    } else {
        plan.kill_after_ms = kill_after_ms;
        run_plan(b, r, &plan);
    }
    json_free(&doc);
}

/* ---- the other calls ---- */

/* {"process": {"pid": N}} */
static struct program *named(struct box *b, struct str message)
{
    struct err err = ERR_INIT;
    struct program *p, *found = NULL;
    int64_t pid;
    struct json *doc = json_parse(message, &err);
    if (doc != NULL && json_int(doc, json_get(json_get(json_root(doc), "process"), "pid"), &pid))
        DL_FOREACH(b->running, p)
        {
            if (p->pid == pid)
                found = p;
        }
    json_free(&doc);
    return found;
}

void program_connect(struct box *b, struct http_request *r, struct str body)
{
    struct str payload = str_of(NULL);
    struct buf first, rest;
    const struct call *c = http_data(r);
    struct program *p = connect_single(body, &payload) ? named(b, payload) : NULL;
    if (p == NULL) {
        stream_refuse(r, "not_found", "no process of that pid");
        return;
    }
    buf_init(&first, ANSWER_MAX_BYTES);
    buf_init(&rest, ANSWER_MAX_BYTES);
    if (p->state != PROGRAM_STARTING)
        put_start(&first, p->pid);
    if (p->state == PROGRAM_ENDED) {
        put_ends(&rest, &p->plan, p->late, c->fault.kind);
        say(r, &first, &rest);
        return;
    }
    if (!watch(p, r))
        stream_refuse(r, "resource_exhausted", "no memory");
    else if (p->watchers != NULL && p->watchers->prev->call == c)
        answer_write(r, buf_view(&first));
    buf_deinit(&first);
}

void program_list(struct box *b, struct http_request *r, struct str body)
{
    (void)body;
    struct program *p;
    struct buf out;
    buf_init(&out, ANSWER_MAX_BYTES);
    struct json_writer w = json_writer(&out);
    jw_object(&w);
    jw_key(&w, "processes");
    jw_array(&w);
    DL_FOREACH(b->running, p)
    {
        if (p->state == PROGRAM_ENDED)
            continue;
        jw_object(&w);
        jw_kint(&w, "pid", p->pid);
        jw_key(&w, "config");
        jw_object(&w);
        jw_kcstr(&w, "cmd", "simulated");
        jw_object_end(&w);
        jw_object_end(&w);
    }
    jw_array_end(&w);
    jw_object_end(&w);
    api_json(r, 200, &out);
}

void program_signal(struct box *b, struct http_request *r, struct str body)
{
    struct program *p = named(b, body);
    if (p == NULL || p->state == PROGRAM_ENDED) {
        api_rpc_error(r, "not_found", "no process of that pid");
        return;
    }
    bool term = memmem(body.p, body.n, "SIGNAL_SIGTERM", 14) != NULL;
    str_copy(term ? STR("terminated") : STR("killed"), p->plan.signal, sizeof p->plan.signal);
    p->late = false;
    finish(p);
    answer(r, 200, "application/json", STR("{}"));
}

/* Its programs read nothing while they run. */
void program_input(struct box *b, struct http_request *r, struct str body)
{
    struct program *p = named(b, body);
    if (p == NULL || p->state == PROGRAM_ENDED)
        api_rpc_error(r, "not_found", "no process of that pid");
    else
        answer(r, 200, "application/json", STR("{}"));
}
