/* A client that follows a process: the server stream of Start and Connect.
 *
 * `start`, data, keepalives, `end`, then the end-stream frame. A stream is a watcher of its process; a client
 * that leaves takes only the stream along. The `end` event carries an extension that E2B's SDKs ignore:
 * "sandpiper":
 * {"cpuMs": "…", "peakMemoryBytes": "…", "oomKilled": true}, of the whole sandbox. */
#include "stream.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "connect.h"

enum { MAX_FRAME = 256 * 1024, DEFAULT_KEEPALIVE_SEC = 90, MAX_KEEPALIVE_SEC = 3600 };

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

void stream_free(struct stream *t)
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
    if (t->open)
        return;
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
    if (http_stream_write(t->req, buf_view(&t->frame)))
        return true;
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
        [SIGHUP] = "hangup",
        [SIGINT] = "interrupt",
        [SIGQUIT] = "quit",
        [SIGILL] = "illegal instruction",
        [SIGTRAP] = "trace/breakpoint trap",
        [SIGABRT] = "aborted",
        [SIGBUS] = "bus error",
        [SIGFPE] = "floating point exception",
        [SIGKILL] = "killed",
        [SIGUSR1] = "user defined signal 1",
        [SIGSEGV] = "segmentation fault",
        [SIGUSR2] = "user defined signal 2",
        [SIGPIPE] = "broken pipe",
        [SIGALRM] = "alarm clock",
        [SIGTERM] = "terminated",
        [SIGSTKFLT] = "stack fault",
        [SIGXCPU] = "CPU time limit exceeded",
        [SIGXFSZ] = "file size limit exceeded",
        [SIGVTALRM] = "virtual timer expired",
        [SIGPROF] = "profiling timer expired",
        [SIGIO] = "I/O possible",
        [SIGPWR] = "power failure",
        [SIGSYS] = "bad system call",
    };
    bool known = number > 0 && (size_t)number < sizeof names / sizeof names[0] && names[number] != NULL;
    if (known)
        snprintf(room, room_bytes, "signal: %s", names[number]);
    else
        snprintf(room, room_bytes, "signal: signal %d", number);
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
    if (e->oom_killed)
        jw_kbool(w, "oomKilled", true);
    jw_object_end(w);
}

static void send_exit(struct stream *t, const struct process_exit *e)
{
    char status[64];
    size_t head;
    struct json_writer w = event_begin(t, &head, "end");
    if (e->exited)
        snprintf(status, sizeof status, "exit status %d", e->code);
    else
        signal_text(e->code, status, sizeof status);
    int code = e->exited ? e->code : -1;
    if (code != 0)
        jw_kint(&w, "exitCode", code);
    if (e->exited)
        jw_kbool(&w, "exited", true);
    jw_kcstr(&w, "status", status);
    if (code != 0)
        jw_kcstr(&w, "error", status);
    put_extension(&w, e);
    event_send(t, &w, head);
}

static void on_end(void *arg, const struct process_exit *exit, const char *code, const char *text)
{
    struct stream *t = arg;
    if (exit != NULL)
        send_exit(t, exit);
    stream_finish(t, code, text);
}

static void on_deadline(void *arg)
{
    stream_finish(arg, "deadline_exceeded", "the stream's time limit is over");
}

struct stream *stream_new(struct api *a, struct http_request *r)
{
    struct stream *t = calloc(1, sizeof *t);
    struct str text;
    uint64_t sec = DEFAULT_KEEPALIVE_SEC;
    if (t == NULL)
        return NULL;
    t->pending.on_gone = stream_gone;
    t->req = r;
    t->watch =
        (struct process_watch){.on_output = on_output, .on_start = on_start, .on_end = on_end, .arg = t};
    if (http_header(r, "Keepalive-Ping-Interval", &text) &&
        (!str_to_u64(text, &sec) || sec == 0 || sec > MAX_KEEPALIVE_SEC))
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

void stream_error(struct http_request *r, const char *code, const char *text)
{
    struct buf frame;
    buf_init(&frame, MAX_FRAME);
    connect_end_stream(&frame, code, text);
    http_reply(r, 200, "application/connect+json", buf_view(&frame));
    buf_deinit(&frame);
}

struct process_watch *stream_watch(struct stream *t)
{
    return &t->watch;
}

void stream_begin(struct stream *t, int64_t pid, const struct process_exit *exit)
{
    on_start(t, pid);
    if (exit != NULL)
        on_end(t, exit, NULL, NULL);
}

void stream_limit(struct stream *t, int64_t ms)
{
    if (ms > 0)
        loop_timer_start(t->deadline, ms);
}
