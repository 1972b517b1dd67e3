/* The invocation record as JSON. */
#include "store/record_json.h"

#include <stdio.h>
#include <string.h>

#include "json/writer.h"
#include "store/record_attempts.h"
#include "store/record_files.h"

enum inv_state record_waiting_state(const struct record *r, wall_t now)
{
    return r->not_before.us > now.us ? INV_SCHEDULED : INV_QUEUED;
}

/* Text stays text; bytes that are not UTF-8, or hold NUL, come as base64 under another key. */
static void write_bytes(struct json_writer *w, const char *key, const char *key_base64, struct str s)
{
    bool text = str_is_utf8(s) && (s.n == 0 || memchr(s.p, '\0', s.n) == NULL);
    if (text) {
        jw_kstr(w, key, s);
        return;
    }
    jw_knull(w, key);
    jw_key(w, key_base64);
    jw_base64(w, s);
}

static void write_url(struct json_writer *w, const char *key, struct uuid id, const char *what)
{
    char text[ID_TEXT_BYTES], url[ID_TEXT_BYTES + 40];
    id_format("inv", id, text);
    snprintf(url, sizeof url, "/v1/invocations/%s/%s", text, what);
    jw_kcstr(w, key, url);
}

static void write_prompt(struct json_writer *w, const struct record *r)
{
    if (r->prompt_inline)
        write_bytes(w, "prompt", "prompt_base64", r->prompt);
    else
        jw_knull(w, "prompt");
}

/* What of the bodies is shown. */
enum form { FULL, RESULT, BRIEF, EVENT };

static void write_output(struct json_writer *w, const struct record *r, enum form form)
{
    bool ended = inv_state_ended(r->state);
    bool shown = ended && r->output_inline && (form != EVENT || r->output.n <= RECORD_EVENT_OUTPUT_BYTES);
    if (form != BRIEF && shown)
        write_bytes(w, "output", "output_base64", r->output);
    else if (form != BRIEF)
        jw_knull(w, "output");
    jw_key(w, "output_size");
    if (ended)
        jw_int(w, r->output_bytes);
    else
        jw_null(w);
    write_url(w, "output_url", r->id, "output");
    jw_kbool(w, "output_truncated", ended && r->output_truncated);
    jw_kbool(w, "output_redacted", ended && r->output_redacted);
}

static void write_error(struct json_writer *w, const struct record *r)
{
    jw_key(w, "error");
    if (r->error_code.n == 0) {
        jw_null(w);
        return;
    }
    jw_object(w);
    jw_kstr(w, "code", r->error_code);
    jw_kstr(w, "message",
            r->error_message.n > 0
                ? r->error_message
                : str_of(err_public_text(err_code_from_name(r->error_code.p, r->error_code.n))));
    jw_object_end(w);
}

static void write_count(struct json_writer *w, const char *key, bool known, int64_t v)
{
    jw_key(w, key);
    if (known && v >= 0)
        jw_int(w, v);
    else
        jw_null(w);
}

static void write_usage(struct json_writer *w, const struct record *r)
{
    jw_key(w, "usage");
    jw_object(w);
    write_count(w, "queue_ms", r->has_usage, r->queue_ms);
    write_count(w, "sandbox_start_ms", r->has_usage, r->sandbox_start_ms);
    write_count(w, "run_ms", r->has_usage, r->run_ms);
    write_count(w, "sandbox_ms", r->has_usage, r->sandbox_ms);
    write_count(w, "cpu_ms", r->has_usage, r->cpu_ms);
    write_count(w, "peak_memory_bytes", r->has_usage, r->peak_memory_bytes);
    write_count(w, "input_tokens", r->has_usage, r->input_tokens);
    write_count(w, "output_tokens", r->has_usage, r->output_tokens);
    jw_key(w, "cost_usd");
    if (r->has_usage && r->cost_usd >= 0)
        jw_double(w, r->cost_usd);
    else
        jw_null(w);
    jw_object_end(w);
}

static void write_status(struct json_writer *w, const struct record *r, const struct live_state *live)
{
    bool ended = live == NULL;
    jw_kcstr(w, "status", inv_state_name(ended ? r->state : live->state));
    jw_kbool(w, "status_stale", !ended && live->stale);
    jw_kint(w, "attempt", ended ? r->result_attempt : live->attempt > 0 ? live->attempt : r->attempt);
    jw_key(w, "attempts");
    record_attempts_write(r, w);
}

static void write_exit(struct json_writer *w, const struct record *r)
{
    jw_key(w, "exit_code");
    if (r->has_exit_code)
        jw_int(w, r->exit_code);
    else
        jw_null(w);
    if (r->signal.n > 0)
        jw_kstr(w, "signal", r->signal);
    else
        jw_knull(w, "signal");
}

static void write_batch(struct json_writer *w, const struct record *r)
{
    if (r->has_batch) {
        jw_kid(w, "batch_id", "bat", r->batch);
        jw_kstr(w, "custom_id", r->custom_id);
    } else {
        jw_knull(w, "batch_id");
        jw_knull(w, "custom_id");
    }
}

static void write_record(const struct record *r, const struct live_state *live, enum form form,
                         struct buf *out)
{
    struct json_writer w = json_writer(out);
    jw_object(&w);
    jw_kid(&w, "id", "inv", r->id);
    jw_kstr(&w, "agent", r->agent);
    jw_kint(&w, "version", r->version);
    write_status(&w, r, live);
    jw_kcstr(&w, "priority", inv_priority_name(r->priority));
    jw_key(&w, "timeout_s");
    jw_double(&w, r->timeout_ms / 1000.0);
    if (form == FULL)
        write_prompt(&w, r);
    jw_kint(&w, "prompt_size", r->prompt_bytes);
    write_output(&w, r, form);
    write_url(&w, "logs_url", r->id, "logs");
    if (form == FULL)
        record_files_write(r, &w);
    if (form != BRIEF)
        record_artifacts_write(r, &w);
    write_exit(&w, r);
    write_error(&w, r);
    jw_key(&w, "metadata");
    jw_raw(&w, r->metadata.n > 0 ? r->metadata : STR("{}"));
    write_batch(&w, r);
    if (uuid_is_zero(r->retry_of))
        jw_knull(&w, "retry_of");
    else
        jw_kid(&w, "retry_of", "inv", r->retry_of);
    jw_ktime(&w, "created_at", uuid_time(r->id));
    jw_ktime(&w, "not_before", r->not_before);
    jw_ktime(&w, "started_at", r->started_at);
    jw_ktime(&w, "finished_at", r->finished_at);
    if (r->traceparent.n > 0)
        jw_kstr(&w, "traceparent", r->traceparent);
    write_usage(&w, r);
    jw_object_end(&w);
}

void record_write(const struct record *r, const struct live_state *live, struct buf *out)
{
    write_record(r, live, FULL, out);
}

void record_write_brief(const struct record *r, const struct live_state *live, struct buf *out)
{
    write_record(r, live, BRIEF, out);
}

void record_write_event(const struct record *r, struct buf *out)
{
    write_record(r, NULL, EVENT, out);
}

void record_write_result(const struct record *r, struct buf *out)
{
    write_record(r, NULL, RESULT, out);
}
