/* E2B's API, as its cloud, self-hosted installations and our own host speak it: opening, the probe of the
 * create path, and what every call needs (headers, addresses, deadlines, the meaning of failures).
 *
 * A request belongs to this module from the call that made it until its callback has returned; the callback
 * fires from the loop, once. Cancelling frees it at once. Whatever a request has running (a transfer, a
 * timer, a task) is withdrawn with it, so nothing fires late. */
#include "sandbox/e2b.h"

#include <stdio.h>
#include <stdlib.h>

enum { PROBE_MS = 10000, PROBE_AGAIN_MS = 1000, URL_BYTES = 2048 };

/* ---- requests ---- */

static void cancel_request(struct sandbox_request *r)
{
    e2b_request_free((struct e2b_request *)r);
}

void *e2b_request_new(struct provider *p, size_t bytes, int64_t deadline_ms)
{
    struct e2b_request *r = calloc(1, bytes);
    if (r == NULL)
        return NULL;
    struct e2b *e2b = (struct e2b *)p;
    r->base.cancel = cancel_request;
    r->e2b = e2b;
    r->culprit = culprit_now();
    r->deadline = mono_add_ms(mono_now(), deadline_ms);
    r->next = e2b->requests;
    r->pprev = &e2b->requests;
    if (r->next != NULL)
        r->next->pprev = &r->next;
    e2b->requests = r;
    return r;
}

void e2b_request_free(struct e2b_request *r)
{
    http_cancel(&r->transfer);
    loop_timer_free(&r->timer);
    loop_task_cancel(r->e2b->loop, &r->task);
    if (r->release != NULL)
        r->release(r);
    *r->pprev = r->next;
    if (r->next != NULL)
        r->next->pprev = r->pprev;
    free(r);
}

int64_t e2b_left_ms(const struct e2b_request *r)
{
    int64_t left = mono_ms_between(mono_now(), r->deadline);
    return left > 1 ? left : 1;
}

bool e2b_is_late(const struct e2b_request *r)
{
    return !mono_before(mono_now(), r->deadline);
}

static void fire_timer(void *arg)
{
    struct e2b_request *r = arg;
    CULPRIT(r->culprit);
    r->on_timer(r);
}

static void fire_timer_task(void *arg)
{
    fire_timer(arg);
}

void e2b_after(struct e2b_request *r, int64_t ms, void (*fn)(struct e2b_request *r))
{
    r->on_timer = fn;
    if (r->timer == NULL)
        r->timer = loop_timer_new(r->e2b->loop, fire_timer, r);
    if (r->timer != NULL)
        loop_timer_start(r->timer, ms);
    else /* no memory: too early is better than never */
        loop_task_post(r->e2b->loop, &r->task, fire_timer_task, r);
}

void e2b_timer_stop(struct e2b_request *r)
{
    if (r->timer != NULL)
        loop_timer_stop(r->timer);
}

/* Doubling from E2B_BACKOFF_MS, half of it random, so that a fleet does not knock in step. */
int64_t e2b_backoff_ms(int tries)
{
    int64_t ms = E2B_BACKOFF_MS;
    for (int i = 1; i < tries && ms < E2B_BACKOFF_MAX_MS; i++)
        ms *= 2;
    ms = ms < E2B_BACKOFF_MAX_MS ? ms : E2B_BACKOFF_MAX_MS;
    uint16_t dice;
    random_bytes(&dice, sizeof dice);
    return ms / 2 + ms / 2 * dice / UINT16_MAX;
}

/* ---- headers and addresses ---- */

void e2b_header(struct e2b_headers *h, const char *name, struct str value)
{
    size_t room = sizeof h->text - h->used;
    INVARIANT(h->count < (int)(sizeof h->list / sizeof h->list[0]) - 1);
    char *at = h->text + h->used;
    int n = snprintf(at, room, "%s: %.*s", name, STR_ARG(value));
    INVARIANT(n >= 0 && (size_t)n < room); /* every value has a cap of its own, together below the room */
    h->used += (size_t)n + 1;
    h->list[h->count++] = at;
    h->list[h->count] = NULL;
}

void e2b_header_int(struct e2b_headers *h, const char *name, int64_t value)
{
    char text[24];
    int n = snprintf(text, sizeof text, "%lld", (long long)value);
    e2b_header(h, name, str_make(text, (size_t)n));
}

void e2b_data_headers(struct e2b_headers *h, const struct sandbox *sandbox)
{
    e2b_header(h, "E2b-Sandbox-Id", str_of(sandbox->id));
    e2b_header_int(h, "E2b-Sandbox-Port", E2B_ENVD_PORT);
    if (sandbox->token[0] != '\0')
        e2b_header(h, "X-Access-Token", str_of(sandbox->token));
    if (!e2b_version_at_least(sandbox->envd_version, 0, 4, 0))
        e2b_header(h, "Authorization", STR("Basic dXNlcjo=")); /* "user:": older ones have no default user */
}

/* Domains where one host name serves all sandboxes and the headers route. */
static bool is_shared_domain(struct str domain)
{
    static const char *const known[] = {"e2b.app", "e2b.dev", "e2b.pro", "e2b-staging.dev"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (str_eq_c(domain, known[i]))
            return true;
    return false;
}

bool e2b_data_url(const struct e2b *e2b, const struct sandbox *sandbox, const char *path, struct buf *out)
{
    const char *domain = sandbox->domain[0] != '\0' ? sandbox->domain : e2b->domain;
    if (e2b->sandbox_url != NULL)
        buf_cstr_append(out, e2b->sandbox_url);
    else if (is_shared_domain(str_of(domain)))
        buf_printf(out, "https://sandbox.%s", domain);
    else
        buf_printf(out, "https://%d-%s.%s", E2B_ENVD_PORT, sandbox->id, domain);
    return buf_cstr_append(out, path);
}

void e2b_encode(struct str s, struct buf *out)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool plain = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '-' ||
                     c == '.' || c == '_' || c == '~';
        if (plain) {
            buf_byte(out, (char)c);
        } else {
            const char coded[3] = {'%', digits[c >> 4], digits[c & 15]};
            buf_append(out, coded, sizeof coded);
        }
    }
}

bool e2b_version_at_least(const char *version, int major, int minor, int patch)
{
    const int want[3] = {major, minor, patch};
    struct str rest = str_of(version), part;
    for (int i = 0; i < 3; i++) {
        uint64_t have;
        if (!str_split(&rest, '.', &part))
            return false;
        if (!str_to_u64(part, &have))
            return i == 0 || have >= (uint64_t)want[i];
        if (have != (uint64_t)want[i])
            return have > (uint64_t)want[i];
    }
    return true;
}

/* ---- sending ---- */

static void on_done(void *arg, const struct http_response *response, const struct err *err)
{
    struct e2b_request *r = arg;
    r->transfer = NULL;
    r->on_answer(r, response, err);
}

static void answer_refused(void *arg)
{
    struct e2b_request *r = arg;
    struct http_response nothing = {.body = STR(""), .retry_after_sec = -1, .next_token = STR("")};
    r->on_answer(r, &nothing, &r->refused);
}

void e2b_send(struct e2b_request *r, struct http_call *call, e2b_answer_fn *on_answer)
{
    r->on_answer = on_answer;
    call->done = on_done;
    call->arg = r;
    if (call->url == NULL)
        err_set(&r->refused, ERR_BAD_REQUEST, "an address that is too long");
    else
        r->transfer = http_call(r->e2b->http, call, &r->refused);
    if (r->transfer == NULL)
        loop_task_post(r->e2b->loop, &r->task, answer_refused, r);
}

/* Every answer of the control plane passes here: it keeps the health flag. */
static void on_control_done(void *arg, const struct http_response *response, const struct err *err)
{
    struct e2b_request *r = arg;
    r->e2b->healthy = err == NULL && response->status < 500;
    on_done(arg, response, err);
}

void e2b_control(struct e2b_request *r, const struct e2b_control *c, e2b_answer_fn *on_answer)
{
    char url[URL_BYTES];
    int n = snprintf(url, sizeof url, "%s%s", r->e2b->api_url, c->path);
    struct e2b_headers h = {.count = 0};
    e2b_header(&h, "X-API-Key", r->e2b->api_key);
    if (c->json.n > 0)
        e2b_header(&h, "Content-Type", STR("application/json"));
    struct http_call call = {
        .method = c->method,
        .url = url,
        .headers = h.list,
        .body = c->json,
        .once = c->once,
        .max_body = c->max_body > 0 ? c->max_body : E2B_ANSWER_BYTES,
        .timeout_ms = c->timeout_ms,
        .done = on_control_done,
        .arg = r,
    };
    r->on_answer = on_answer;
    if (n < 0 || (size_t)n >= sizeof url)
        err_set(&r->refused, ERR_BAD_REQUEST, "an address longer than %d bytes", URL_BYTES);
    else
        r->transfer = http_call(r->e2b->http, &call, &r->refused);
    crypto_wipe(h.text, h.used);
    if (r->transfer == NULL)
        loop_task_post(r->e2b->loop, &r->task, answer_refused, r);
}

/* ---- what failures mean ---- */

struct sandbox_failure e2b_failure_make(enum err_code code, enum err_retry retry, const char *text)
{
    struct sandbox_failure f = {.retry = retry, .retry_after_ms = -1};
    err_set(&f.err, code, "%s", text);
    return f;
}

static struct sandbox_failure transport_failure(const struct err *err)
{
    struct sandbox_failure f = {.err = *err, .retry = RETRY_CHECK, .retry_after_ms = -1};
    bool nothing_sent = err->code == ERR_IO || err->code == ERR_OVERLOADED || err->code == ERR_NO_MEMORY;
    if (nothing_sent)
        f.retry = RETRY_LATER;
    if (err->code == ERR_BAD_REQUEST)
        f.retry = RETRY_NEVER;
    return f;
}

/* A wrong key is the operator's to mend, not the job's fault: it waits. */
static void classify_status(struct sandbox_failure *f, int status)
{
    static const struct {
        int status;
        enum err_code code;
        enum err_retry retry;
    } table[] = {
        {400, ERR_BAD_REQUEST, RETRY_NEVER}, {401, ERR_UNAUTHORIZED, RETRY_LATER},
        {403, ERR_FORBIDDEN, RETRY_NEVER},   {404, ERR_NOT_FOUND, RETRY_NEVER},
        {409, ERR_CONFLICT, RETRY_LATER},    {413, ERR_LIMIT, RETRY_NEVER},
        {422, ERR_BAD_REQUEST, RETRY_NEVER}, {429, ERR_TOO_MANY, RETRY_LATER},
        {503, ERR_UNAVAILABLE, RETRY_LATER}, {507, ERR_UNAVAILABLE, RETRY_LATER},
    };
    f->err.code = ERR_PROTOCOL;
    f->retry = RETRY_CHECK;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].status == status) {
            f->err.code = table[i].code;
            f->retry = table[i].retry;
        }
    }
}

/* "the provider answered 429: Rate limit exceeded". The proxy's 502 for a port that is not open has a `port`.
 */
static void describe(struct sandbox_failure *f, const struct http_response *answer, bool *port_closed_out)
{
    struct json *doc = json_parse(answer->body, NULL);
    struct str message = STR("");
    json_str(json_get(json_root(doc), "message"), &message);
    *port_closed_out = json_get(json_root(doc), "port") != NULL;
    size_t n = message.n < 160 ? message.n : 160;
    err_set(&f->err, f->err.code, "the provider answered %d%s%.*s", answer->status, n > 0 ? ": " : "", (int)n,
            message.p);
    json_free(&doc);
}

struct sandbox_failure e2b_failure(const struct http_response *answer, const struct err *err, bool data_plane)
{
    if (err != NULL)
        return transport_failure(err);
    struct sandbox_failure f = {.retry_after_ms = -1};
    bool port_closed;
    classify_status(&f, answer->status);
    describe(&f, answer, &port_closed);
    if (answer->retry_after_sec >= 0)
        f.retry_after_ms = answer->retry_after_sec * 1000;
    if (answer->status == 429) {
        f.quota = true;
        f.quota_concurrency = answer->retry_after_sec < 0; /* only the rate limit names a time */
    }
    if (data_plane && answer->status == 502) {
        f.sandbox_gone = !port_closed;
        f.retry = RETRY_LATER; /* the proxy refused it: nothing was done */
    }
    if (data_plane &&
        answer->status == 429) { /* too many connections to this sandbox, no quota of the account */
        f.quota = f.quota_concurrency = false;
    }
    return f;
}

struct sandbox_failure e2b_stream_failure(const char *code, const char *message)
{
    static const struct {
        const char *name;
        enum err_code code;
        enum err_retry retry;
    } table[] = {
        {"invalid_argument", ERR_BAD_REQUEST, RETRY_NEVER},
        {"not_found", ERR_NOT_FOUND, RETRY_NEVER},
        {"permission_denied", ERR_FORBIDDEN, RETRY_NEVER},
        {"unauthenticated", ERR_UNAUTHORIZED, RETRY_NEVER},
        {"unimplemented", ERR_UNSUPPORTED, RETRY_NEVER},
        {"failed_precondition", ERR_CONFLICT, RETRY_NEVER},
        {"resource_exhausted", ERR_TOO_MANY, RETRY_LATER},
        {"unavailable", ERR_UNAVAILABLE, RETRY_CHECK},
        {"deadline_exceeded", ERR_TIMEOUT, RETRY_CHECK},
    };
    struct sandbox_failure f = {.retry = RETRY_CHECK, .retry_after_ms = -1};
    enum err_code err_code = ERR_PROTOCOL;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(code, table[i].name) == 0) {
            err_code = table[i].code;
            f.retry = table[i].retry;
        }
    }
    err_set(&f.err, err_code, "the sandbox says %s: %s", code, message);
    return f;
}

/* ---- the probe ----
 *
 * A create without a template is refused by every version: 404 (or 405) means that the path itself is
 * unknown. It is repeated until the service answers; creates wait for it. */

static void probe(struct e2b_request *r);

/* Nobody should create a sandbox from nothing; if somebody does, it must not stay. */
static void undo_created(struct e2b_request *r, struct str body)
{
    struct json *doc = json_parse(body, NULL);
    struct str id;
    char text[SANDBOX_ID_BYTES];
    if (json_str(json_get(json_root(doc), "sandboxID"), &id) && str_copy(id, text, sizeof text))
        e2b_destroy(&r->e2b->base, text, E2B_TRY_MS, NULL, NULL);
    json_free(&doc);
}

/* Each reason once: the probe is repeated for as long as it takes. */
static void tell_waiting(struct e2b *e2b, const struct http_response *answer, const struct err *err)
{
    char why[400];
    int status = err == NULL ? answer->status : 0;
    if (e2b->on_state == NULL || status == e2b->probe_said)
        return;
    e2b->probe_said = status;
    if (err != NULL)
        snprintf(why, sizeof why, "the sandbox service at %.150s does not answer: %.150s", e2b->api_url,
                 err->msg);
    else if (status == 401 || status == 403)
        snprintf(why, sizeof why, "the sandbox service at %.150s refuses the API key (%d): check E2B_API_KEY",
                 e2b->api_url, status);
    else
        snprintf(why, sizeof why, "the sandbox service at %.150s answers %d", e2b->api_url, status);
    e2b->on_state(e2b->on_state_arg, why);
}

static bool is_settled(const struct http_response *answer, const struct err *err)
{
    static const int passing[] = {401, 403, 408, 429};
    for (size_t i = 0; err == NULL && i < sizeof passing / sizeof *passing; i++)
        if (answer->status == passing[i])
            return false;
    return err == NULL && answer->status < 500;
}

static void on_probed(struct e2b_request *r, const struct http_response *answer, const struct err *err)
{
    struct e2b *e2b = r->e2b;
    if (!is_settled(answer, err)) {
        tell_waiting(e2b, answer, err);
        r->tries++;
        e2b_after(r, r->tries < 10 ? e2b_backoff_ms(r->tries) : PROBE_AGAIN_MS, probe);
        return;
    }
    if (e2b->on_state != NULL)
        e2b->on_state(e2b->on_state_arg, NULL);
    if (answer->status / 100 == 2)
        undo_created(r, answer->body);
    e2b->probe = answer->status == 404 || answer->status == 405 ? E2B_V1 : E2B_V2;
    e2b->prober = NULL;
    e2b_request_free(r);
    e2b_creates_go(e2b);
}

static void probe(struct e2b_request *r)
{
    struct e2b_control call = {
        .method = "POST", .path = "/v2/sandboxes", .json = STR("{}"), .timeout_ms = PROBE_MS};
    e2b_control(r, &call, on_probed);
}

/* ---- the provider ---- */

static void e2b_close(struct provider *p)
{
    struct e2b *e2b = (struct e2b *)p;
    while (e2b->requests != NULL)
        e2b_request_free(e2b->requests);
    http_client_close(&e2b->http);
    free(e2b->api_url);
    free(e2b->sandbox_url);
    free(e2b->domain);
    free(e2b);
}

static bool e2b_healthy(const struct provider *p)
{
    return ((const struct e2b *)p)->healthy;
}

static const struct provider_ops e2b_ops = {
    .create = e2b_create,
    .destroy = e2b_destroy,
    .set_ttl = e2b_set_ttl,
    .spawn = e2b_spawn,
    .send_signal = e2b_signal,
    .send_input = e2b_send_input,
    .close_input = e2b_close_input,
    .write_file = e2b_write_file,
    .read_file = e2b_read_file,
    .read_range = e2b_read_range,
    .stat = e2b_stat,
    .list_dir = e2b_list_dir,
    .snapshot = e2b_snapshot,
    .snapshot_delete = e2b_snapshot_delete,
    .snapshots = e2b_snapshots,
    .list = e2b_list,
    .close = e2b_close,
    .healthy = e2b_healthy,
};

/* A copy without trailing slashes; NULL for NULL. */
static char *url_dup(const char *url)
{
    if (url == NULL || url[0] == '\0')
        return NULL;
    struct str s = str_of(url);
    while (s.n > 0 && s.p[s.n - 1] == '/')
        s.n--;
    return str_dup(s);
}

static int check_options(const struct provider_e2b_options *o, struct err *err)
{
    const char *const urls[] = {o->api_url, o->sandbox_url};
    for (size_t i = 0; i < 2; i++) {
        struct str u = str_of(urls[i]);
        bool fine =
            u.n == 0 || (u.n < 1024 && (str_starts(u, STR("http://")) || str_starts(u, STR("https://"))));
        if (!fine)
            return err_set(err, ERR_CONFIG, "\"%s\" is not an http or https address", urls[i]);
    }
    if (o->api_key == NULL || secret_reveal(o->api_key).n == 0)
        return err_set(err, ERR_CONFIG, "no API key for the sandbox provider");
    if (secret_reveal(o->api_key).n > 512 || str_of(o->domain).n > SANDBOX_HOST_BYTES)
        return err_set(err, ERR_CONFIG, "the API key or the domain is too long");
    return 0;
}

/* An address of the API alone names the data plane, too: E2B's own ("https://api.e2b.app") by its domain, any
 * other (our host, a proxy) as it stands. Never must a self-hosted site's tokens go to E2B's cloud by
 * default. */
static void derive_data_plane(struct e2b *e2b, const struct provider_e2b_options *o)
{
    bool has_api = o->api_url != NULL && o->api_url[0] != '\0';
    bool has_domain = o->domain != NULL && o->domain[0] != '\0';
    if (!has_api || has_domain || e2b->sandbox_url != NULL || e2b->api_url == NULL)
        return;
    struct str url = str_of(e2b->api_url), prefix = STR("https://api.");
    if (!str_starts(url, prefix) || !is_shared_domain(str_make(url.p + prefix.n, url.n - prefix.n))) {
        e2b->sandbox_url = str_dup(url);
        return;
    }
    free(e2b->domain);
    e2b->domain = str_dup(str_make(url.p + prefix.n, url.n - prefix.n));
}

static int set_up(struct e2b *e2b, const struct provider_e2b_options *o, struct err *err)
{
    int live = o->max_concurrent > 0 ? o->max_concurrent : 10000;
    const char *domain = o->domain != NULL && o->domain[0] != '\0' ? o->domain : "e2b.app";
    char api[SANDBOX_HOST_BYTES + 16];
    snprintf(api, sizeof api, "https://api.%s", domain);
    e2b->domain = str_dup(str_of(domain));
    e2b->api_url = url_dup(o->api_url != NULL && o->api_url[0] != '\0' ? o->api_url : api);
    e2b->sandbox_url = url_dup(o->sandbox_url);
    derive_data_plane(e2b, o);
    e2b->api_key = secret_reveal(o->api_key);
    struct http_client_options http = {.user_agent = "sandpiper/" SP_VERSION,
                                       .max_transfers = 2 * live + 1000};
    e2b->http = http_client_open(e2b->loop, &http, err);
    if (e2b->http == NULL)
        return -1;
    if (e2b->domain == NULL || e2b->api_url == NULL)
        return err_set(err, ERR_NO_MEMORY, "sandbox provider");
    return 0;
}

struct provider *provider_e2b_open(struct loop *loop, const struct provider_e2b_options *options,
                                   struct err *err)
{
    if (check_options(options, err) != 0)
        return NULL;
    struct e2b *e2b = calloc(1, sizeof *e2b);
    if (e2b == NULL) {
        err_set(err, ERR_NO_MEMORY, "sandbox provider");
        return NULL;
    }
    e2b->base.ops = &e2b_ops;
    e2b->loop = loop;
    e2b->probe_said = -1;
    e2b->on_state = options->on_state;
    e2b->on_state_arg = options->arg;
    int rc = set_up(e2b, options, err);
    if (rc == 0)
        e2b->prober = e2b_request_new(&e2b->base, sizeof *e2b->prober, 0);
    if (rc != 0 || e2b->prober == NULL) {
        e2b_close(&e2b->base);
        return NULL;
    }
    probe(e2b->prober);
    return &e2b->base;
}
