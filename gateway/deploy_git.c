/* POST /v1/agents with {"name", "git_url", "ref"}: a version whose build clones a repository, inside its
 * sandbox. Nothing of it passes through here. What agent.json says is known when it is cloned. */
#include <stdlib.h>
#include <string.h>

#include "agents.h"
#include "deploy.h"
#include "store/agents.h"

enum { STORE_MS = 10000 };

struct git_deploy {
    struct call *c;
    char name[AGENT_SLUG_BYTES];
    struct git_source git;
    struct uuid version_id;
};

static void on_version(void *arg, struct uuid agent, int32_t version, const struct err *err)
{
    struct git_deploy *d = arg;
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
static struct agent_source source_of(const struct git_deploy *d)
{
    struct agent_source s = {.git = &d->git};
    struct crypto_sha256_state h;
    crypto_sha256_init(&h);
    crypto_sha256_update(&h, str_of(d->git.url));
    crypto_sha256_update(&h, STR("\n"));
    crypto_sha256_update(&h, str_of(d->git.ref));
    crypto_sha256_final(&h, s.archive_sha256);
    return s;
}

static int read_body(struct git_deploy *d, const struct json *doc, struct err *err)
{
    static const char *const known[] = {"name", "git_url", "ref", NULL};
    const struct json_value *root = json_root(doc);
    struct str name, url, ref;
    if (json_known_fields(root, known, err) != 0 || deploy_text(doc, "name", &name, err) != 0 ||
        deploy_text(doc, "git_url", &url, err) != 0 || deploy_text(doc, "ref", &ref, err) != 0)
        return -1;
    if (json_get(root, "name") == NULL || json_get(root, "git_url") == NULL)
        return err_set(err, ERR_MISSING_FIELD, "%s is required",
                       json_get(root, "name") == NULL ? "name" : "git_url");
    if (!agent_slug_valid(name))
        return err_set(err, ERR_BAD_FIELD, "name must be lower-case letters, digits and hyphens, at most 63");
    str_copy(name, d->name, sizeof d->name);
    return git_source_read(url, ref, &d->git, err);
}

void agent_deploy_git(struct call *c, const struct json *doc)
{
    struct err err = ERR_INIT;
    struct git_deploy *d = calloc(1, sizeof *d);
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
    const struct agent_source source = source_of(d);
    d->version_id = uuid_new();
    call_enter(c);
    if (agent_deploy(c->g->files, c->tenant, str_of(d->name), d->version_id, &source, STORE_MS, on_version, d,
                     &err) != 0 &&
        call_leave(c))
        call_fail(c, &err);
}
