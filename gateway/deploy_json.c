/* POST /v1/agents with a JSON body: it names a repository or a template, and nothing is uploaded. */
#include "agents.h"
#include "deploy.h"
#include "model/manifest.h"

enum { BODY_MAX = MANIFEST_BYTES + 16 * 1024 };

int deploy_text(const struct json *doc, const char *key, struct str *out, struct err *err)
{
    const struct json_value *v = json_get(json_root(doc), key);
    *out = str_of(NULL);
    if (v == NULL || json_str(v, out))
        return 0;
    return err_set(err, ERR_BAD_FIELD, "%s must be a string", key);
}

static void choose(struct call *c, const struct json *doc)
{
    const struct json_value *root = json_root(doc);
    bool template = json_get(root, "template") != NULL || json_get(root, "manifest") != NULL;
    if (json_type_of(root) != JSON_OBJECT)
        call_fail_code(c, ERR_BAD_JSON, "the body must be a JSON object");
    else if (template && json_get(root, "git_url") != NULL)
        call_fail_code(
            c, ERR_BAD_FIELD,
            "give git_url or template, not both: a repository names the template that it is built on "
            "in its agent.json");
    else if (template)
        agent_deploy_template(c, doc);
    else
        agent_deploy_git(c, doc);
}

static void on_body(void *arg, struct http_request *req, struct str body)
{
    (void)req;
    struct call *c = arg;
    struct err err = ERR_INIT;
    struct json *doc = json_parse(body, &err);
    if (doc != NULL)
        choose(c, doc);
    else
        call_fail(c, &err);
    json_free(&doc);
}

void agent_deploy_json(struct call *c)
{
    http_read_body(c->req, BODY_MAX, on_body, c);
}
