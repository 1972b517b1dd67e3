/* The attempts of a record. */
#include "store/record_attempts.h"

#include "json/json.h"

/* Counts: -1 is "not known". */
enum count { QUEUE_MS, START_MS, RUN_MS, SANDBOX_MS, CPU_MS, PEAK_BYTES, COUNTS };
static const char *const count_names[COUNTS] = {"queue_ms",   "sandbox_start_ms", "run_ms",
                                                "sandbox_ms", "cpu_ms",           "peak_memory_bytes"};

struct attempt {
    int64_t number;
    struct str executor, sandbox; /* empty: none */
    wall_t started_at, finished_at;
    struct str outcome; /* empty: not known yet */
    int64_t counts[COUNTS];
};

static void write_text(struct json_writer *w, const char *key, struct str s)
{
    if (s.n > 0)
        jw_kstr(w, key, s);
    else
        jw_knull(w, key);
}

static void write_attempt(const struct attempt *a, struct json_writer *w)
{
    jw_object(w);
    jw_kint(w, "attempt", a->number);
    write_text(w, "executor", a->executor);
    write_text(w, "sandbox", a->sandbox);
    jw_ktime(w, "started_at", a->started_at);
    jw_ktime(w, "finished_at", a->finished_at);
    write_text(w, "outcome", a->outcome);
    jw_key(w, "usage");
    if (a->sandbox.n == 0) {
        jw_null(w);
    } else {
        jw_object(w);
        for (int i = 0; i < COUNTS; i++)
            if (a->counts[i] >= 0)
                jw_kint(w, count_names[i], a->counts[i]);
            else
                jw_knull(w, count_names[i]);
        jw_object_end(w);
    }
    jw_object_end(w);
}

/* The only one there was, when anybody had it. */
static void write_only(const struct record *r, struct json_writer *w)
{
    char executor[UUID_TEXT_BYTES];
    uuid_format(r->executor, executor);
    const struct attempt a = {.number = r->result_attempt,
                              .executor = str_of(executor),
                              .sandbox = r->sandbox,
                              .started_at = r->started_at,
                              .finished_at = r->finished_at,
                              .outcome = str_of(inv_state_name(r->state)),
                              .counts = {r->queue_ms, r->sandbox_start_ms, r->run_ms, r->sandbox_ms,
                                         r->cpu_ms, r->peak_memory_bytes}};
    if (inv_state_ended(r->state) && !uuid_is_zero(r->executor))
        write_attempt(&a, w);
}

/* A run that took too long is timed_out, followed by another attempt or not. */
static struct str outcome_of(const struct record *r, int64_t status, struct str reason)
{
    if (status > 0)
        return str_of(inv_state_name((enum inv_state)status));
    if (str_eq_c(reason, err_code_name(ERR_JOB_RUN_TIMEOUT)))
        return str_of(inv_state_name(INV_TIMED_OUT));
    if (reason.n == 0 && inv_state_ended(r->state))
        return STR("superseded");
    return reason;
}

static int64_t next_int(const struct json *doc, const struct json_value **v, int64_t otherwise)
{
    int64_t n = otherwise;
    *v = json_next(*v);
    return json_int(doc, *v, &n) ? n : otherwise;
}

static struct str next_text(const struct json_value **v)
{
    struct str s = str_of(NULL);
    *v = json_next(*v);
    json_str(*v, &s);
    return s;
}

/* One of the gathered: the members of RECORD_ATTEMPTS_SQL in their order. */
static void write_gathered(const struct record *r, const struct json *doc, const struct json_value *row,
                           struct json_writer *w)
{
    struct attempt a = {0};
    const struct json_value *v = json_first(row);
    json_int(doc, v, &a.number);
    a.executor = next_text(&v);
    a.sandbox = next_text(&v);
    a.started_at.us = next_int(doc, &v, 0);
    a.finished_at.us = next_int(doc, &v, 0);
    int64_t status = next_int(doc, &v, 0);
    a.outcome = outcome_of(r, status, next_text(&v));
    for (int i = 0; i < COUNTS; i++)
        a.counts[i] = next_int(doc, &v, -1);
    write_attempt(&a, w);
}

void record_attempts_write(const struct record *r, struct json_writer *w)
{
    struct json *doc = r->attempts.n > 0 ? json_parse(r->attempts, NULL) : NULL;
    jw_array(w);
    if (doc == NULL)
        write_only(r, w);
    for (const struct json_value *v = json_first(json_root(doc)); doc != NULL && v != NULL; v = json_next(v))
        write_gathered(r, doc, v, w);
    jw_array_end(w);
    json_free(&doc);
}
