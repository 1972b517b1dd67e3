/* Which call it is, access, and the control plane's answers (E2B's REST interface). */
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include "connect.h"
#include "sim.h"

enum { TTL_DEFAULT_S = 300, TTL_V1_DEFAULT_S = 15, TTL_MAX_S = 24 * 3600 };

static const char json_type[] = "application/json";

/* ---- answers ---- */

static void error_json(struct buf *out, int status, const char *text)
{
    struct json_writer w = json_writer(out);
    jw_object(&w);
    jw_kint(&w, "code", status);
    jw_kcstr(&w, "message", text);
    jw_object_end(&w);
}

const char *api_error_body(void *arg, enum err_code code, const char *detail, struct buf *out)
{
    (void)arg;
    error_json(out, err_http_status(code), detail != NULL ? detail : err_public_text(code));
    return json_type;
}

void api_error(struct http_request *r, int status, const char *text)
{
    struct buf body;
    buf_init(&body, ANSWER_MAX_BYTES);
    error_json(&body, status, text);
    api_json(r, status, &body);
}

void api_json(struct http_request *r, int status, struct buf *body)
{
    if (body->failed)
        answer(r, 500, json_type, STR("{\"code\":500,\"message\":\"the answer is too large\"}"));
    else
        answer(r, status, json_type, buf_view(body));
    buf_deinit(body);
}

void api_rpc_error(struct http_request *r, const char *code, const char *text)
{
    struct buf body;
    buf_init(&body, ANSWER_MAX_BYTES);
    connect_error_body(&body, code, text);
    api_json(r, connect_http_status(code), &body);
}

/* ---- answers that take their time ---- */

struct later {
    struct later *prev, *next;
    struct call *call;
    struct loop_timer *timer;
    int status;
    struct buf body;
};

static void later_free(struct later *l)
{
    DL_DELETE(l->call->sim->laters, l);
    loop_timer_free(&l->timer);
    buf_deinit(&l->body);
    free(l);
}

static void answer_body(struct http_request *r, int status, struct buf *body)
{
    if (body->len == 0)
        answer(r, status, NULL, STR(""));
    else
        api_json(r, status, body);
}

static void later_due(void *arg)
{
    struct later *l = arg;
    struct http_request *r = l->call->req;
    struct buf body = l->body;
    int status = l->status;
    buf_init(&l->body, 1);
    l->call->gone = NULL;
    later_free(l);
    answer_body(r, status, &body);
}

static void later_gone(void *owner)
{
    later_free(owner);
}

void api_later(struct http_request *r, const struct span *after, int status, struct buf *body)
{
    struct call *c = http_data(r);
    struct buf none;
    int64_t ms = span_draw(after, faults_dice(c->sim->faults), DICE_LATENCY + c->kind, c->turn);
    buf_init(&none, 1);
    body = body != NULL ? body : &none;
    struct later *l = ms > 0 ? calloc(1, sizeof *l) : NULL;
    struct loop_timer *timer = l != NULL ? loop_timer_new(c->sim->loop, later_due, l) : NULL;
    if (timer == NULL) { /* at once, or without memory to wait */
        free(l);
        answer_body(r, status, body);
        return;
    }
    *l = (struct later){.call = c, .timer = timer, .status = status, .body = *body};
    DL_APPEND(c->sim->laters, l);
    c->gone = later_gone;
    c->owner = l;
    loop_timer_start(timer, ms);
}

void api_laters_free(struct sim *s)
{
    while (s->laters != NULL)
        later_free(s->laters);
}

void api_gone(void *arg, struct http_request *r)
{
    (void)arg;
    struct call *c = http_data(r);
    if (c != NULL)
        call_lost(c);
}

/* ---- create ---- */

/* A bucket of one second's permits. False: too fast. */
static bool take_permit(struct sim *s)
{
    double rate = (double)s->o.creates_per_second;
    mono_t now = loop_now(s->loop);
    if (s->o.creates_per_second == 0)
        return true;
    s->permits += (double)(now.us - s->permits_at.us) / 1e6 * rate;
    s->permits = s->permits > rate ? rate : s->permits;
    s->permits_at = now;
    if (s->permits < 1)
        return false;
    s->permits -= 1;
    return true;
}

static bool refused(struct sim *s, struct http_request *r)
{
    char text[160];
    if ((int64_t)HASH_COUNT(s->boxes) >= s->o.max_live) {
        s->refused_live++;
        snprintf(text, sizeof text, "you have reached the maximum number of concurrent E2B sandboxes (%lld)",
                 (long long)s->o.max_live);
        api_error(r, 429, text);
        return true;
    }
    if (take_permit(s))
        return false;
    s->refused_rate++;
    http_set_header_int(r, "Retry-After", 1);
    api_error(r, 429, "Rate limit exceeded");
    return true;
}

static bool read_metadata(const struct json_value *object, struct pairs *out)
{
    struct str value;
    for (const struct json_value *v = json_first(object); v != NULL; v = json_next(v))
        if (!json_str(v, &value) || !pairs_add(out, json_key(v), value))
            return false;
    return true;
}

static bool read_seconds(const struct json *doc, const struct json_value *v, int64_t fallback, int64_t *out)
{
    *out = fallback;
    return v == NULL || (json_int(doc, v, out) && *out >= 0 && *out <= TTL_MAX_S);
}

static void create(struct sim *s, struct http_request *r, const struct json *doc, int64_t ttl_default)
{
    const struct json_value *root = json_root(doc);
    struct pairs metadata = {0};
    struct str template_id;
    struct buf body;
    int64_t ttl;
    if (!json_str(json_get(root, "templateID"), &template_id) || template_id.n == 0) {
        api_error(r, 400, "validation error: templateID is missing");
        return;
    }
    if (!read_seconds(doc, json_get(root, "timeout"), ttl_default, &ttl) || ttl == 0 ||
        !read_metadata(json_get(root, "metadata"), &metadata)) {
        pairs_free(&metadata);
        api_error(r, 400, "validation error: timeout (1 s to 24 h) or metadata (names and strings)");
        return;
    }
    if (refused(s, r)) {
        pairs_free(&metadata);
        return;
    }
    struct box *b = box_new(s, template_id, &metadata, ttl);
    if (b == NULL) {
        api_error(r, 503, "Failed to place sandbox: no memory");
        return;
    }
    buf_init(&body, ANSWER_MAX_BYTES);
    struct json_writer w = json_writer(&body);
    box_write(&w, b, false);
    api_later(r, &s->o.create_span, 201, &body);
}

/* ---- the rest of the control plane ---- */

static void box_extend(struct box *b, int64_t seconds, bool shorten)
{
    wall_t until = {.us = wall_now().us + seconds * 1000000};
    if (shorten || until.us > b->until.us)
        b->until = until;
}

static void answer_box(struct http_request *r, const struct box *b, bool detail)
{
    struct buf body;
    buf_init(&body, ANSWER_MAX_BYTES);
    struct json_writer w = json_writer(&body);
    box_write(&w, b, detail);
    api_json(r, 200, &body);
}

static void set_ttl(struct box *b, struct http_request *r, const struct json *doc, const char *field,
                    bool shorten)
{
    int64_t seconds;
    if (!json_int(doc, json_get(json_root(doc), field), &seconds) || seconds > TTL_MAX_S) {
        api_error(r, 400, "validation error: seconds up to 24 h are expected");
        return;
    }
    box_extend(b, seconds < 0 ? 0 : seconds, shorten);
    answer(r, 204, NULL, STR(""));
}

static void connect_box(struct box *b, struct http_request *r, const struct json *doc)
{
    int64_t seconds;
    if (!read_seconds(doc, json_get(json_root(doc), "timeout"), TTL_DEFAULT_S, &seconds)) {
        api_error(r, 400, "validation error: timeout");
        return;
    }
    box_extend(b, seconds, false);
    answer_box(r, b, false);
}

static void snapshot(struct box *b, struct http_request *r, const struct json *doc)
{
    char number[32];
    struct str name;
    struct buf body;
    snprintf(number, sizeof number, "snap%llu", (unsigned long long)++b->sim->snapshots);
    if (!json_str(json_get(json_root(doc), "name"), &name) || name.n == 0)
        name = str_of(number);
    buf_init(&body, ANSWER_MAX_BYTES);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    jw_kstr(&w, "snapshotID", name);
    jw_key(&w, "names");
    jw_array(&w);
    jw_str(&w, name);
    jw_array_end(&w);
    jw_object_end(&w);
    api_json(r, 201, &body);
}

static void stats(struct sim *s, struct http_request *r)
{
    struct buf body;
    buf_init(&body, ANSWER_MAX_BYTES);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    jw_kint(&w, "created", (int64_t)s->created);
    jw_kint(&w, "live", (int64_t)HASH_COUNT(s->boxes));
    jw_kint(&w, "peak_live", (int64_t)s->peak_live);
    jw_kint(&w, "deleted", (int64_t)s->deleted);
    jw_kint(&w, "expired", (int64_t)s->expired);
    jw_kint(&w, "vanished", (int64_t)s->vanished);
    jw_kint(&w, "programs", (int64_t)s->programs);
    jw_kint(&w, "programs_running", (int64_t)s->programs_running);
    jw_kint(&w, "refused_live", (int64_t)s->refused_live);
    jw_kint(&w, "refused_rate", (int64_t)s->refused_rate);
    jw_kbool(&w, "ledger_complete", !s->ledger_failed);
    jw_object_end(&w);
    api_json(r, 200, &body);
}

static void kill_box(struct sim *s, struct http_request *r, struct str id)
{
    struct box *b = box_find(s, id);
    if (b == NULL) {
        api_error(r, 404, "the sandbox doesn't exist");
        return;
    }
    box_end(b, BOX_DELETED);
    api_later(r, &s->o.kill_span, 204, NULL);
}

/* /sandboxes/{id}/{what}, with what E2B's clients send. */
static void on_box(struct sim *s, struct http_request *r, struct str id, struct str what,
                   const struct json *doc)
{
    struct box *b = box_find(s, id);
    bool post = http_method_of(r) == HTTP_M_POST;
    if (b == NULL)
        api_error(r, 404, "the sandbox doesn't exist");
    else if (what.n == 0 && http_method_of(r) == HTTP_M_GET)
        answer_box(r, b, true);
    else if (post && str_eq_c(what, "timeout"))
        set_ttl(b, r, doc, "timeout", true);
    else if (post && str_eq_c(what, "refreshes"))
        set_ttl(b, r, doc, "duration", false);
    else if (post && str_eq_c(what, "connect"))
        connect_box(b, r, doc);
    else if (post && str_eq_c(what, "snapshots"))
        snapshot(b, r, doc);
    else
        api_error(r, 501, "the simulator does not serve this call");
}

static void on_sandboxes(struct sim *s, struct http_request *r, struct str rest, bool v2,
                         const struct json *doc)
{
    struct str id = str_of(NULL);
    str_split(&rest, '/', &id);
    if (id.n == 0 && http_method_of(r) == HTTP_M_POST)
        create(s, r, doc, v2 ? TTL_DEFAULT_S : TTL_V1_DEFAULT_S);
    else if (id.n == 0)
        box_list(s, r, v2);
    else if (rest.n == 0 && http_method_of(r) == HTTP_M_DELETE)
        kill_box(s, r, id);
    else
        on_box(s, r, id, rest, doc);
}

static bool key_fits(const struct sim *s, struct http_request *r)
{
    struct str key = str_of(NULL);
    http_header(r, "X-API-Key", &key);
    return s->o.api_key == NULL || crypto_equal(key, secret_reveal(s->o.api_key));
}

static bool cut_prefix(struct str *path, const char *prefix)
{
    struct str p = str_of(prefix);
    if (!str_starts(*path, p) || (path->n > p.n && path->p[p.n] != '/'))
        return false;
    size_t n = path->n > p.n ? p.n + 1 : p.n;
    *path = str_make(path->p + n, path->n - n);
    return true;
}

/* ---- the simulator's own calls ---- */

static void show_faults(struct sim *s, struct http_request *r)
{
    struct buf body;
    buf_init(&body, ANSWER_MAX_BYTES);
    faults_write(s->faults, answer_held(s), &body);
    api_json(r, 200, &body);
}

static void set_faults(struct sim *s, struct http_request *r, struct str rules)
{
    struct err err = ERR_INIT;
    bool heal = false;
    if (faults_set(s->faults, rules, &heal, &err) != 0) {
        api_error(r, 400, err.msg);
        return;
    }
    show_faults(s, r);
    if (heal)
        answer_heal(s);
}

static void on_sim(struct sim *s, struct http_request *r, struct str what, struct str body)
{
    bool post = http_method_of(r) == HTTP_M_POST;
    if (str_eq_c(what, "stats") && !post)
        stats(s, r);
    else if (str_eq_c(what, "ledger") && !post)
        ledger_show(s, r);
    else if (str_eq_c(what, "faults") && post)
        set_faults(s, r, body.n > 0 ? body : STR("{}"));
    else if (str_eq_c(what, "faults"))
        show_faults(s, r);
    else
        api_error(r, 404, "known: GET /sim/stats, /sim/ledger, /sim/faults; POST /sim/faults");
}

static void on_control(struct sim *s, struct http_request *r, struct str body)
{
    struct err err = ERR_INIT;
    struct str path = http_path(r);
    struct json *doc = json_parse(body.n > 0 ? body : STR("{}"), &err);
    bool v2 = str_starts(path, STR("/v2/"));
    if (v2)
        path = str_make(path.p + 3, path.n - 3);
    if (!key_fits(s, r))
        api_error(r, 401, "Invalid API key");
    else if (doc == NULL)
        api_error(r, 400, err.msg);
    else if (cut_prefix(&path, "/sandboxes"))
        on_sandboxes(s, r, path, v2, doc);
    else if (cut_prefix(&path, "/templates") && http_method_of(r) == HTTP_M_DELETE)
        answer(r, 204, NULL, STR(""));
    else if (cut_prefix(&path, "/sim"))
        on_sim(s, r, path, body);
    else
        api_error(r, 501, "the simulator does not serve this call");
    json_free(&doc);
}

/* ---- envd ---- */

static const struct {
    const char *path;
    void (*handle)(struct box *b, struct http_request *r, struct str body);
} rpc[] = {
    {"/process.Process/Start", program_start},     {"/process.Process/Connect", program_connect},
    {"/process.Process/List", program_list},       {"/process.Process/SendSignal", program_signal},
    {"/process.Process/SendInput", program_input}, {"/process.Process/CloseStdin", program_input},
    {"/filesystem.Filesystem/Stat", file_stat},    {"/filesystem.Filesystem/ListDir", file_list},
};

static bool token_fits(const struct box *b, struct http_request *r)
{
    struct str token = str_of(NULL);
    http_header(r, "X-Access-Token", &token);
    return crypto_equal(token, str_of(b->token));
}

static void box_missing(struct http_request *r, struct str id)
{
    struct buf body;
    buf_init(&body, ANSWER_MAX_BYTES);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    jw_kstr(&w, "sandboxId", id);
    jw_kcstr(&w, "message", "The sandbox was not found");
    jw_kint(&w, "code", 502);
    jw_object_end(&w);
    api_json(r, 502, &body);
}

static void on_envd(struct sim *s, struct http_request *r, struct str body)
{
    struct str id = str_of(NULL), path = http_path(r);
    http_header(r, "E2b-Sandbox-Id", &id);
    struct box *b = box_find(s, id);
    if (b == NULL) {
        box_missing(r, id);
        return;
    }
    if (str_eq_c(path, "/health")) {
        answer(r, 204, NULL, STR(""));
        return;
    }
    if (!token_fits(b, r)) {
        api_error(r, 401, "unauthorized access, please provide a valid access token");
        return;
    }
    for (size_t i = 0; i < sizeof rpc / sizeof *rpc; i++)
        if (str_eq_c(path, rpc[i].path)) {
            rpc[i].handle(b, r, body);
            return;
        }
    if (str_eq_c(path, "/files") && http_method_of(r) == HTTP_M_POST)
        file_post(b, r, body);
    else if (str_eq_c(path, "/files"))
        file_get(b, r, body);
    else
        api_rpc_error(r, "unimplemented", "the simulator does not serve this call");
}

/* ---- which call it is ---- */

static enum call_kind box_call(struct http_request *r, struct str path)
{
    struct str id;
    enum http_method m = http_method_of(r);
    str_split(&path, '/', &id);
    if (id.n == 0)
        return m == HTTP_M_POST ? CALL_CREATE : CALL_LIST;
    if (path.n == 0)
        return m == HTTP_M_DELETE ? CALL_KILL : CALL_INFO;
    return str_eq_c(path, "snapshots") ? CALL_SNAPSHOT : CALL_TIMEOUT;
}

static enum call_kind kind_of(struct http_request *r)
{
    static const struct {
        const char *path;
        enum call_kind kind;
    } envd[] = {{"/process.Process/Start", CALL_START},
                {"/process.Process/Connect", CALL_CONNECT},
                {"/health", CALL_HEALTH}};
    struct str path = http_path(r), id;
    if (http_header(r, "E2b-Sandbox-Id", &id)) {
        for (size_t i = 0; i < sizeof envd / sizeof *envd; i++)
            if (str_eq_c(path, envd[i].path))
                return envd[i].kind;
        if (!str_eq_c(path, "/files"))
            return CALL_SIGNAL;
        return http_method_of(r) == HTTP_M_POST ? CALL_UPLOAD : CALL_DOWNLOAD;
    }
    if (str_starts(path, STR("/v2/")))
        path = str_make(path.p + 3, path.n - 3);
    return cut_prefix(&path, "/sandboxes") ? box_call(r, path) : CALL_OTHER;
}

void api_serve(struct call *c)
{
    struct str id;
    if (http_header(c->req, "E2b-Sandbox-Id", &id))
        on_envd(c->sim, c->req, c->body);
    else
        on_control(c->sim, c->req, c->body);
}

static void on_body(void *arg, struct http_request *r, struct str body)
{
    struct sim *s = arg;
    struct call *c = arena_alloc(http_arena(r), sizeof *c);
    if (c == NULL) {
        http_reply(r, 503, json_type, STR("{\"code\":503,\"message\":\"no memory\"}"));
        return;
    }
    *c = (struct call){.sim = s, .req = r, .kind = kind_of(r), .body = body};
    http_set_data(r, c);
    if (c->kind != CALL_OTHER)
        c->fault = faults_take(s->faults, c->kind, &c->turn);
    if (c->fault.kind == FAULT_NONE || !answer_before(c))
        api_serve(c);
}

void api_request(void *arg, struct http_request *r)
{
    struct str id;
    if (http_header(r, "E2b-Sandbox-Id", &id) || !str_eq_c(http_path(r), "/health"))
        http_read_body(r, BODY_MAX_BYTES, on_body, arg);
    else
        http_reply(r, 204, NULL, STR(""));
}
