/* Standing endpoints. A secret is shown by the answer that made it, and by no other. */
#include "webhooks.h"

#include <stdlib.h>
#include <string.h>

#include "json/writer.h"
#include "page.h"

enum {
    STORE_MS = 5000,
    BODY_BYTES = 64 * 1024,
    ANSWER_BYTES = 1024 * 1024,
    DESCRIPTION_MAX = 1000,
    LIST_MAX = 200,
    OVERLAP_DEFAULT_S = 24 * 3600,
    OVERLAP_MAX_S = 7 * 24 * 3600,
};
#define LIST_SCOPE STR("webhooks")

/* ---- what the handlers share ---- */

bool webhook_id_of(struct call *c, struct uuid *id)
{
    if (id_parse("whk", c->arg, id))
        return true;
    call_fail_code(c, ERR_NOT_FOUND, "not a webhook's id: they look like whk_…");
    return false;
}

void webhook_poke(struct call *c, struct uuid event)
{
    struct buf done;
    buf_init(&done, 64);
    queue_done_put(&done, event, INV_NONE, true);
    queue_release(c->g->queue, c->g->boot, NULL, 0, buf_view(&done), NULL, NULL);
    buf_deinit(&done);
}

struct body {
    struct call *c;
    webhook_body_fn *fn;
    struct json *doc;
    struct http_body *text;
};

static void body_free(void *data)
{
    struct body *b = data;
    json_free(&b->doc);
    http_body_free(&b->text);
    free(b);
}

static void on_body(void *arg, struct http_request *req, struct str text)
{
    struct body *b = arg;
    struct err err = ERR_INIT;
    b->text = http_body_take(req);
    if (b->text == NULL)
        err_set(&err, ERR_OVERLOADED, "no memory");
    else
        b->doc = json_parse(text.n > 0 ? http_body_view(b->text) : STR("{}"), &err);
    if (b->doc != NULL && json_type_of(json_root(b->doc)) != JSON_OBJECT)
        err_set(&err, ERR_BAD_JSON, "the body must be a JSON object");
    if (err.code != ERR_NONE)
        call_fail(b->c, &err);
    else
        b->fn(b->c, b->doc);
}

void webhook_read_body(struct call *c, webhook_body_fn *fn)
{
    struct body *b = calloc(1, sizeof *b);
    if (b == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    *b = (struct body){.c = c, .fn = fn};
    c->data = b;
    c->free_data = body_free;
    http_read_body(c->req, BODY_BYTES, on_body, b);
}

/* ---- answers ---- */

struct answer {
    struct call *c;
    int status;
    bool listed; /* else one */
    struct page page;
    char secret[WEBHOOK_SECRET_TEXT_BYTES]; /* to be shown, or empty */
};

static void write_endpoint(struct json_writer *w, const struct webhook_endpoint *e, const char *secret)
{
    jw_object(w);
    jw_kid(w, "id", "whk", e->id);
    if (e->url.n > 0)
        jw_kstr(w, "url", e->url);
    else
        jw_knull(w, "url");
    jw_kbool(w, "stream", e->url.n == 0);
    jw_key(w, "events");
    webhook_filter_write(w, e->events);
    jw_kstr(w, "description", e->description);
    jw_kcstr(w, "status", e->enabled ? "enabled" : "disabled");
    if (e->disabled_reason.n > 0)
        jw_kstr(w, "disabled_reason", e->disabled_reason);
    else
        jw_knull(w, "disabled_reason");
    jw_ktime(w, "disabled_at", e->disabled_at);
    jw_ktime(w, "failing_since", e->failing_since);
    jw_ktime(w, "previous_secret_expires_at", e->previous_until);
    jw_ktime(w, "created_at", e->created_at);
    if (secret[0] != '\0')
        jw_kcstr(w, "secret", secret);
    jw_object_end(w);
}

static void write_row(const void *rows, size_t i, struct json_writer *w)
{
    const struct webhook_endpoint *list = rows;
    write_endpoint(w, &list[i], "");
}

static struct str place_of(const void *rows, size_t i)
{
    const struct webhook_endpoint *list = rows;
    return str_make((const char *)list[i].id.b, sizeof list[i].id.b);
}

static void answer_one(const struct answer *a, const struct webhook_endpoint *e)
{
    struct buf body;
    buf_init(&body, ANSWER_BYTES);
    struct json_writer w = json_writer(&body);
    write_endpoint(&w, e, a->secret);
    call_reply_json(a->c, a->status, &body);
}

static void answer_free(struct answer *a)
{
    crypto_wipe(a->secret, sizeof a->secret);
    free(a);
}

static void on_endpoints(void *arg, const struct webhook_endpoint *list, size_t n, const struct err *err)
{
    struct answer *a = arg;
    const struct page_rows rows = {.rows = list, .n = n, .write = write_row, .place = place_of};
    if (!call_leave(a->c)) {
        answer_free(a);
        return;
    }
    if (err != NULL)
        call_fail(a->c, err);
    else if (a->listed)
        page_reply(a->c, &a->page, "data", &rows, ANSWER_BYTES);
    else if (n == 0 && a->status == 201)
        call_fail_code(a->c, ERR_CONFLICT, "a tenant has 50 endpoints at most; delete one first");
    else if (n == 0)
        call_fail_code(a->c, ERR_NOT_FOUND, "there is no webhook of that id");
    else if (a->status == 204)
        call_reply_bytes(a->c, 204, NULL, STR(""));
    else
        answer_one(a, &list[0]);
    answer_free(a);
}

/* Before a store call that answers by on_endpoints. */
static struct answer *answer_new(struct call *c, int status)
{
    struct answer *a = calloc(1, sizeof *a);
    if (a == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return NULL;
    }
    *a = (struct answer){.c = c, .status = status};
    call_enter(c);
    return a;
}

static void answer_refused(struct answer *a, const struct err *err)
{
    struct call *c = a->c;
    answer_free(a);
    if (call_leave(c))
        call_fail(c, err);
}

/* ---- making and changing ---- */

static int read_description(const struct json_value *root, struct str *out, struct err *err)
{
    const struct json_value *v = json_get(root, "description");
    if (v != NULL && (!json_str(v, out) || out->n > DESCRIPTION_MAX))
        return err_set(err, ERR_BAD_FIELD, "description must be a string of at most %d bytes",
                       DESCRIPTION_MAX);
    return 0;
}

static int read_events(const struct json_value *root, int32_t *out, struct err *err)
{
    const struct json_value *v = json_get(root, "events");
    return v == NULL ? 0 : webhook_filter_read(v, out, err);
}

static int read_new(const struct call *c, const struct json_value *root, struct webhook_new *w,
                    char secret[WEBHOOK_SECRET_TEXT_BYTES], struct err *err)
{
    static const char *const known[] = {"url", "stream", "events", "description", "secret", NULL};
    const struct webhook_rules *rules = &c->g->webhook_rules;
    bool stream = false;
    *w = (struct webhook_new){.id = uuid_new(), .events = WEBHOOK_FILTER_ALL};
    if (json_known_fields(root, known, err) != 0)
        return -1;
    if (json_get(root, "stream") != NULL && !json_bool(json_get(root, "stream"), &stream))
        return err_set(err, ERR_BAD_FIELD, "stream must be true or false");
    if (stream && json_get(root, "url") != NULL)
        return err_set(err, ERR_BAD_FIELD, "a stream has no url");
    if ((!stream && webhook_read_url(rules, json_get(root, "url"), &w->url, err) != 0) ||
        read_events(root, &w->events, err) != 0 || read_description(root, &w->description, err) != 0)
        return -1;
    return webhook_read_secret(rules, json_get(root, "secret"), &w->secret, secret, err);
}

static void create(struct call *c, const struct json *doc)
{
    struct err err = ERR_INIT;
    struct webhook_new w;
    struct answer *a = answer_new(c, 201);
    if (a == NULL)
        return;
    if (read_new(c, json_root(doc), &w, a->secret, &err) != 0 ||
        webhook_create(c->g->files, c->tenant, &w, STORE_MS, on_endpoints, a, &err) != 0)
        answer_refused(a, &err);
}

void webhook_create_call(struct call *c)
{
    webhook_read_body(c, create);
}

static int read_change(const struct call *c, const struct json_value *root, struct webhook_change *w,
                       bool *enabled, struct err *err)
{
    static const char *const known[] = {"url", "events", "description", "enabled", NULL};
    const struct json_value *v = json_get(root, "enabled");
    *w = (struct webhook_change){0};
    if (json_known_fields(root, known, err) != 0)
        return -1;
    if (v != NULL && !json_bool(v, enabled))
        return err_set(err, ERR_BAD_FIELD, "enabled must be true or false");
    w->enabled = v != NULL ? enabled : NULL;
    if (json_get(root, "url") != NULL &&
        webhook_read_url(&c->g->webhook_rules, json_get(root, "url"), &w->url, err) != 0)
        return -1;
    return read_events(root, &w->events, err) == 0 ? read_description(root, &w->description, err) : -1;
}

static void change(struct call *c, const struct json *doc)
{
    struct err err = ERR_INIT;
    struct webhook_change w;
    struct uuid id;
    bool enabled;
    if (!webhook_id_of(c, &id))
        return;
    struct answer *a = answer_new(c, 200);
    if (a != NULL && (read_change(c, json_root(doc), &w, &enabled, &err) != 0 ||
                      webhook_change(c->g->files, c->tenant, id, &w, STORE_MS, on_endpoints, a, &err) != 0))
        answer_refused(a, &err);
}

void webhook_change_call(struct call *c)
{
    webhook_read_body(c, change);
}

static void enable(struct call *c, const struct json *doc)
{
    static const char *const none[] = {NULL};
    struct err err = ERR_INIT;
    bool enabled = true;
    const struct webhook_change w = {.enabled = &enabled};
    struct uuid id;
    if (!webhook_id_of(c, &id))
        return;
    struct answer *a = answer_new(c, 200);
    if (a != NULL && (json_known_fields(json_root(doc), none, &err) != 0 ||
                      webhook_change(c->g->files, c->tenant, id, &w, STORE_MS, on_endpoints, a, &err) != 0))
        answer_refused(a, &err);
}

void webhook_enable(struct call *c)
{
    webhook_read_body(c, enable);
}

static int read_rotation(const struct call *c, const struct json *doc, struct webhook_sealed *sealed,
                         char secret[WEBHOOK_SECRET_TEXT_BYTES], int64_t *overlap_s, struct err *err)
{
    static const char *const known[] = {"secret", "overlap_s", NULL};
    const struct json_value *root = json_root(doc), *v = json_get(root, "overlap_s");
    *overlap_s = OVERLAP_DEFAULT_S;
    if (json_known_fields(root, known, err) != 0)
        return -1;
    if (v != NULL && (!json_int(doc, v, overlap_s) || *overlap_s < 0 || *overlap_s > OVERLAP_MAX_S))
        return err_set(err, ERR_BAD_FIELD, "overlap_s must be a whole number from 0 to %d", OVERLAP_MAX_S);
    return webhook_read_secret(&c->g->webhook_rules, json_get(root, "secret"), sealed, secret, err);
}

static void rotate(struct call *c, const struct json *doc)
{
    struct err err = ERR_INIT;
    struct webhook_sealed sealed = {0};
    struct uuid id;
    int64_t overlap_s;
    if (!webhook_id_of(c, &id))
        return;
    struct answer *a = answer_new(c, 200);
    if (a != NULL && (read_rotation(c, doc, &sealed, a->secret, &overlap_s, &err) != 0 ||
                      webhook_rotate(c->g->files, c->tenant, id, &sealed, overlap_s * 1000, STORE_MS,
                                     on_endpoints, a, &err) != 0))
        answer_refused(a, &err);
}

void webhook_rotate_call(struct call *c)
{
    webhook_read_body(c, rotate);
}

void webhook_delete_call(struct call *c)
{
    struct err err = ERR_INIT;
    struct uuid id;
    if (!webhook_id_of(c, &id))
        return;
    struct answer *a = answer_new(c, 204);
    if (a != NULL && webhook_delete(c->g->files, c->tenant, id, STORE_MS, on_endpoints, a, &err) != 0)
        answer_refused(a, &err);
}

/* ---- looking ---- */

void webhook_show(struct call *c)
{
    static const struct uuid none;
    struct err err = ERR_INIT;
    struct uuid id;
    if (!webhook_id_of(c, &id))
        return;
    struct answer *a = answer_new(c, 200);
    if (a != NULL && webhooks_get(c->g->read, c->tenant, id, none, 1, STORE_MS, on_endpoints, a, &err) != 0)
        answer_refused(a, &err);
}

void webhooks_list(struct call *c)
{
    static const struct uuid any;
    struct err err = ERR_INIT;
    struct uuid after = {0};
    struct page page;
    if (page_read_id(c, LIST_SCOPE, LIST_MAX, &page, &after, &err) != 0) {
        call_fail(c, &err);
        return;
    }
    struct answer *a = answer_new(c, 200);
    if (a == NULL)
        return;
    a->listed = true;
    a->page = page;
    if (webhooks_get(c->g->read, c->tenant, any, after, page.limit + 1, STORE_MS, on_endpoints, a, &err) != 0)
        answer_refused(a, &err);
}
