/* POST /v1/invocations/{id}/retry: an ended invocation once more, as a new one that names it.
 *
 *   body -> what is repeated is read -> (the version that serves is looked up) -> as any submission
 * (submit.h)
 *
 * The new one has the old one's agent, version, prompt, limits, priority, metadata, retry rules, webhook
 * and environment (still sealed: it is bound to tenant and agent, not to the id); it belongs to no batch and
 * begins at once. A large prompt is copied inside PostgreSQL, so that it never passes through here. */
#include <stdio.h>
#include <stdlib.h>

#include "invocations.h"
#include "store/retry_source.h"
#include "submit.h"

enum { STORE_MS = 5000, BODY_MAX_BYTES = 4096, KEPT_BYTES = 288 * 1024 };

struct retry {
    struct submit s; /* first: the call's data */
    bool serving;    /* with the version that serves now */
};

/* ---- the body ---- */

static int read_body(struct retry *r, struct str body, struct err *err)
{
    static const char *const known[] = {"version", NULL};
    struct str version = STR("same");
    struct json *doc = json_parse(body.n > 0 ? body : STR("{}"), err);
    const struct json_value *root = json_root(doc), *v = json_get(root, "version");
    int rc = 0;
    if (doc == NULL)
        return -1;
    if (json_type_of(root) != JSON_OBJECT)
        rc = err_set(err, ERR_BAD_JSON, "the body must be a JSON object, or nothing");
    else if (json_known_fields(root, known, err) != 0)
        rc = -1;
    else if (v != NULL &&
             (!json_str(v, &version) || (!str_eq_c(version, "same") && !str_eq_c(version, "serving"))))
        rc = err_set(err, ERR_BAD_FIELD,
                     "version must be \"same\", the one that ran, or \"serving\", the one that serves now");
    r->serving = rc == 0 && str_eq_c(version, "serving");
    json_free(&doc);
    return rc;
}

/* ---- what is repeated ---- */

static bool keep(struct arena *arena, struct str from, struct str *out)
{
    const char *copy = from.n > 0 ? arena_dup(arena, from) : "";
    *out = str_make(copy, from.n);
    return copy != NULL;
}

static bool keep_hook(struct submit *s, const struct retry_source *source)
{
    s->hook = source->hooked ? calloc(1, sizeof *s->hook) : NULL;
    if (s->hook == NULL)
        return !source->hooked;
    s->hook->hook = source->hook;
    s->sub.hook = &s->hook->hook;
    return keep(s->arena, source->hook.url, &s->hook->hook.url);
}

/* The source's views die with the query. */
static bool take(struct submit *s, const struct retry_source *source)
{
    struct submission *sub = &s->sub;
    sub->priority = source->priority;
    sub->timeout_ms = source->timeout_ms;
    sub->queue_timeout_ms = source->queue_timeout_ms;
    sub->max_attempts = source->max_attempts;
    sub->retry_on = source->retry_on;
    sub->files = source->files; /* the same set: nothing is copied */
    if (source->prompt_bytes > INV_INLINE_BYTES)
        sub->prompt_copied = source->prompt_bytes;
    if (!sub->trace.present)
        traceparent_parse(source->traceparent, &sub->trace);
    s->arena = arena_new(KEPT_BYTES);
    return s->arena != NULL && keep(s->arena, source->slug, &s->agent.slug) &&
           keep(s->arena, source->prompt, &sub->prompt) && keep(s->arena, source->metadata, &sub->metadata) &&
           keep(s->arena, source->env, &sub->env) && keep(s->arena, source->env_key, &sub->env_key) &&
           keep_hook(s, source);
}

static void on_source(void *arg, const struct retry_source *source, const struct err *err)
{
    struct retry *r = arg;
    struct call *c = r->s.c;
    if (!call_leave(c))
        return;
    if (err != NULL) {
        call_fail_query(c, err);
    } else if (source == NULL) {
        call_fail_code(c, ERR_NOT_FOUND, "there is no invocation of that id");
    } else if (!inv_state_ended(source->state)) {
        call_fail_code(c, ERR_CONFLICT, "it has not ended: wait for its end, or cancel it first");
    } else if (!take(&r->s, source)) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
    } else {
        target_resolve(c->g->targets, c, r->s.agent.slug, r->serving ? 0 : source->version, submit_target);
    }
}

static void on_body(void *arg, struct http_request *req, struct str body)
{
    (void)req;
    struct retry *r = arg;
    struct call *c = r->s.c;
    struct err err = ERR_INIT;
    if (read_body(r, body, &err) != 0) {
        call_fail(c, &err);
        return;
    }
    if (r->s.key != NULL) {
        char id[ID_TEXT_BYTES], path[ID_TEXT_BYTES + 40];
        id_format("inv", r->s.sub.retry_of, id);
        snprintf(path, sizeof path, "POST /v1/invocations/%s/retry", id);
        submit_fingerprint(&r->s, path, body);
    }
    call_enter(c);
    if (retry_source_get(c->g->read, r->s.sub.retry_of, c->tenant, STORE_MS, on_source, r, &err) != 0 &&
        call_leave(c))
        call_fail(c, &err);
}

void invocation_retry(struct call *c)
{
    struct uuid id;
    struct retry *r;
    struct err err = ERR_INIT;
    if (!invocation_id(c, &id))
        return;
    r = (struct retry *)submit_new(c, sizeof *r);
    if (r == NULL)
        return;
    r->s.sub.retry_of = id;
    if (call_json_type(c, &err) != 0)
        call_fail(c, &err);
    else
        http_read_body(c->req, BODY_MAX_BYTES, on_body, r);
}
