/* Sandboxes' lives: create, destroy, time to live, snapshots.
 *
 * Create is not idempotent and has no key to make it so. Each carries a nonce in its metadata. When an answer
 * is ambiguous (timed out, broken off, 5xx other than 503, unreadable), the service is asked for sandboxes
 * with that nonce and all of them are destroyed before the failure is told; it is asked twice, a second
 * apart, because a sandbox may still be on its way, and a few times more when it does not answer that. A
 * create that its owner cancels goes on unowned until its answer, and what it made is destroyed.
 *
 * The other calls are idempotent and are repeated, with backoff, until their deadline. */
#include <stdio.h>
#include <stdlib.h>

#include "sandbox/e2b.h"

enum {
    BODY_BYTES = 8192,
    PATH_BYTES = 1024,
    RECONCILE_MS = 20000,
    LOOK_AGAIN_MS = 1000,
    LOOKS = 2,
    LOOKS_FAILED = 5
};

/* ---- create ---- */

enum create_state {
    CREATE_WAITING, /* for the probe */
    CREATE_SENT,
    CREATE_LOOKING,  /* listing by nonce; or between two lists */
    CREATE_REMOVING, /* destroying what the list named */
};

struct create {
    struct e2b_request r;
    enum create_state state;
    bool orphaned; /* its owner canceled: nobody to tell */
    sandbox_created_fn *fn;
    void *arg;
    char *template_id;              /* owned */
    struct sandbox_create spec;     /* its template_id leads to the copy */
    struct sandbox_failure failure; /* told after the reconciliation */
    int looks, looks_failed;
    wall_t sent_at;
    struct sandbox_request *child; /* the list */
    int removing, not_removed;
};

static void create_release(struct e2b_request *r)
{
    struct create *c = (struct create *)r;
    sandbox_cancel(&c->child);
    free(c->template_id);
}

static void create_finish(struct create *c, const struct sandbox *sandbox,
                          const struct sandbox_failure *failure)
{
    if (!c->orphaned)
        c->fn(c->arg, sandbox, failure);
    else if (sandbox != NULL)
        e2b_destroy(&c->r.e2b->base, sandbox->id, E2B_TRY_MS * 2, NULL, NULL);
    e2b_request_free(&c->r);
}

static void create_cancel(struct sandbox_request *r)
{
    struct create *c = (struct create *)r;
    if (c->state == CREATE_WAITING)
        e2b_request_free(&c->r);
    else
        c->orphaned = true;
}

/* ---- create: reconciliation ---- */

static void create_look(struct e2b_request *r);

static void create_failed_check(struct create *c)
{
    if (c->not_removed > 0) {
        struct err *err = &c->failure.err;
        err_wrap(err, "%d sandboxes of this create could not be removed and are left to the reaper",
                 c->not_removed);
    }
    create_finish(c, NULL, &c->failure);
}

static void on_removed(void *arg, const struct sandbox_failure *failure)
{
    struct create *c = arg;
    c->not_removed += failure != NULL;
    if (--c->removing == 0)
        create_failed_check(c);
}

/* Its life is told by the service's clock where that makes sense, else by ours. */
static void remember_made(struct create *c, const struct sandbox_listed *item)
{
    int64_t now_us = wall_now().us, most_ms = (now_us - c->sent_at.us) / 1000;
    int64_t ms = (now_us - item->started_at.us) / 1000;
    str_copy(str_of(item->id), c->failure.made, sizeof c->failure.made);
    c->failure.made_ms = ms >= 0 && ms < most_ms ? ms : most_ms;
}

/* The create outlives these calls: it is freed only when the last has answered, or with the whole provider.
 */
static bool create_remove(struct create *c, const struct sandbox_listed *items, size_t count)
{
    c->state = CREATE_REMOVING;
    remember_made(c, &items[0]);
    for (size_t i = 0; i < count; i++) {
        bool begun = e2b_destroy(&c->r.e2b->base, items[i].id, RECONCILE_MS, on_removed, c) != NULL;
        c->not_removed += !begun;
        c->removing += begun;
    }
    return c->removing > 0;
}

static void on_looked(void *arg, const struct sandbox_listed *items, size_t count,
                      const struct sandbox_failure *failure)
{
    struct create *c = arg;
    c->child = NULL;
    c->looks += failure == NULL;
    c->looks_failed += failure != NULL;
    if (count > 0) {
        if (!create_remove(c, items, count))
            create_failed_check(c);
    } else if (failure != NULL && failure->retry == RETRY_LATER && c->looks_failed < LOOKS_FAILED) {
        int64_t wait_ms = failure->retry_after_ms > 0 ? failure->retry_after_ms : 0;
        e2b_after(&c->r, wait_ms + e2b_backoff_ms(c->looks_failed), create_look);
    } else if (failure == NULL && c->looks < LOOKS) {
        e2b_after(&c->r, LOOK_AGAIN_MS, create_look);
    } else {
        if (failure != NULL)
            err_wrap(&c->failure.err, "what it made could not be looked up and is left to the reaper");
        create_finish(c, NULL, &c->failure);
    }
}

static void create_look(struct e2b_request *r)
{
    struct create *c = (struct create *)r;
    c->state = CREATE_LOOKING;
    c->child = e2b_list(&r->e2b->base, c->spec.deployment, c->spec.nonce, RECONCILE_MS, on_looked, c);
    if (c->child == NULL)
        create_finish(c, NULL, &c->failure);
}

/* ---- create: the call ---- */

/* Fit for headers and addresses: visible ASCII alone. */
static bool is_plain(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] >= 0x7f)
            return false;
    return true;
}

static bool copy_member(const struct json_value *root, const char *key, char *out, size_t out_bytes)
{
    struct str text;
    if (!json_str(json_get(root, key), &text))
        return true; /* absent or null */
    return is_plain(text) && str_copy(text, out, out_bytes);
}

static bool read_sandbox(struct str body, struct sandbox *out)
{
    struct json *doc = json_parse(body, NULL);
    if (doc == NULL)
        return false;
    const struct json_value *root = json_root(doc);
    *out = (struct sandbox){.id = ""};
    bool fine = copy_member(root, "sandboxID", out->id, sizeof out->id) && out->id[0] != '\0' &&
                copy_member(root, "envdAccessToken", out->token, sizeof out->token) &&
                copy_member(root, "domain", out->domain, sizeof out->domain) &&
                copy_member(root, "envdVersion", out->envd_version, sizeof out->envd_version);
    json_free(&doc);
    return fine;
}

static void on_created(struct e2b_request *r, const struct http_response *answer, const struct err *err)
{
    struct create *c = (struct create *)r;
    struct sandbox sandbox;
    if (err == NULL && answer->status / 100 == 2 && read_sandbox(answer->body, &sandbox)) {
        create_finish(c, &sandbox, NULL);
        return;
    }
    c->failure = e2b_failure(answer, err, false);
    if (c->failure.retry == RETRY_CHECK)
        create_look(r);
    else
        create_finish(c, NULL, &c->failure);
}

static void write_id(struct json_writer *w, const char *key, struct uuid id)
{
    char text[UUID_TEXT_BYTES];
    uuid_format(id, text);
    jw_kcstr(w, key, text);
}

static void create_body(const struct create *c, struct buf *out)
{
    struct json_writer w = json_writer(out);
    jw_object(&w);
    jw_kcstr(&w, "templateID", c->spec.template_id);
    jw_kint(&w, "timeout", (c->spec.ttl_ms + 999) / 1000);
    jw_key(&w, "metadata");
    jw_object(&w);
    write_id(&w, "deployment", c->spec.deployment);
    write_id(&w, "executor_boot", c->spec.executor_boot);
    write_id(&w, "nonce", c->spec.nonce);
    jw_object_end(&w);
    jw_kbool(&w, "allow_internet_access", !c->spec.no_internet);
    if (c->r.e2b->probe == E2B_V1)
        jw_kbool(&w, "secure", true); /* the second version has no such field: always secure */
    jw_object_end(&w);
}

static void create_send(struct create *c)
{
    struct buf body;
    buf_init(&body, BODY_BYTES);
    create_body(c, &body);
    e2b_timer_stop(&c->r);
    c->sent_at = wall_now();
    c->state = CREATE_SENT;
    struct e2b_control call = {
        .method = "POST",
        .path = c->r.e2b->probe == E2B_V1 ? "/sandboxes" : "/v2/sandboxes",
        .json = buf_view(&body),
        .timeout_ms = e2b_left_ms(&c->r),
        .once = true,
    };
    e2b_control(&c->r, &call, on_created);
    buf_deinit(&body);
}

static void create_late(struct e2b_request *r)
{
    struct sandbox_failure f = e2b_failure_make(ERR_IO, RETRY_LATER, "the sandbox service does not answer");
    create_finish((struct create *)r, NULL, &f);
}

void e2b_creates_go(struct e2b *e2b)
{
    for (struct e2b_request *r = e2b->requests; r != NULL; r = r->next) {
        struct create *c = (struct create *)r;
        if (r->release == create_release && c->state == CREATE_WAITING)
            create_send(c);
    }
}

static void create_no_template(struct e2b_request *r)
{
    struct sandbox_failure f =
        e2b_failure_make(ERR_BAD_REQUEST, RETRY_NEVER, "the template's name is unusable");
    create_finish((struct create *)r, NULL, &f);
}

struct sandbox_request *e2b_create(struct provider *p, const struct sandbox_create *spec,
                                   sandbox_created_fn *fn, void *arg)
{
    struct create *c = e2b_request_new(p, sizeof *c, spec->deadline_ms);
    if (c == NULL)
        return NULL;
    c->r.release = create_release;
    c->r.base.cancel = create_cancel;
    c->fn = fn;
    c->arg = arg;
    c->spec = *spec;
    c->template_id = str_dup(str_of(spec->template_id));
    if (c->template_id == NULL) {
        e2b_request_free(&c->r);
        return NULL;
    }
    c->spec.template_id = c->template_id;
    if (strlen(c->template_id) > 1024 || !str_is_utf8(str_of(c->template_id)))
        e2b_after(&c->r, 0, create_no_template);
    else if (c->r.e2b->probe == E2B_PROBING)
        e2b_after(&c->r, spec->deadline_ms, create_late);
    else
        create_send(c);
    return &c->r.base;
}

/* ---- calls that are repeated until they succeed: destroy, time to live, snapshots' deletion ---- */

struct repeated {
    struct e2b_request r;
    sandbox_done_fn *fn; /* NULL: nobody waits */
    void *arg;
    const char *method;
    bool gone_is_done; /* 404 is success */
    char path[PATH_BYTES];
    char body[64];
};

static void repeated_finish(struct repeated *c, const struct sandbox_failure *failure)
{
    if (c->fn != NULL)
        c->fn(c->arg, failure);
    e2b_request_free(&c->r);
}

static bool is_passing(const struct http_response *answer, const struct err *err)
{
    if (err != NULL)
        return err->code != ERR_BAD_REQUEST;
    int s = answer->status;
    return s >= 500 || s == 429 || s == 409 || s == 408 || s == 401;
}

static void repeated_send(struct e2b_request *r);

static void on_repeated(struct e2b_request *r, const struct http_response *answer, const struct err *err)
{
    struct repeated *c = (struct repeated *)r;
    if (err == NULL && (answer->status / 100 == 2 || (answer->status == 404 && c->gone_is_done))) {
        repeated_finish(c, NULL);
        return;
    }
    int64_t pause = e2b_backoff_ms(++r->tries);
    if (err == NULL && answer->retry_after_sec > 0)
        pause += answer->retry_after_sec * 1000;
    if (is_passing(answer, err) && e2b_left_ms(r) > pause) {
        e2b_after(r, pause, repeated_send);
        return;
    }
    struct sandbox_failure f = e2b_failure(answer, err, false);
    f.sandbox_gone = err == NULL && answer->status == 404;
    repeated_finish(c, &f);
}

static void repeated_send(struct e2b_request *r)
{
    struct repeated *c = (struct repeated *)r;
    int64_t left = e2b_left_ms(r);
    struct e2b_control call = {
        .method = c->method,
        .path = c->path,
        .json = str_of(c->body),
        .timeout_ms = left < E2B_TRY_MS ? left : E2B_TRY_MS,
    };
    e2b_control(r, &call, on_repeated);
}

static void repeated_bad(struct e2b_request *r)
{
    struct sandbox_failure f = e2b_failure_make(ERR_BAD_REQUEST, RETRY_NEVER, "an unusable id");
    repeated_finish((struct repeated *)r, &f);
}

/* prefix + encoded id + suffix; false when it does not fit. */
static bool make_path(char *out, size_t out_bytes, const char *prefix, const char *id, const char *suffix)
{
    struct buf b;
    buf_init(&b, out_bytes - 1);
    buf_cstr_append(&b, prefix);
    e2b_encode(str_of(id), &b);
    buf_cstr_append(&b, suffix);
    bool fine = !b.failed && id[0] != '\0' && str_copy(buf_view(&b), out, out_bytes);
    buf_deinit(&b);
    return fine;
}

static struct repeated *repeated_new(struct provider *p, int64_t deadline_ms, sandbox_done_fn *fn, void *arg)
{
    struct repeated *c = e2b_request_new(p, sizeof *c, deadline_ms);
    if (c == NULL)
        return NULL;
    c->fn = fn;
    c->arg = arg;
    return c;
}

static struct sandbox_request *repeated_start(struct repeated *c, bool path_is_fine)
{
    if (path_is_fine)
        repeated_send(&c->r);
    else
        e2b_after(&c->r, 0, repeated_bad);
    return &c->r.base;
}

struct sandbox_request *e2b_destroy(struct provider *p, const char *sandbox_id, int64_t deadline_ms,
                                    sandbox_done_fn *fn, void *arg)
{
    struct repeated *c = repeated_new(p, deadline_ms, fn, arg);
    if (c == NULL)
        return NULL;
    c->method = "DELETE";
    c->gone_is_done = true;
    return repeated_start(c, make_path(c->path, sizeof c->path, "/sandboxes/", sandbox_id, ""));
}

struct sandbox_request *e2b_set_ttl(struct provider *p, const char *sandbox_id, int64_t ttl_ms,
                                    int64_t deadline_ms, sandbox_done_fn *fn, void *arg)
{
    struct repeated *c = repeated_new(p, deadline_ms, fn, arg);
    if (c == NULL)
        return NULL;
    c->method = "POST";
    snprintf(c->body, sizeof c->body, "{\"timeout\":%lld}", (long long)((ttl_ms + 999) / 1000));
    return repeated_start(c, make_path(c->path, sizeof c->path, "/sandboxes/", sandbox_id, "/timeout"));
}

struct sandbox_request *e2b_snapshot_delete(struct provider *p, const char *snapshot_id, int64_t deadline_ms,
                                            sandbox_done_fn *fn, void *arg)
{
    struct repeated *c = repeated_new(p, deadline_ms, fn, arg);
    if (c == NULL)
        return NULL;
    c->method = "DELETE";
    c->gone_is_done = true;
    return repeated_start(c, make_path(c->path, sizeof c->path, "/templates/", snapshot_id, ""));
}

/* ---- snapshots ---- */

struct snapshot {
    struct e2b_request r;
    sandbox_snapshot_fn *fn;
    void *arg;
};

static void on_snapshot(struct e2b_request *r, const struct http_response *answer, const struct err *err)
{
    struct snapshot *s = (struct snapshot *)r;
    char id[256] = "";
    struct json *doc = err == NULL && answer->status / 100 == 2 ? json_parse(answer->body, NULL) : NULL;
    bool fine = doc != NULL && copy_member(json_root(doc), "snapshotID", id, sizeof id) && id[0] != '\0';
    json_free(&doc);
    struct sandbox_failure f = {0};
    if (!fine)
        f = e2b_failure(answer, err, false);
    f.sandbox_gone = err == NULL && answer->status == 404;
    s->fn(s->arg, fine ? id : NULL, fine ? NULL : &f);
    e2b_request_free(r);
}

struct sandbox_request *e2b_snapshot(struct provider *p, const struct sandbox *sandbox, const char *name,
                                     int64_t deadline_ms, sandbox_snapshot_fn *fn, void *arg)
{
    struct snapshot *s = e2b_request_new(p, sizeof *s, deadline_ms);
    if (s == NULL)
        return NULL;
    s->fn = fn;
    s->arg = arg;
    char path[PATH_BYTES];
    if (!make_path(path, sizeof path, "/sandboxes/", sandbox->id, "/snapshots"))
        path[0] = '\0'; /* answered 404 by any service */
    struct buf body;
    buf_init(&body, BODY_BYTES);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    if (name != NULL)
        jw_kcstr(&w, "name", name);
    jw_object_end(&w);
    struct e2b_control call = {
        .method = "POST", .path = path, .json = buf_view(&body), .timeout_ms = deadline_ms, .once = true};
    e2b_control(&s->r, &call, on_snapshot);
    buf_deinit(&body);
    return &s->r.base;
}
