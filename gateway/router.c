/* Routes. To add a resource: a file with its handlers, and its rows here. */
#include "router.h"

#include "agents.h"
#include "auth.h"
#include "call.h"
#include "health.h"
#include "invocations.h"

struct route {
    enum http_method method;
    const char *path; /* "{}" matches one segment */
    void (*handle)(struct call *c);
    const char *const *query; /* the parameters it knows; NULL: any, ignored (probes add some of their own) */
    bool open;                /* without a key */
};

static const char *const no_query[] = {NULL};
static const char *const wait_query[] = {"wait", NULL};
static const char *const deploy_query[] = {"name", NULL};
static const char *const list_query[] = {"limit", "cursor", NULL};

static const struct route routes[] = {
    {HTTP_M_POST, "/v1/invocations", invocation_submit, no_query, false},
    {HTTP_M_GET, "/v1/invocations", invocations_list, NULL, false}, /* reads the whole query itself */
    {HTTP_M_GET, "/v1/invocations/{}", invocation_get, wait_query, false},
    {HTTP_M_POST, "/v1/invocations/{}/cancel", invocation_cancel, no_query, false},
    {HTTP_M_GET, "/v1/invocations/{}/output", invocation_output, no_query, false},
    {HTTP_M_GET, "/v1/invocations/{}/logs", invocation_logs, no_query, false},
    {HTTP_M_POST, "/v1/agents", agent_deploy_call, deploy_query, false},
    {HTTP_M_GET, "/v1/agents", agents_list, list_query, false},
    {HTTP_M_GET, "/v1/agents/{}", agent_show, no_query, false},
    {HTTP_M_GET, "/healthz", health_live, NULL, true},
    {HTTP_M_GET, "/readyz", health_ready, NULL, true},
    {HTTP_M_GET, "/metrics", health_metrics, NULL, true},
};

static const char *const method_names[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "?"};

/* Whether path fits the pattern; *arg is what the last "{}" matched. */
static bool matches(const char *pattern, struct str path, struct str *arg)
{
    struct str want = str_of(pattern), have = path, w, h;
    for (;;) {
        bool more = str_split(&want, '/', &w);
        if (str_split(&have, '/', &h) != more)
            return false;
        if (!more)
            return true;
        if (str_eq_c(w, "{}") && h.n > 0)
            *arg = h;
        else if (!str_eq(w, h))
            return false;
    }
}

static void handle(struct call *c)
{
    struct err err = ERR_INIT;
    if (c->route->query != NULL && http_query_check(c->req, c->route->query, &err) != 0)
        call_fail(c, &err);
    else
        c->route->handle(c);
}

static void not_found(struct call *c, struct buf *allow)
{
    if (allow->len == 0) {
        call_fail_code(c, ERR_NOT_FOUND, "there is nothing at this path");
        return;
    }
    http_set_header(c->req, "Allow", buf_view(allow));
    call_fail_code(c, ERR_METHOD, NULL);
}

static void dispatch(struct call *c, const struct route *r, struct str arg)
{
    c->route = r;
    if (arg.n >= sizeof c->arg_text)
        arg.n = 0; /* longer than any id or slug: matches none */
    str_copy(arg, c->arg_text, sizeof c->arg_text);
    c->arg = str_of(c->arg_text);
    if (r->open)
        handle(c);
    else
        auth_check(c->g->auth, c, handle);
}

void router_request(void *arg, struct http_request *req)
{
    struct gateway *g = arg;
    struct call *c = call_new(g, req);
    if (c == NULL) {
        http_abort(req);
        return;
    }
    http_set_data(req, c);
    enum http_method method = http_method_of(req);
    struct str arg_seg = str_of(NULL);
    struct buf allow;
    buf_init(&allow, 128);
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        const struct route *r = &routes[i];
        if (!matches(r->path, http_path(req), &arg_seg))
            continue;
        if (r->method == method || (r->method == HTTP_M_GET && method == HTTP_M_HEAD)) {
            buf_deinit(&allow);
            dispatch(c, r, arg_seg);
            return;
        }
        buf_printf(&allow, "%s%s", allow.len > 0 ? ", " : "", method_names[r->method]);
        if (r->method == HTTP_M_GET)
            buf_cstr_append(&allow, ", HEAD");
    }
    not_found(c, &allow);
    buf_deinit(&allow);
}

void router_gone(void *arg, struct http_request *req)
{
    (void)arg;
    call_client_gone(http_data(req));
}

const char *router_error_body(void *arg, enum err_code code, const char *detail, struct buf *out)
{
    (void)arg;
    return problem_body(code, detail, out);
}
