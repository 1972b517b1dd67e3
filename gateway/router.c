/* Routes: which function handles which operation of the contract (contract.h). To add a resource: its
 * operations in api/openapi.json, a file with its handlers, and its rows here. */
#include "router.h"

#include <stdio.h>

#include "agents.h"
#include "auth.h"
#include "batches.h"
#include "call.h"
#include "contract.h"
#include "docs.h"
#include "events.h"
#include "health.h"
#include "invocations.h"
#include "keys.h"
#include "ratelimit.h"
#include "schedules.h"
#include "secrets.h"
#include "usage.h"
#include "versions.h"
#include "webhooks.h"
#include "model/api_key.h"

static const struct operation_handler handlers[] = {
    {"submitInvocation", invocation_submit},
    {"listInvocations", invocations_list},
    {"getInvocation", invocation_get},
    {"cancelInvocation", invocation_cancel},
    {"retryInvocation", invocation_retry},
    {"getInvocationEvents", events_get},
    {"getInvocationOutput", invocation_output},
    {"getInvocationLogs", invocation_logs},
    {"listArtifacts", invocation_artifacts},
    {"getArtifact", invocation_artifact},
    {"submitBatch", batch_upload},
    {"listBatches", batches_list_call},
    {"getBatch", batch_show},
    {"getBatchResults", batch_results_call},
    {"cancelBatch", batch_cancel_call},
    {"deployAgent", agent_deploy_call},
    {"listAgents", agents_list},
    {"getAgent", agent_show},
    {"deleteAgent", agent_delete_call},
    {"listVersions", versions_list},
    {"getVersion", version_show},
    {"getBuildLog", version_log},
    {"rollbackAgent", agent_rollback},
    {"listSecrets", secrets_list_call},
    {"setSecret", secret_put_call},
    {"deleteSecret", secret_delete_call},
    {"listKeys", keys_list},
    {"createKey", key_create_call},
    {"getKey", key_show},
    {"revokeKey", key_revoke_call},
    {"createSchedule", schedule_create},
    {"listSchedules", schedules_list},
    {"getSchedule", schedule_show},
    {"deleteSchedule", schedule_remove},
    {"pauseSchedule", schedule_pause},
    {"resumeSchedule", schedule_resume},
    {"listInvocationDeliveries", hook_deliveries},
    {"redeliverInvocation", hook_redeliver},
    {"createWebhook", webhook_create_call},
    {"listWebhooks", webhooks_list},
    {"getWebhook", webhook_show},
    {"changeWebhook", webhook_change_call},
    {"deleteWebhook", webhook_delete_call},
    {"enableWebhook", webhook_enable},
    {"rotateWebhookSecret", webhook_rotate_call},
    {"testWebhook", webhook_test_call},
    {"redeliverWebhook", webhook_redeliver_call},
    {"replayWebhook", webhook_replay_call},
    {"listWebhookDeliveries", webhook_deliveries},
    {"listenWebhook", webhook_stream},
    {"getUsage", usage_call},
    {"getHealth", health_live},
    {"getReadiness", health_ready},
    {"getMetrics", health_metrics},
    {"getContract", docs_contract},
    {"getAgentSchema", docs_agent_schema},
    {"getDocs", docs_page},
    {"getProblem", docs_problem},
};

struct contract *router_contract(struct err *err)
{
    return contract_new(handlers, sizeof handlers / sizeof *handlers, err);
}

static const char *const method_names[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "?"};

enum { ARGS = 2 };

/* Whether path fits the pattern; args are what its "{}" matched, ARGS at most. "{*}" stands for all that is
 * left.
 */
static bool matches(const char *pattern, struct str path, struct str args[ARGS])
{
    struct str want = str_of(pattern), have = path, w, h;
    int n = 0;
    for (;;) {
        bool more = str_split(&want, '/', &w);
        if (more && str_eq_c(w, "{*}"))
            return have.n > 0;
        if (str_split(&have, '/', &h) != more)
            return false;
        if (!more)
            return true;
        if (str_eq_c(w, "{}") && h.n > 0 && n < ARGS)
            args[n++] = h;
        else if (!str_eq(w, h))
            return false;
    }
}

/* Tells the tenant where it stands. False when this request is one too many. */
static bool within_rate(struct call *c)
{
    char text[96];
    struct ratelimit_state s = ratelimit_take(c->g->ratelimit, c->tenant, loop_now(c->g->loop));
    if (!s.limited)
        return true;
    snprintf(text, sizeof text, "\"tenant\";q=%lld;w=%lld", (long long)s.burst, (long long)s.window_s);
    http_set_header(c->req, "RateLimit-Policy", str_of(text));
    snprintf(text, sizeof text, "\"tenant\";r=%lld;t=%lld", (long long)s.remaining, (long long)s.reset_s);
    http_set_header(c->req, "RateLimit", str_of(text));
    return !s.refused;
}

/* RFC 6750, section 3.1. */
static void refuse_scope(struct call *c)
{
    char wanted[KEY_SCOPES_TEXT_BYTES], has[KEY_SCOPES_TEXT_BYTES], text[2 * KEY_SCOPES_TEXT_BYTES + 80];
    key_scopes_text(c->route->scopes, " ", wanted);
    snprintf(text, sizeof text, "Bearer realm=\"sandpiper\", error=\"insufficient_scope\", scope=\"%s\"",
             wanted);
    http_set_header(c->req, "WWW-Authenticate", str_of(text));
    key_scopes_text(c->route->scopes, " or ", wanted);
    key_scopes_text(c->scopes, ", ", has);
    snprintf(text, sizeof text, "this asks for a key with the scope %s; yours has: %s", wanted, has);
    call_fail_code(c, ERR_FORBIDDEN, text);
}

static void handle(struct call *c)
{
    struct err err = ERR_INIT;
    if (!c->route->open && !within_rate(c)) {
        call_fail_code(c, ERR_TOO_MANY,
                       "the tenant sends more requests than it may; RateLimit tells how many");
        return;
    }
    if (!c->route->open && !key_may(c->scopes, c->route->scopes))
        refuse_scope(c);
    else if (c->route->query != NULL &&
             http_query_check(c->req, (const char *const *)c->route->query, &err) != 0)
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

/* Longer than any id or name: matches none. */
static struct str take_arg(struct str arg, char *text, size_t text_bytes)
{
    str_copy(arg, text, text_bytes);
    return str_of(text);
}

static void dispatch(struct call *c, const struct route *r, const struct str args[ARGS])
{
    c->route = r;
    c->arg = take_arg(args[0], c->arg_text, sizeof c->arg_text);
    c->arg2 = take_arg(args[1], c->arg2_text, sizeof c->arg2_text);
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
    struct buf allow;
    buf_init(&allow, 128);
    for (const struct route *r = contract_routes(g->contract); r != NULL; r = r->next) {
        struct str args[ARGS] = {str_of(NULL), str_of(NULL)};
        if (!matches(r->path, http_path(req), args))
            continue;
        if (r->method == method || (r->method == HTTP_M_GET && method == HTTP_M_HEAD)) {
            buf_deinit(&allow);
            dispatch(c, r, args);
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
