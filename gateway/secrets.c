/* GET /v1/agents/{name}/secrets, PUT and DELETE /v1/agents/{name}/secrets/{secret}.
 *
 * A value is sealed before it leaves this file's stack of calls and is never read back: gateways have no key
 * that could. Setting one changes what the next attempts get (executors look each second); nothing is
 * deployed. */
#include "secrets.h"

#include <stdlib.h>

#include "json/json.h"
#include "json/writer.h"
#include "model/agent.h"
#include "store/secrets.h"

enum {
    STORE_MS = 5000,
    BODY_MAX = 6 * SECRET_VALUE_MAX_BYTES + 4096, /* every character escaped */
    SEALED_MAX = SECRET_VALUE_MAX_BYTES + SEAL_PLACE_OVERHEAD_BYTES,
    ANSWER_MAX = 64 * 1024,
};

/* ---- the list ---- */

static void on_list(void *arg, bool found, const struct secret_listed *list, size_t n, const struct err *err)
{
    struct call *c = arg;
    struct buf body;
    if (!call_leave(c))
        return;
    if (err != NULL) {
        call_fail_query(c, err);
        return;
    }
    if (!found) {
        call_fail_code(c, ERR_AGENT_NOT_FOUND, NULL);
        return;
    }
    buf_init(&body, ANSWER_MAX);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    jw_key(&w, "data");
    jw_array(&w);
    for (size_t i = 0; i < n; i++) {
        jw_object(&w);
        jw_kstr(&w, "name", list[i].name);
        jw_ktime(&w, "set_at", list[i].set_at);
        jw_object_end(&w);
    }
    jw_array_end(&w);
    jw_object_end(&w);
    call_reply_json(c, 200, &body);
}

void secrets_list_call(struct call *c)
{
    struct err err = ERR_INIT;
    if (!agent_slug_valid(c->arg)) {
        call_fail_code(c, ERR_AGENT_NOT_FOUND, NULL);
        return;
    }
    call_enter(c);
    if (secrets_list(c->g->read, c->tenant, c->arg, STORE_MS, on_list, c, &err) != 0 && call_leave(c))
        call_fail(c, &err);
}

/* ---- setting ---- */

static void on_put(void *arg, enum secret_put what, wall_t set_at, const struct err *err)
{
    struct call *c = arg;
    struct buf body;
    if (!call_leave(c))
        return;
    if (err != NULL) { /* it may be repeated: so that its outcome is not known is no news */
        call_fail_query(c, err);
        return;
    }
    switch (what) {
    case SECRET_SET:
        break;
    case SECRET_NO_AGENT:
        call_fail_code(c, ERR_AGENT_NOT_FOUND, NULL);
        return;
    case SECRET_TOO_MANY:
        call_fail_code(c, ERR_SECRETS_FULL, "an agent has at most 64 secrets: take one away first");
        return;
    case SECRET_TOO_MUCH:
        call_fail_code(c, ERR_SECRETS_FULL, "an agent's secrets may have 131072 bytes together");
        return;
    }
    buf_init(&body, ANSWER_MAX);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    jw_kstr(&w, "name", c->arg2);
    jw_ktime(&w, "set_at", set_at);
    jw_object_end(&w);
    call_reply_json(c, 200, &body);
}

_Static_assert(SECRETS_MAX == 64 && SECRETS_MAX_BYTES == 131072, "what the answers above say");

/* Appends the sealed value to out. */
static int read_value(struct call *c, struct str body, struct buf *out, int32_t *bytes_out, struct err *err)
{
    static const char *const known[] = {"value", NULL};
    const struct seal_place place = {.tenant = c->tenant, .agent = c->arg, .name = c->arg2};
    struct json *doc = json_parse(body, err);
    const struct json_value *root = json_root(doc);
    int rc = -1;
    if (doc == NULL)
        return -1;
    if (json_type_of(root) != JSON_OBJECT)
        err_set(err, ERR_BAD_JSON, "the body must be a JSON object: {\"value\": \"…\"}");
    else if (json_known_fields(root, known, err) == 0)
        rc = env_read_secret(&c->g->env_rules, &place, json_get(root, "value"), out, bytes_out, err);
    json_free_secret(&doc);
    return rc;
}

static void on_body(void *arg, struct http_request *req, struct str body)
{
    (void)req;
    struct call *c = arg;
    struct err err = ERR_INIT;
    struct buf sealed;
    int32_t bytes = 0;
    buf_init(&sealed, SEALED_MAX);
    if (read_value(c, body, &sealed, &bytes, &err) != 0) {
        call_fail(c, &err);
    } else {
        call_enter(c);
        if (secret_put(c->g->files, c->tenant, c->arg, c->arg2, str_of(c->g->env_rules.key.id),
                       buf_view(&sealed), bytes, STORE_MS, on_put, c, &err) != 0 &&
            call_leave(c))
            call_fail(c, &err);
    }
    buf_deinit(&sealed);
}

/* False: it was answered. */
static bool check_names(struct call *c)
{
    struct err err = ERR_INIT;
    if (!agent_slug_valid(c->arg)) {
        call_fail_code(c, ERR_AGENT_NOT_FOUND, NULL);
        return false;
    }
    if (env_name_check(c->arg2, &err) == 0)
        return true;
    call_fail(c, &err);
    return false;
}

void secret_put_call(struct call *c)
{
    struct err err = ERR_INIT;
    if (!check_names(c))
        return;
    if (call_json_type(c, &err) != 0) {
        call_fail(c, &err);
        return;
    }
    http_read_body(c->req, BODY_MAX, on_body, c);
    http_secret_body(c->req);
}

/* ---- taking away ---- */

static void on_deleted(void *arg, enum secret_deleted what, const struct err *err)
{
    struct call *c = arg;
    if (!call_leave(c))
        return;
    if (err != NULL)
        call_fail_query(c, err);
    else if (what == SECRET_NONE_NO_AGENT)
        call_fail_code(c, ERR_AGENT_NOT_FOUND, NULL);
    else if (what == SECRET_NONE)
        call_fail_code(c, ERR_NOT_FOUND, "the agent has no secret of that name");
    else
        call_reply_bytes(c, 204, NULL, STR(""));
}

void secret_delete_call(struct call *c)
{
    struct err err = ERR_INIT;
    if (!check_names(c))
        return;
    call_enter(c);
    if (secret_delete(c->g->files, c->tenant, c->arg, c->arg2, STORE_MS, on_deleted, c, &err) != 0 &&
        call_leave(c))
        call_fail(c, &err);
}
