/* Protobuf's JSON leaves out what is zero and writes 64-bit numbers as strings: an exit with code 0 has no
 * `exitCode`, and a death by signal has no `exited`. So `exited` decides, never the code.
 *
 * Output events are nearly all that comes and have one shape; they are read by a matcher for exactly that
 * shape (blanks allowed, as Go's encoder sprinkles them). Whatever it does not match takes the way through
 * the JSON parser, so the matcher can only be too narrow, never wrong. */
#include "sandbox/e2b_event.h"

#include <stdio.h>

#include "json/json.h"

/* ---- signals ---- */

bool e2b_signal_name(struct str status, char *out, size_t out_bytes)
{
    /* the names of Go's syscall.Signal.String on Linux */
    static const struct {
        const char *text, *name;
    } names[] = {
        {"hangup", "HUP"},
        {"interrupt", "INT"},
        {"quit", "QUIT"},
        {"illegal instruction", "ILL"},
        {"trace/breakpoint trap", "TRAP"},
        {"aborted", "ABRT"},
        {"bus error", "BUS"},
        {"floating point exception", "FPE"},
        {"killed", "KILL"},
        {"user defined signal 1", "USR1"},
        {"segmentation fault", "SEGV"},
        {"user defined signal 2", "USR2"},
        {"broken pipe", "PIPE"},
        {"alarm clock", "ALRM"},
        {"terminated", "TERM"},
        {"stack fault", "STKFLT"},
        {"child exited", "CHLD"},
        {"continued", "CONT"},
        {"stopped (signal)", "STOP"},
        {"stopped", "TSTP"},
        {"stopped (tty input)", "TTIN"},
        {"stopped (tty output)", "TTOU"},
        {"urgent I/O condition", "URG"},
        {"CPU time limit exceeded", "XCPU"},
        {"file size limit exceeded", "XFSZ"},
        {"virtual timer expired", "VTALRM"},
        {"profiling timer expired", "PROF"},
        {"window changed", "WINCH"},
        {"I/O possible", "IO"},
        {"power failure", "PWR"},
        {"bad system call", "SYS"},
    };
    static const struct str core = {" (core dumped)", 14};
    struct str s = status;
    if (s.n > core.n && str_eq(str_make(s.p + s.n - core.n, core.n), core))
        s.n -= core.n;
    if (!str_starts(s, STR("signal: ")) && !str_starts(s, STR("signal ")))
        return false;
    size_t skip = s.p[6] == ':' ? 8 : 7;
    s = str_make(s.p + skip, s.n - skip);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (str_eq_c(s, names[i].text))
            return str_copy(str_of(names[i].name), out, out_bytes);
    if (str_starts(s, STR("signal ")))
        s = str_make(s.p + 7, s.n - 7);
    if (str_starts(s, STR("SIG")))
        s = str_make(s.p + 3, s.n - 3);
    return s.n > 0 && str_copy(s, out, out_bytes);
}

/* ---- the matcher for output ---- */

static bool eat(struct str *s, struct str token)
{
    while (s->n > 0 && s->p[0] == ' ')
        *s = str_make(s->p + 1, s->n - 1);
    if (!str_starts(*s, token))
        return false;
    *s = str_make(s->p + token.n, s->n - token.n);
    return true;
}

static bool match_output(struct str s, enum e2b_event_kind *kind_out, struct str *base64_out)
{
    if (!eat(&s, STR("{")) || !eat(&s, STR("\"event\"")) || !eat(&s, STR(":")) || !eat(&s, STR("{")) ||
        !eat(&s, STR("\"data\"")) || !eat(&s, STR(":")) || !eat(&s, STR("{")))
        return false;
    *kind_out = eat(&s, STR("\"stdout\"")) ? E2B_EVENT_STDOUT : E2B_EVENT_STDERR;
    if (*kind_out == E2B_EVENT_STDERR && !eat(&s, STR("\"stderr\"")))
        return false;
    if (!eat(&s, STR(":")) || !eat(&s, STR("\"")))
        return false;
    const char *end = s.n > 0 ? memchr(s.p, '"', s.n) : NULL;
    if (end == NULL)
        return false;
    *base64_out = str_make(s.p, (size_t)(end - s.p));
    s = str_make(end, s.n - base64_out->n);
    return eat(&s, STR("\"")) && eat(&s, STR("}")) && eat(&s, STR("}")) && eat(&s, STR("}")) && s.n == 0;
}

/* ---- the way through the parser ---- */

/* A number, or a number as a string; absent is the fallback. */
static int64_t number_or(const struct json *doc, const struct json_value *v, int64_t fallback)
{
    int64_t n;
    struct str text;
    if (json_int(doc, v, &n))
        return n;
    return json_str(v, &text) && str_to_i64(text, &n) ? n : fallback;
}

/* `sandpiper` is our own host's addition: what a run cost. */
static void read_usage(const struct json *doc, const struct json_value *ours, struct sandbox_exit *exit)
{
    exit->cpu_ms = number_or(doc, json_get(ours, "cpuMs"), -1);
    exit->peak_memory_bytes = number_or(doc, json_get(ours, "peakMemoryBytes"), -1);
    bool oom = false;
    exit->oom_killed = json_bool(json_get(ours, "oomKilled"), &oom) && oom;
}

static int read_end(const struct json *doc, const struct json_value *end, struct sandbox_exit *exit,
                    struct err *err)
{
    bool exited = false;
    struct str status = {0};
    *exit = (struct sandbox_exit){.kind = SANDBOX_EXITED};
    read_usage(doc, json_get(end, "sandpiper"), exit);
    json_str(json_get(end, "status"), &status);
    json_bool(json_get(end, "exited"), &exited);
    if (exited) {
        exit->code = (int)number_or(doc, json_get(end, "exitCode"), 0);
        return 0;
    }
    exit->kind = SANDBOX_SIGNALED;
    if (e2b_signal_name(status, exit->signal, sizeof exit->signal))
        return 0;
    return err_set(err, ERR_PROTOCOL, "an end event with neither an exit nor a signal");
}

static int read_output(const struct json_value *data, struct buf *scratch, struct e2b_event *out,
                       struct err *err)
{
    struct str text;
    const struct json_value *v = json_get(data, "stdout");
    out->kind = E2B_EVENT_STDOUT;
    if (!json_str(v, &text)) {
        out->kind = E2B_EVENT_STDERR;
        v = json_get(data, "stderr");
    }
    if (!json_str(v, &text)) {
        out->kind = E2B_EVENT_OTHER; /* an empty piece, or a terminal's, which we never ask for */
        return 0;
    }
    if (!crypto_unbase64(text, scratch))
        return err_set(err, ERR_PROTOCOL, "output that is not base64");
    out->bytes = buf_view(scratch);
    return 0;
}

static int read_event(const struct json *doc, struct buf *scratch, struct e2b_event *out, struct err *err)
{
    const struct json_value *event = json_get(json_root(doc), "event"), *v;
    out->kind = E2B_EVENT_OTHER;
    if ((v = json_get(event, "data")) != NULL && json_type_of(v) == JSON_OBJECT)
        return read_output(v, scratch, out, err);
    if ((v = json_get(event, "start")) != NULL && json_type_of(v) == JSON_OBJECT) {
        out->kind = E2B_EVENT_START;
        out->pid = number_or(doc, json_get(v, "pid"), 0);
        return out->pid > 0 ? 0 : err_set(err, ERR_PROTOCOL, "a start event without a pid");
    }
    if ((v = json_get(event, "end")) != NULL && json_type_of(v) == JSON_OBJECT) {
        out->kind = E2B_EVENT_END;
        return read_end(doc, v, &out->exit, err);
    }
    return 0;
}

int e2b_event_decode(struct str json, struct buf *scratch, struct e2b_event *out, struct err *err)
{
    struct str base64;
    *out = (struct e2b_event){.kind = E2B_EVENT_OTHER};
    buf_clear(scratch);
    if (match_output(json, &out->kind, &base64) && crypto_unbase64(base64, scratch)) {
        out->bytes = buf_view(scratch);
        return 0;
    }
    buf_clear(scratch);
    struct json *doc = json_parse(json, err);
    if (doc == NULL) {
        if (err != NULL)
            err->code = ERR_PROTOCOL;
        return err_wrap(err, "a process event");
    }
    int rc = read_event(doc, scratch, out, err);
    json_free(&doc);
    return rc;
}

int e2b_stream_end_decode(struct str json, struct e2b_stream_end *out, struct err *err)
{
    *out = (struct e2b_stream_end){.code = ""};
    struct json *doc = json_parse(json, err);
    if (doc == NULL) {
        if (err != NULL)
            err->code = ERR_PROTOCOL;
        return err_wrap(err, "the end of a stream");
    }
    const struct json_value *error = json_get(json_root(doc), "error");
    if (error != NULL && json_type_of(error) == JSON_OBJECT) {
        struct str text = STR("unknown");
        json_str(json_get(error, "code"), &text);
        if (!str_copy(text, out->code, sizeof out->code) || text.n == 0)
            str_copy(STR("unknown"), out->code, sizeof out->code);
        text = STR("");
        json_str(json_get(error, "message"), &text);
        snprintf(out->message, sizeof out->message, "%.*s", STR_ARG(text));
    }
    json_free(&doc);
    return 0;
}
