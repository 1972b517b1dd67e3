/* Routing, access and errors (api.h). */
#include "api.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "connect.h"
#include "crypto/crypto.h"

enum { USER_BYTES = 256 };

/* ---- answers ---- */

static void error_json(struct buf *out, int status, const char *text)
{
    struct json_writer w = json_writer(out);
    jw_object(&w);
    jw_kint(&w, "code", status);
    jw_kcstr(&w, "message", text);
    jw_object_end(&w);
}

void api_error(struct http_request *r, int status, const char *fmt, ...)
{
    char text[512];
    struct buf body;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    buf_init(&body, API_MAX_BODY);
    error_json(&body, status, text);
    api_json(r, status, &body);
}

void api_error_of(struct http_request *r, const struct err *err)
{
    int status = err_http_status(err->code);
    /* The live limit is a 429 without Retry-After: no timer helps, only an end does. */
    if (status == 503)
        http_set_header(r, "Retry-After", STR("1"));
    api_error(r, status, "%s", err->msg);
}

void api_json(struct http_request *r, int status, struct buf *body)
{
    if (body->failed) {
        http_reply(r, 500, "application/json", STR("{\"code\":500,\"message\":\"the answer is too large\"}"));
    } else {
        http_reply(r, status, "application/json", buf_view(body));
    }
    buf_deinit(body);
}

void api_empty(struct http_request *r, int status)
{
    http_reply(r, status, NULL, STR(""));
}

static const char *error_body(void *arg, enum err_code code, const char *detail, struct buf *out)
{
    (void)arg;
    error_json(out, err_http_status(code), detail != NULL ? detail : err_public_text(code));
    return "application/json";
}

/* ---- Connect ---- */

void api_rpc_error(struct http_request *r, const char *code, const char *text)
{
    struct buf body;
    buf_init(&body, API_MAX_BODY);
    connect_error_body(&body, code, text);
    api_json(r, connect_http_status(code), &body);
}

struct json *api_rpc_body(struct http_request *r, struct str body)
{
    struct err err = ERR_INIT;
    struct json *doc = json_parse(body.n > 0 ? body : STR("{}"), &err);
    if (doc == NULL)
        api_rpc_error(r, "invalid_argument", err.msg);
    return doc;
}

const char *api_fault_code(enum wire_fault fault)
{
    switch (fault) {
    case WIRE_FAULT_NOT_FOUND:
        return "not_found";
    case WIRE_FAULT_EXISTS:
        return "already_exists";
    case WIRE_FAULT_INVALID:
        return "invalid_argument";
    case WIRE_FAULT_DENIED:
        return "permission_denied";
    case WIRE_FAULT_NO_SPACE:
    case WIRE_FAULT_LIMIT:
        return "resource_exhausted";
    case WIRE_FAULT_NO_USER:
        return "unauthenticated";
    case WIRE_FAULT_INTERNAL:
        break;
    }
    return "internal";
}

const struct json_value *api_field(const struct json_value *object, const char *camel, const char *snake)
{
    const struct json_value *v = json_get(object, camel);
    return v != NULL || snake == NULL ? v : json_get(object, snake);
}

/* ---- which sandbox, which user ---- */

/* "49983-<id>.anything" in Host. False when Host has not this form. */
static bool host_label(struct http_request *r, struct str *id, uint64_t *port)
{
    struct str host, label, number;
    if (!http_header(r, "Host", &host))
        return false;
    if (memchr(host.p, '.', host.n) == NULL || !str_split(&host, '.', &label))
        return false;
    if (!str_split(&label, '-', &number) || !str_to_u64(number, port) || label.n == 0)
        return false;
    *id = label;
    return true;
}

/* Whether the request is for a sandbox at all. */
static bool names_sandbox(struct http_request *r, struct str *id, uint64_t *port)
{
    struct str text;
    *port = ENVD_PORT;
    if (!http_header(r, "E2b-Sandbox-Id", id))
        return host_label(r, id, port);
    if (http_header(r, "E2b-Sandbox-Port", &text) && !str_to_u64(text, port))
        *port = 0;
    return true;
}

static void answer_502(struct http_request *r, struct str id, uint64_t port, bool running)
{
    struct buf body;
    buf_init(&body, API_MAX_BODY);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    jw_kstr(&w, "sandboxId", id);
    jw_kcstr(&w, "message",
             running ? "The sandbox is running but port is not open" : "The sandbox was not found");
    if (running)
        jw_kint(&w, "port", (int64_t)port);
    jw_kint(&w, "code", 502);
    jw_object_end(&w);
    api_json(r, 502, &body);
}

static bool token_fits(const struct sandbox *s, struct http_request *r)
{
    struct str token, want = str_of(sandbox_token(s));
    if (want.n == 0)
        return true;
    return http_header(r, "X-Access-Token", &token) && crypto_equal(token, want);
}

struct sandbox *api_sandbox(struct api *a, struct http_request *r, bool need_token)
{
    struct str id;
    uint64_t port;
    struct sandbox *s = names_sandbox(r, &id, &port) ? host_find(a->host, id) : NULL;
    if (s == NULL || port != ENVD_PORT) {
        answer_502(r, id, port, s != NULL);
        return NULL;
    }
    if (!need_token || token_fits(s, r))
        return s;
    api_error(r, 401,
              "unauthorized access, please provide a valid access token or method signing if supported");
    return NULL;
}

struct str api_user(struct http_request *r)
{
    struct str header, user;
    struct buf plain;
    if (http_query_get(r, "username", &user, NULL) == 1)
        return user;
    if (!http_header(r, "Authorization", &header) || header.n < 6 ||
        !str_eq_nocase(str_make(header.p, 6), STR("Basic ")))
        return STR("");
    user = STR("");
    buf_init(&plain, USER_BYTES);
    if (crypto_unbase64(str_trim(str_make(header.p + 6, header.n - 6)), &plain)) {
        struct str rest = buf_view(&plain), name;
        if (str_split(&rest, ':', &name))
            user = str_of(arena_dup(http_arena(r), name));
    }
    buf_deinit(&plain);
    return user;
}

/* ---- routing ---- */

static void data_health(struct http_request *r)
{
    http_set_header(r, "Cache-Control", STR("no-store"));
    api_empty(r, 204);
}

/* Of the host itself: 503 while no sandbox can be made. */
static void host_health(const struct api *a, struct http_request *r)
{
    if (host_works(a->host))
        api_empty(r, 204);
    else
        api_error(r, 503, "no sandbox can be made; the log says why");
}

static void data_envs(struct api *a, struct http_request *r)
{
    struct sandbox *s = api_sandbox(a, r, true);
    struct buf body;
    if (s == NULL)
        return;
    const struct pairs *env = &sandbox_spec_of(s)->env;
    buf_init(&body, API_MAX_ANSWER);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    for (size_t i = 0; i < env->count; i++) {
        jw_key_str(&w, str_of(env->items[i].name));
        jw_cstr(&w, env->items[i].value);
    }
    jw_object_end(&w);
    api_json(r, 200, &body);
}

static void data_request(struct api *a, struct http_request *r)
{
    struct str path = http_path(r), process = STR("/process.Process/"), tree = STR("/filesystem.Filesystem/");
    bool own_check = str_eq_c(path, "/health") || str_eq_c(path, "/files");
    if (api_sandbox(a, r, !own_check) == NULL)
        return;
    if (str_eq_c(path, "/health"))
        data_health(r);
    else if (str_eq_c(path, "/files"))
        files_request(a, r);
    else if (str_eq_c(path, "/envs"))
        data_envs(a, r);
    else if (str_starts(path, process))
        process_request(a, r, str_make(path.p + process.n, path.n - process.n));
    else if (str_starts(path, tree))
        tree_request(a, r, str_make(path.p + tree.n, path.n - tree.n));
    else
        api_error(r, 404, "not found");
}

static bool key_fits(const struct api *a, struct http_request *r)
{
    struct str key;
    if (a->options->api_key == NULL)
        return true;
    return http_header(r, "X-API-Key", &key) && crypto_equal(key, secret_reveal(a->options->api_key));
}

static void on_request(void *arg, struct http_request *r)
{
    struct api *a = arg;
    struct str id;
    uint64_t port;
    if (names_sandbox(r, &id, &port))
        data_request(a, r);
    else if (str_eq_c(http_path(r), "/health"))
        host_health(a, r);
    else if (str_eq_c(http_path(r), "/files") && files_signed_anonymous(a, r))
        return;
    else if (!key_fits(a, r))
        api_error(r, 401, "Invalid API key, please visit the documentation of E2B_API_KEY");
    else
        control_request(a, r);
}

static void on_gone(void *arg, struct http_request *r)
{
    struct api_pending *pending = http_data(r);
    (void)arg;
    if (pending != NULL)
        pending->on_gone(pending);
}

struct http_app api_app(void)
{
    return (struct http_app){.on_request = on_request, .on_gone = on_gone, .error_body = error_body};
}
