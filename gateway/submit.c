/* POST /v1/invocations.
 *
 *   body -> parsed and checked -> agent resolved -> submission -> committed -> handed to Redis, and
 *   202 at once, or 200 when the caller's wait sufficed
 *
 * The parsed document stays alive until the commit: prompt and metadata are views into it. */
#include <stdio.h>
#include <stdlib.h>

#include "base/failpoint.h"
#include "events.h"
#include "handoff.h"
#include "idempotency_key.h"
#include "invocations.h"
#include "json/json.h"
#include "json/writer.h"
#include "model/environment.h"
#include "show.h"
#include "submit.h"
#include "submit_files.h"

static void submit_free(void *data)
{
    struct submit *s = data;
    if (s->hook != NULL)
        crypto_wipe(s->hook->secret, sizeof s->hook->secret);
    free(s->hook);
    if (s->env_given) {
        json_free_secret(&s->doc);
        if (s->body != NULL)
            http_body_secret(s->body);
    }
    json_free(&s->doc);
    buf_deinit(&s->env);
    free(s->key);
    http_body_free(&s->body);
    arena_free(&s->arena);
    file_intake_free(&s->files);
    submit_form_free(&s->form);
    free(s);
}

/* ---- headers ---- */

static int read_key(struct submit *s, struct err *err)
{
    int rc = idempotency_key_read(s->c->req, &s->key, err);
    if (rc == 0)
        s->sub.idempotency_key = str_of(s->key);
    return rc;
}

void submit_fingerprint(struct submit *s, const char *method_path, struct str body)
{
    struct crypto_sha256_state h;
    crypto_sha256_init(&h);
    crypto_sha256_update(&h, str_of(method_path));
    crypto_sha256_update(&h, STR("\n"));
    crypto_sha256_update(&h, body);
    crypto_sha256_final(&h, s->sub.fingerprint);
}

struct submit *submit_new(struct call *c, size_t bytes)
{
    struct submit *s = calloc(1, bytes);
    struct err err = ERR_INIT;
    struct str trace;
    if (s == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return NULL;
    }
    s->c = c;
    buf_init(&s->env, SUBMISSION_ENV_MAX_BYTES + SUBMISSION_ENV_MAX * 8 + SEAL_PLACE_OVERHEAD_BYTES);
    s->began = loop_now(c->g->loop);
    c->data = s;
    c->free_data = submit_free;
    if (http_header(c->req, "traceparent", &trace) && http_header_count(c->req, "traceparent") == 1)
        traceparent_parse(trace, &s->sub.trace);
    s->wait_ms = show_wait(c, &err);
    if (s->wait_ms >= 0 && read_key(s, &err) == 0)
        return s;
    call_fail(c, &err);
    return NULL;
}

/* ---- the steps ---- */

static struct entry entry_of(const struct submission *sub)
{
    wall_t created = uuid_time(sub->row.key);
    return (struct entry){.kind = ENTRY_INVOCATION,
                          .id = sub->row.key,
                          .tenant = sub->tenant,
                          .agent = sub->agent,
                          .version = sub->version,
                          .attempt = 1,
                          .max_attempts = sub->max_attempts,
                          .retry_on = sub->retry_on,
                          .priority = sub->priority,
                          .timeout_ms = sub->timeout_ms,
                          .queue_deadline = {.us = created.us + sub->queue_timeout_ms * 1000},
                          .ready = created,
                          .trace = sub->trace,
                          .env = sub->env.n > 0,
                          .files = sub->files,
                          .prompt_bytes = (uint32_t)submission_prompt_bytes(sub),
                          .prompt_inline = submission_prompt_bytes(sub) <= INV_ENTRY_PROMPT_BYTES,
                          .prompt = sub->prompt};
}

static void accepted(struct submit *s)
{
    struct call *c = s->c;
    struct uuid id = s->sub.row.key;
    /* A secret that was made up is shown this once; a replayed submission has another, which was shown then.
     */
    if (s->hook != NULL && s->hook->secret[0] != '\0' && !s->sub.replayed)
        http_set_header(c->req, WEBHOOK_SECRET_HEADER, str_of(s->hook->secret));
    if (s->stream && events_after_commit(c, id, s->sub.replayed))
        return;
    if (s->wait_ms > 0) {
        /* A replayed job may have ended long ago: look before waiting. */
        if (s->sub.replayed)
            show_invocation(c, id, s->wait_ms, 202);
        else
            show_after_commit(c, id, s->wait_ms);
        return;
    }
    char text[ID_TEXT_BYTES], location[ID_TEXT_BYTES + 24];
    struct buf body;
    id_format("inv", id, text);
    snprintf(location, sizeof location, "/v1/invocations/%s", text);
    http_set_header(c->req, "Location", str_of(location));
    buf_init(&body, 1024);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    jw_kcstr(&w, "id", text);
    jw_kcstr(&w, "status", inv_state_name(s->sub.not_before.us != 0 ? INV_SCHEDULED : INV_QUEUED));
    jw_kstr(&w, "agent", s->agent.slug);
    jw_kint(&w, "version", s->sub.version);
    jw_ktime(&w, "created_at", uuid_time(id));
    if (!uuid_is_zero(s->sub.retry_of))
        jw_kid(&w, "retry_of", "inv", s->sub.retry_of);
    jw_object_end(&w);
    call_reply_json(c, 202, &body);
}

/* The outcome is not known: the caller gets id and Location to look for itself. */
static void unknown(struct submit *s)
{
    char text[ID_TEXT_BYTES], location[ID_TEXT_BYTES + 24];
    id_format("inv", s->sub.row.key, text);
    snprintf(location, sizeof location, "/v1/invocations/%s", text);
    call_fail_unknown(s->c, location);
}

/* One that is to begin later has its place in PostgreSQL, where dispatchers look for it. */
static void hand_off(struct gateway *g, struct submit *s)
{
    struct entry e = entry_of(&s->sub);
    if (s->sub.not_before.us != 0)
        handoff_drop(g->handoff, s->ticket);
    else
        handoff_commit(g->handoff, s->ticket, &e);
}

/* What becomes of the files, if any came along; those of a submission that came to nothing go with it. */
static void settle_files(struct submit *s, const struct err *err)
{
    if (s->files == NULL)
        return;
    if (err == NULL && !s->sub.replayed)
        file_intake_keep(s->files);
    else if (err != NULL && err->code == ERR_OUTCOME_UNKNOWN)
        file_intake_leave(s->files);
}

void invocation_committed(void *arg, struct submission *sub, const struct err *err)
{
    struct gateway *g = arg;
    struct submit *s = (struct submit *)sub; /* sub is the first member */
    struct call *c = s->c;
    FAILPOINT(gateway_committed);
    settle_files(s, err);
    if (err == NULL && !sub->replayed) {
        hand_off(g, s);
        metric_add(&g->metrics.row[M_SUBMITTED], 1);
        metric_observe(&g->metrics.row[M_COMMIT_SECONDS], (double)(loop_now(g->loop).us - s->began.us) / 1e6);
    } else if (err != NULL && err->code == ERR_OUTCOME_UNKNOWN) {
        handoff_unsure(g->handoff, s->ticket); /* an entry of ours would be run unchecked */
    } else {
        handoff_drop(g->handoff, s->ticket);
        if (err == NULL)
            metric_add(&g->metrics.row[M_REPLAYED], 1);
    }
    if (!call_leave(c))
        return;
    if (err == NULL)
        accepted(s);
    else if (err->code == ERR_OUTCOME_UNKNOWN)
        unknown(s);
    else
        call_fail(c, err);
}

void submit_target(struct call *c, const struct agent_target *t, const struct err *err)
{
    struct submit *s = c->data;
    struct err bad = ERR_INIT;
    if (err == NULL && !t->found && s->agent.version > 0)
        err_set(&bad, ERR_AGENT_NOT_FOUND, "there is no version %d of an agent \"%.*s\"", s->agent.version,
                STR_ARG(s->agent.slug));
    else if (err == NULL && !t->found)
        err_set(&bad, ERR_AGENT_NOT_FOUND, "there is no agent \"%.*s\"", STR_ARG(s->agent.slug));
    else if (err == NULL && t->retired)
        err_set(&bad, ERR_VERSION_RETIRED, "version %d of agent \"%.*s\" is retired", t->version,
                STR_ARG(s->agent.slug));
    else if (err == NULL && !t->ready)
        err_set(&bad, ERR_AGENT_NOT_READY, "agent \"%.*s\" has no version that is ready",
                STR_ARG(s->agent.slug));
    if (err == NULL && bad.code == ERR_NONE && !handoff_ready(c->g->handoff, &bad))
        err = &bad;
    if (err != NULL || bad.code != ERR_NONE) {
        call_fail_query(c, err != NULL ? err : &bad); /* nothing was sent to be committed yet */
        return;
    }
    s->sub.tenant = c->tenant;
    s->sub.api_key = c->api_key;
    s->sub.agent = t->agent;
    s->sub.version = t->version;
    if (s->files != NULL)
        s->sub.files = file_intake_id(s->files);
    if (s->sub.timeout_ms == 0)
        s->sub.timeout_ms = t->timeout_ms > 0 ? t->timeout_ms : INV_TIMEOUT_DEFAULT_MS;
    if (s->sub.max_attempts == 0) {
        s->sub.max_attempts = t->max_attempts > 0 ? t->max_attempts : 1;
        s->sub.retry_on = t->retry_on;
    }
    s->ticket = handoff_begin(c->g->handoff, c->tenant);
    if (s->ticket == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    call_enter(c);
    if (submit_put(c->g->submitter, &s->sub, c->g->settings->commit_deadline_ms, &bad) == 0) {
        handoff_id(s->ticket, s->sub.row.key);
        return;
    }
    handoff_drop(c->g->handoff, s->ticket);
    if (call_leave(c))
        call_fail(c, &bad);
}

/* The hook of its own, when the submission has one. */
static int read_hook(struct submit *s, struct err *err)
{
    const struct json_value *v = json_get(json_root(s->doc), "webhook");
    if (v == NULL)
        return 0;
    s->hook = calloc(1, sizeof *s->hook);
    if (s->hook == NULL)
        return err_set(err, ERR_OVERLOADED, "no memory");
    s->sub.hook = &s->hook->hook;
    return webhook_read_hook(&s->c->g->webhook_rules, s->c->tenant, v, s->hook, err);
}

/* Its environment is sealed at once; in clear it stays in the body until the commit, for the sake of the
 * rest. */
static int read_env(struct submit *s, struct err *err)
{
    const struct json_value *v = json_get(json_root(s->doc), "env");
    const struct env_rules *rules = &s->c->g->env_rules;
    if (v == NULL)
        return 0;
    if (env_read_object(rules, s->c->tenant, s->agent.slug, v, &s->env, err) != 0)
        return -1;
    s->sub.env = buf_view(&s->env);
    s->sub.env_key = str_of(rules->key.id);
    return 0;
}

int submit_read(struct submit *s, struct err *err)
{
    static const char *const own[] = {"webhook", "not_before", "env", "files", NULL};
    s->env_given = json_get(json_root(s->doc), "env") != NULL;
    if (submission_read(s->doc, own, &s->sub, &s->agent, err) != 0 || read_hook(s, err) != 0)
        return -1;
    return read_env(s, err);
}

static void on_body(void *arg, struct http_request *req, struct str body)
{
    struct submit *s = arg;
    struct call *c = s->c;
    struct err err = ERR_INIT;
    if (s->key != NULL)
        submit_fingerprint(s, "POST /v1/invocations", body);
    s->body = http_body_take(req); /* the request may go before the commit */
    if (s->body == NULL)
        err_set(&err, ERR_OVERLOADED, "no memory");
    else
        s->doc = json_parse(http_body_view(s->body), &err);
    if (s->doc == NULL || submit_read(s, &err) != 0)
        call_fail(c, &err);
    else if (json_get(json_root(s->doc), "files") != NULL)
        submit_inline_files(s);
    else
        target_resolve(c->g->targets, c, s->agent.slug, s->agent.version, submit_target);
}

void invocation_submit(struct call *c)
{
    struct str accept;
    struct err err = ERR_INIT;
    struct submit *s = submit_new(c, sizeof *s);
    if (s == NULL)
        return;
    s->stream = http_header(c->req, "Accept", &accept) && event_accepted(accept);
    if (s->stream && !events_room(c->g))
        call_fail_code(c, ERR_OVERLOADED, "this gateway has as many live streams as it may have");
    else if (submit_is_form(c))
        submit_form(s);
    else if (call_json_type(c, &err) != 0)
        call_fail(c, &err);
    else
        http_read_body(c->req, INV_BODY_MAX_BYTES, on_body, s);
}
