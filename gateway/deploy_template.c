/* POST /v1/agents with {"name", "template", "manifest"}: a version that is a template of the provider's, with
 * what its install step adds. The snapshot that the build takes is what runs, so what becomes of the template
 * later changes nothing. Under its name there may be another one tomorrow: each call builds. */
#include <stdlib.h>

#include "agents.h"
#include "deploy.h"
#include "model/manifest.h"
#include "store/agents.h"
#include "store/templates.h"

enum { STORE_MS = 10000 };

/* ---- which may be named ---- */

struct check {
    char name[TEMPLATE_BYTES];
    deploy_template_fn *fn;
    void *arg;
};

static void on_ours(void *arg, bool ours, const struct err *err)
{
    struct check *k = arg;
    struct err refused = ERR_INIT;
    if (err == NULL && ours) {
        err_set(&refused, ERR_TEMPLATE,
                "%s is a version of an agent: only templates of your own making may be named", k->name);
        err = &refused;
    }
    k->fn(k->arg, err);
    free(k);
}

int deploy_template_check(struct gateway *g, const char *name, deploy_template_fn *fn, void *arg,
                          struct err *err)
{
    if (!template_allowed(g->settings->templates, str_of(name)))
        return err_set(err, ERR_TEMPLATE, "template %s is none of those that SANDPIPER_TEMPLATES allows",
                       name);
    struct check *k = calloc(1, sizeof *k);
    if (k == NULL || !str_copy(str_of(name), k->name, sizeof k->name)) {
        free(k);
        return err_set(err, ERR_NO_MEMORY, "no memory for a template");
    }
    k->fn = fn;
    k->arg = arg;
    if (template_ours(g->read, str_of(name), STORE_MS, on_ours, k, err) == 0)
        return 0;
    free(k);
    return -1;
}

/* ---- a deploy ---- */

struct template_deploy {
    struct call *c;
    char name[AGENT_SLUG_BYTES];
    struct manifest manifest;
    struct uuid version_id;
};

static void on_version(void *arg, struct uuid agent, int32_t version, const struct err *err)
{
    struct template_deploy *d = arg;
    struct call *c = d->c;
    if (err == NULL)
        deploy_enqueue(c, d->version_id, agent, version);
    if (!call_leave(c))
        return;
    if (err != NULL)
        call_fail(c, err);
    else
        agent_answer_deploy(c, str_of(d->name), version, 202);
}

/* The hash stands for the archive that there is none of. */
static struct agent_source source_of(const struct template_deploy *d)
{
    struct agent_source s = {.template = true, .manifest = &d->manifest};
    struct crypto_sha256_state h;
    crypto_sha256_init(&h);
    crypto_sha256_update(&h, str_of(d->manifest.template));
    crypto_sha256_final(&h, s.archive_sha256);
    return s;
}

static void on_checked(void *arg, const struct err *refused)
{
    struct template_deploy *d = arg;
    struct call *c = d->c;
    struct err err = ERR_INIT;
    if (refused == NULL) {
        const struct agent_source source = source_of(d);
        if (agent_deploy(c->g->files, c->tenant, str_of(d->name), d->version_id, &source, STORE_MS,
                         on_version, d, &err) == 0)
            return;
        refused = &err;
    }
    if (call_leave(c))
        call_fail_query(c, refused);
}

static int read_name(struct template_deploy *d, const struct json *doc, struct err *err)
{
    struct str name = str_of(d->manifest.name);
    if (json_get(json_root(doc), "name") != NULL && deploy_text(doc, "name", &name, err) != 0)
        return -1;
    if (name.n == 0 && json_get(json_root(doc), "name") == NULL)
        return err_set(err, ERR_MISSING_FIELD, "name is required, here or in the manifest");
    if (!agent_slug_valid(name))
        return err_set(err, ERR_BAD_FIELD, "name must be lower-case letters, digits and hyphens, at most 63");
    str_copy(name, d->name, sizeof d->name);
    return 0;
}

static int read_body(struct template_deploy *d, const struct json *doc, struct err *err)
{
    static const char *const known[] = {"name", "template", "manifest", NULL};
    const struct json_value *root = json_root(doc);
    struct str template;
    if (json_known_fields(root, known, err) != 0 || deploy_text(doc, "template", &template, err) != 0)
        return -1;
    if (json_get(root, "template") == NULL)
        return err_set(err, ERR_MISSING_FIELD, "template is required beside manifest");
    if (!template_valid(template))
        return err_set(err, ERR_BAD_FIELD, "template must be " TEMPLATE_FORM);
    if (manifest_of_template(doc, json_get(root, "manifest"), template, &d->manifest, err) != 0 ||
        manifest_check(&d->manifest, err) != 0)
        return -1;
    return read_name(d, doc, err);
}

void agent_deploy_template(struct call *c, const struct json *doc)
{
    struct err err = ERR_INIT;
    struct template_deploy *d = calloc(1, sizeof *d);
    if (d == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    d->c = c;
    c->data = d;
    c->free_data = free;
    if (read_body(d, doc, &err) != 0) {
        call_fail(c, &err);
        return;
    }
    d->version_id = uuid_new();
    call_enter(c);
    if (deploy_template_check(c->g, d->manifest.template, on_checked, d, &err) != 0 && call_leave(c))
        call_fail(c, &err);
}
