/* POST /v1/batches.
 *
 *   body -> read, checked, spooled as it comes (batch_input.h) -> agents resolved, one after the other ->
 *   admitted (the tenant's open batches, the idempotency key) -> ids -> one COPY -> 202
 *
 * Nothing is kept until the COPY: a client that hangs up, or a gateway that dies, leaves nothing. The batch's
 * id is known before, so after a lost reply it is looked up until the deadline, and then told. */
#include <stdio.h>
#include <stdlib.h>

#include "batch_input.h"
#include "base/failpoint.h"
#include "batches.h"
#include "handoff.h"
#include "idempotency_key.h"
#include "json/writer.h"
#include "targets.h"

enum {
    UPLOADS_MAX = 16, /* each may hold some MiB, and a file */
    OPEN_MAX = 256,   /* batches of one tenant that have not ended */
    ADMIT_MS = 10000,
    LOAD_MS = 70000, /* waiting for other loads included */
    LOOK_MS = 10000, /* for a batch whose commit's reply was lost */
    LOOK_AGAIN_MS = 200,
    PROBLEM_BYTES = 64 * 1024,
};

struct upload {
    struct call *c;
    struct batch_options options;
    struct batch_input *input;
    struct loop_task go_on;
    struct crypto_sha256_state hash;
    uint8_t fingerprint[SHA256_BYTES];
    char *key;
    bool counted;
    struct agent_target *targets;
    size_t resolving;
    struct json *hook_doc; /* what the hook's views lead into */
    struct webhook_input hook;
    char trace[TRACEPARENT_TEXT_BYTES];
    struct batch_new batch;
    mono_t look_until;
    struct loop_timer *look;
};

static void resolve_next(struct upload *u);

static void upload_free(void *data)
{
    struct upload *u = data;
    loop_task_cancel(u->c->g->loop, &u->go_on);
    loop_timer_free(&u->look);
    batch_input_free(&u->input);
    crypto_wipe(u->hook.secret, sizeof u->hook.secret);
    json_free(&u->hook_doc);
    batch_options_deinit(&u->options);
    free(u->targets);
    free(u->key);
    if (u->counted)
        u->c->g->batch_uploads--;
    free(u);
}

/* ---- answers ---- */

/* A refusal that names the items. */
static void refuse(struct upload *u)
{
    struct call *c = u->c;
    size_t n;
    uint64_t all;
    char detail[160];
    const struct batch_fault *faults = batch_input_faults(u->input, &n, &all);
    struct buf body;
    snprintf(detail, sizeof detail, "%s%llu of the items cannot be accepted; nothing of the batch was",
             all >= BATCH_ERRORS_MAX ? "at least " : "", (unsigned long long)all);
    buf_init(&body, PROBLEM_BYTES);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    jw_kcstr(&w, "type", "/problems/invalid_batch");
    jw_kcstr(&w, "title", err_public_text(ERR_BAD_BATCH));
    jw_kint(&w, "status", err_http_status(ERR_BAD_BATCH));
    jw_kcstr(&w, "code", err_code_name(ERR_BAD_BATCH));
    jw_kcstr(&w, "detail", detail);
    jw_key(&w, "errors");
    jw_array(&w);
    for (size_t i = 0; i < n; i++) {
        jw_object(&w);
        jw_kint(&w, "line", (int64_t)faults[i].line);
        jw_kint(&w, "item", (int64_t)faults[i].item);
        jw_kcstr(&w, "code", err_code_name(faults[i].code));
        jw_kstr(&w, "detail", str_of(faults[i].detail));
        jw_object_end(&w);
    }
    jw_array_end(&w);
    jw_object_end(&w);
    buf_byte(&body, '\n');
    call_reply_bytes(c, err_http_status(ERR_BAD_BATCH), "application/problem+json", buf_view(&body));
    buf_deinit(&body);
}

/* The outcome is not known: the caller gets the place to look at. */
static void answer_unknown(struct upload *u)
{
    char path[BATCH_PATH_BYTES];
    batch_path(u->batch.id, path);
    call_fail_unknown(u->c, path);
}

/* A secret that was made up is shown this once. */
static void answer_accepted(struct upload *u)
{
    const char *made = u->hook.secret[0] != '\0' ? u->hook.secret : batch_input_hooks(u->input)->made;
    if (u->c->req != NULL && made[0] != '\0')
        http_set_header(u->c->req, WEBHOOK_SECRET_HEADER, str_of(made));
    batch_answer(u->c, u->batch.id, 202, 202);
}

/* ---- the commit ---- */

static void look_again(void *arg);

static void on_looked(void *arg, const struct batch *batches, size_t n, const struct err *err)
{
    struct upload *u = arg;
    struct call *c = u->c;
    (void)batches;
    if (err == NULL && n == 1) {
        if (call_leave(c))
            answer_accepted(u);
        return;
    }
    if (mono_before(loop_now(c->g->loop), u->look_until) && !c->ended) {
        loop_timer_start(u->look, LOOK_AGAIN_MS);
        return;
    }
    if (call_leave(c))
        answer_unknown(u);
}

static void look_again(void *arg)
{
    struct upload *u = arg;
    if (batch_get(u->c->g->read, u->batch.id, u->c->tenant, LOOK_AGAIN_MS * 10, on_looked, u, NULL) != 0)
        on_looked(u, NULL, 0, NULL);
}

static void on_loaded(void *arg, const struct err *err)
{
    struct upload *u = arg;
    struct call *c = u->c;
    if (err != NULL && err->code == ERR_OUTCOME_UNKNOWN) {
        u->look_until = mono_add_ms(loop_now(c->g->loop), LOOK_MS);
        look_again(u);
        return;
    }
    if (!call_leave(c))
        return;
    struct err busy;
    if (err != NULL && err->code == ERR_CONFLICT) {
        err_set(&busy, ERR_UNAVAILABLE, "another request with this Idempotency-Key was quicker; try again");
        call_fail(c, &busy);
    } else if (err != NULL) {
        call_fail(c, err);
    } else {
        FAILPOINT(gateway_batch_done);
        answer_accepted(u);
    }
}

static int source(void *arg, enum batch_stream stream, struct str *piece_out)
{
    struct upload *u = arg;
    return batch_spool_source(batch_input_spool(u->input), stream, piece_out);
}

/* Ids are made now: they are followed by their commit within the load's deadline. */
static void load(struct upload *u)
{
    struct call *c = u->c;
    struct err err = ERR_INIT;
    if (!handoff_ready(c->g->handoff, &err)) {
        call_fail(c, &err);
        return;
    }
    u->batch.first = uuid_series();
    u->batch.api_key = c->api_key;
    u->batch.tenant = c->tenant;
    u->batch.priority = u->options.priority;
    u->batch.max_concurrency = u->options.max_concurrency;
    u->batch.total = (int32_t)batch_input_items(u->input);
    u->batch.metadata = buf_view(&u->options.metadata);
    struct batch_spool *spool = batch_input_spool(u->input);
    u->batch.chunks = batch_spool_has(spool, BATCH_STREAM_CHUNKS);
    u->batch.hooks = batch_spool_has(spool, BATCH_STREAM_HOOKS);
    u->batch.delayed = batch_spool_delayed(spool);
    batch_spool_rewind(spool, &(struct batch_spool_fill){.first = u->batch.first,
                                                         .targets = u->targets,
                                                         .priority = u->options.priority,
                                                         .timeout_ms = u->options.timeout_ms,
                                                         .queue_timeout_ms = u->options.queue_timeout_ms});
    FAILPOINT(gateway_batch_begin);
    call_enter(c);
    if (batch_load(c->g->load, &u->batch, source, LOAD_MS, on_loaded, u, &err) != 0 && call_leave(c))
        call_fail(c, &err);
}

/* ---- its webhook: on record before the batch, without which it never does anything ---- */

static int read_hook(struct upload *u, struct err *err)
{
    const struct gateway *g = u->c->g;
    if (u->options.webhook.len == 0)
        return 0;
    u->hook_doc = json_parse(buf_view(&u->options.webhook), err);
    if (u->hook_doc == NULL)
        return -1;
    int rc = webhook_read_hook(&g->webhook_rules, u->c->tenant, json_root(u->hook_doc), &u->hook, err);
    if (rc == 0)
        batch_hooks_share(batch_input_hooks(u->input), &u->hook);
    return rc;
}

static void on_hooked(void *arg, const struct err *err)
{
    struct upload *u = arg;
    if (!call_leave(u->c))
        return;
    if (err != NULL)
        call_fail_query(u->c, err);
    else
        load(u);
}

static void hook_and_load(struct upload *u)
{
    struct call *c = u->c;
    struct err err = ERR_INIT;
    if (u->hook_doc == NULL) {
        load(u);
        return;
    }
    call_enter(c);
    if (webhook_hook_put(c->g->files, c->tenant, u->batch.id, &u->hook.hook, ADMIT_MS, on_hooked, u, &err) !=
            0 &&
        call_leave(c))
        call_fail(c, &err);
}

/* ---- admission ---- */

static void on_admission(void *arg, const struct batch_admission *a, const struct err *err)
{
    struct upload *u = arg;
    struct call *c = u->c;
    if (!call_leave(c))
        return;
    if (err != NULL)
        call_fail_query(c, err);
    else if (a->key_taken && a->same)
        batch_answer(c, a->owner, 202, 202);
    else if (a->key_taken)
        call_fail_code(c, ERR_IDEMPOTENCY_MISMATCH, "the Idempotency-Key was used with another request");
    else if (a->open >= OPEN_MAX)
        call_fail_code(c, ERR_TOO_MANY, "256 batches have not ended; wait for some of them, or cancel them");
    else
        hook_and_load(u);
}

static void admit(struct upload *u)
{
    struct call *c = u->c;
    struct err err = ERR_INIT;
    struct str key = str_of(u->key);
    u->batch.idempotency_key = key;
    memcpy(u->batch.fingerprint, u->fingerprint, sizeof u->fingerprint);
    call_enter(c);
    if (batch_admit(c->g->files, c->tenant, key, u->fingerprint, ADMIT_MS, on_admission, u, &err) != 0 &&
        call_leave(c))
        call_fail(c, &err);
}

/* ---- agents ---- */

/* The name that number `i` of the table stands for. False: items need one, and there is none. */
static bool agent_of(const struct upload *u, const struct batch_agent *a, struct str *slug, int32_t *version)
{
    *slug = str_of(a->slug[0] != '\0' ? a->slug : u->options.agent);
    *version = a->slug[0] != '\0' ? a->version : u->options.agent_version;
    return slug->n > 0;
}

static void check_target(const struct agent_target *t, struct str slug, int32_t version, struct err *err)
{
    if (!t->found && version > 0)
        err_set(err, ERR_AGENT_NOT_FOUND, "there is no version %d of an agent \"%.*s\"", version,
                STR_ARG(slug));
    else if (!t->found)
        err_set(err, ERR_AGENT_NOT_FOUND, "there is no agent \"%.*s\"", STR_ARG(slug));
    else if (t->retired)
        err_set(err, ERR_VERSION_RETIRED, "version %d of agent \"%.*s\" is retired", t->version,
                STR_ARG(slug));
    else if (!t->ready)
        err_set(err, ERR_AGENT_NOT_READY, "agent \"%.*s\" has no version that is ready", STR_ARG(slug));
}

static void on_target(struct call *c, const struct agent_target *t, const struct err *err)
{
    struct upload *u = c->data;
    struct err bad = ERR_INIT;
    size_t n;
    struct str slug;
    int32_t version;
    if (err != NULL) {
        call_fail_query(c, err);
        return;
    }
    const struct batch_agent *a = &batch_input_agents(u->input, &n)[u->resolving];
    agent_of(u, a, &slug, &version);
    check_target(t, slug, version, &bad);
    if (bad.code != ERR_NONE)
        batch_input_fault(u->input, a->line, a->item, &bad);
    u->targets[u->resolving++] = *t;
    resolve_next(u);
}

static void resolve_next(struct upload *u)
{
    size_t n, faults;
    uint64_t all;
    struct str slug;
    int32_t version;
    struct err none;
    const struct batch_agent *agents = batch_input_agents(u->input, &n);
    if (u->resolving < n && agent_of(u, &agents[u->resolving], &slug, &version)) {
        target_resolve(u->c->g->targets, u->c, slug, version, on_target);
        return;
    }
    if (u->resolving < n) {
        const struct batch_agent *a = &agents[u->resolving++];
        err_set(&none, ERR_MISSING_FIELD, "agent is required: in each item, or once for the batch");
        batch_input_fault(u->input, a->line, a->item, &none);
        resolve_next(u);
        return;
    }
    batch_input_faults(u->input, &faults, &all);
    if (all > 0)
        refuse(u);
    else
        admit(u);
}

/* ---- the body ---- */

static void go_on(void *arg)
{
    struct upload *u = arg;
    if (u->c->ended)
        return;
    if (batch_input_go_on(u->input))
        http_body_resume(u->c->req);
    else
        loop_task_post(u->c->g->loop, &u->go_on, go_on, u);
}

static bool on_data(void *arg, struct http_request *req, struct str piece)
{
    (void)req;
    struct upload *u = arg;
    if (u->key != NULL)
        crypto_sha256_update(&u->hash, piece);
    if (batch_input_put(u->input, piece))
        return true;
    loop_task_post(u->c->g->loop, &u->go_on, go_on, u);
    return false;
}

static void on_end(void *arg, struct http_request *req)
{
    (void)req;
    struct upload *u = arg;
    struct call *c = u->c;
    size_t n;
    uint64_t all;
    struct err err = ERR_INIT;
    crypto_sha256_final(&u->hash, u->fingerprint);
    batch_input_end(u->input, &u->options);
    batch_input_faults(u->input, &n, &all);
    u->targets = calloc(BATCH_AGENTS_MAX, sizeof *u->targets);
    if (batch_input_failed(u->input)->code != ERR_NONE)
        call_fail(c, batch_input_failed(u->input));
    else if (all >= BATCH_ERRORS_MAX)
        refuse(u);
    else if (u->targets == NULL)
        call_fail_code(c, ERR_OVERLOADED, NULL);
    else if (read_hook(u, &err) != 0)
        call_fail(c, &err);
    else
        resolve_next(u);
}

/* ---- the request ---- */

static int read_form(struct call *c, struct batch_input_options *o, struct err *err)
{
    struct str value = STR("application/json"), rest, media;
    http_header(c->req, "Content-Type", &value);
    rest = value;
    str_split(&rest, ';', &media);
    media = str_trim(media);
    o->lines = str_eq_nocase(media, STR("application/x-ndjson")) ||
               str_eq_nocase(media, STR("application/jsonl")) ||
               str_eq_nocase(media, STR("application/ndjson"));
    if (!o->lines && !str_eq_nocase(media, STR("application/json")))
        return err_set(err, ERR_MEDIA_TYPE,
                       "send items as application/x-ndjson, one a line, or as application/json");
    if (!http_header(c->req, "Content-Encoding", &value) || str_eq_nocase(value, STR("identity")))
        return 0;
    o->gzip = str_eq_nocase(value, STR("gzip"));
    return o->gzip ? 0 : err_set(err, ERR_MEDIA_TYPE, "Content-Encoding may be gzip, or nothing");
}

/* Method, path and raw body. */
static void begin_fingerprint(struct upload *u)
{
    crypto_sha256_init(&u->hash);
    crypto_sha256_update(&u->hash, STR("POST /v1/batches?"));
    crypto_sha256_update(&u->hash, http_query(u->c->req));
    crypto_sha256_update(&u->hash, STR("\n"));
}

/* Items carry their batch's trace context on, so that each is a child of the caller's. */
static void read_trace(struct upload *u)
{
    struct str text;
    struct traceparent trace = {0};
    if (http_header(u->c->req, "traceparent", &text) && http_header_count(u->c->req, "traceparent") == 1)
        traceparent_parse(text, &trace);
    traceparent_format(&trace, u->trace);
}

static int begin(struct upload *u, struct err *err)
{
    struct call *c = u->c;
    struct batch_input_options o = {.tenant = c->tenant,
                                    .api_key = c->api_key,
                                    .batch = u->batch.id = uuid_new(),
                                    .hooks = &c->g->webhook_rules};
    read_trace(u);
    o.trace = str_of(u->trace);
    if (read_form(c, &o, err) != 0 || idempotency_key_read(c->req, &u->key, err) != 0 ||
        batch_options_query(&u->options, c->req, err) != 0)
        return -1;
    if (c->g->batch_uploads >= UPLOADS_MAX)
        return err_set(err, ERR_OVERLOADED, "too many batches are on their way; try again later");
    c->g->batch_uploads++;
    u->counted = true;
    u->look = loop_timer_new(c->g->loop, look_again, u);
    u->input = batch_input_new(c->g, &o, err);
    begin_fingerprint(u);
    return u->input != NULL && u->look != NULL ? 0 : -1;
}

void batch_upload(struct call *c)
{
    struct err err = ERR_INIT;
    struct upload *u = calloc(1, sizeof *u);
    if (u == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    u->c = c;
    batch_options_init(&u->options);
    c->data = u;
    c->free_data = upload_free;
    if (begin(u, &err) != 0) {
        call_fail(c, &err);
        return;
    }
    const struct http_body_stream stream = {.on_data = on_data, .on_end = on_end, .arg = u};
    http_stream_body(c->req, BATCH_BODY_MAX_BYTES, &stream);
}
