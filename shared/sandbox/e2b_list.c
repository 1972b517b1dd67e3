/* Listing by metadata, all pages.
 *
 * The filter is a query string inside a query string: each value percent-encoded, the pairs joined, that
 * string encoded by form rules, and the whole encoded again as the value of `metadata` (seen on the wire from
 * E2B's own SDK: metadata=job%3D1%2525202 for job = "1 2"). Ids need only the last of the three, but the
 * layers are kept apart so that any value would do.
 *
 * What comes back is filtered again here: the reaper destroys by this list, and a service that ignored the
 * filter must not cost anybody else's sandboxes. */
#include <stdio.h>
#include <stdlib.h>

#include "sandbox/e2b.h"

enum { MAX_PAGES = 1000, QUERY_BYTES = 1024, TOKEN_BYTES = 512 };

struct list {
    struct e2b_request r;
    sandbox_list_fn *fn;
    void *arg;
    struct uuid deployment, nonce;
    struct sandbox_listed *items;
    size_t count, room;
    int pages;
    char token[TOKEN_BYTES];
};

static void release(struct e2b_request *r)
{
    free(((struct list *)r)->items);
}

static void finish(struct list *l, const struct sandbox_failure *failure)
{
    size_t n = failure == NULL ? l->count : 0;
    l->fn(l->arg, l->items, n, failure);
    e2b_request_free(&l->r);
}

static void add_pair(struct buf *filter, const char *key, struct uuid id)
{
    if (uuid_is_zero(id))
        return;
    char text[UUID_TEXT_BYTES];
    uuid_format(id, text);
    struct buf value;
    buf_init(&value, QUERY_BYTES);
    e2b_encode(str_of(text), &value);
    if (filter->len > 0)
        buf_byte(filter, '&');
    buf_cstr_append(filter, key);
    buf_byte(filter, '=');
    e2b_encode(buf_view(&value), filter);
    buf_deinit(&value);
}

static bool build_path(const struct list *l, struct buf *path)
{
    struct buf filter;
    buf_init(&filter, QUERY_BYTES);
    add_pair(&filter, "deployment", l->deployment);
    add_pair(&filter, "nonce", l->nonce);
    buf_str(path, STR("/v2/sandboxes?state=running,paused&limit=100&metadata="));
    e2b_encode(buf_view(&filter), path);
    if (l->token[0] != '\0') {
        buf_str(path, STR("&nextToken="));
        e2b_encode(str_of(l->token), path);
    }
    bool fine = !filter.failed && !path->failed;
    buf_deinit(&filter);
    return fine && buf_cstr(path) != NULL;
}

/* ---- reading a page ---- */

static struct uuid meta_id(const struct json_value *metadata, const char *key)
{
    struct str text;
    struct uuid id = {{0}};
    if (json_str(json_get(metadata, key), &text) && !uuid_parse(text, &id))
        id = (struct uuid){{0}};
    return id;
}

static bool read_item(const struct json_value *v, struct sandbox_listed *out)
{
    struct str text;
    *out = (struct sandbox_listed){.id = ""};
    if (!json_str(json_get(v, "sandboxID"), &text) || !str_copy(text, out->id, sizeof out->id) || text.n == 0)
        return false;
    const struct json_value *metadata = json_get(v, "metadata");
    out->deployment = meta_id(metadata, "deployment");
    out->executor_boot = meta_id(metadata, "executor_boot");
    out->nonce = meta_id(metadata, "nonce");
    if (json_str(json_get(v, "startedAt"), &text))
        wall_parse(text, &out->started_at);
    return true;
}

static bool is_wanted(const struct list *l, const struct sandbox_listed *item)
{
    return uuid_eq(item->deployment, l->deployment) &&
           (uuid_is_zero(l->nonce) || uuid_eq(item->nonce, l->nonce));
}

static bool keep(struct list *l, const struct sandbox_listed *item)
{
    if (l->count == l->room) {
        size_t room = l->room > 0 ? l->room * 2 : 16;
        struct sandbox_listed *items = realloc(l->items, room * sizeof *items);
        if (items == NULL)
            return false;
        l->items = items;
        l->room = room;
    }
    l->items[l->count++] = *item;
    return true;
}

static int read_page(struct list *l, struct str body, struct err *err)
{
    struct json *doc = json_parse(body, err);
    if (doc == NULL || json_type_of(json_root(doc)) != JSON_ARRAY) {
        json_free(&doc);
        return err_set(err, ERR_PROTOCOL, "the list of sandboxes is not a JSON array");
    }
    int rc = 0;
    for (const struct json_value *v = json_first(json_root(doc)); v != NULL && rc == 0; v = json_next(v)) {
        struct sandbox_listed item;
        if (read_item(v, &item) && is_wanted(l, &item) && !keep(l, &item))
            rc = err_set(err, ERR_NO_MEMORY, "the list of sandboxes");
    }
    json_free(&doc);
    return rc;
}

static void ask_page(struct list *l);

static void on_page(struct e2b_request *r, const struct http_response *answer, const struct err *err)
{
    struct list *l = (struct list *)r;
    struct sandbox_failure f;
    struct err bad = ERR_INIT;
    if (err != NULL || answer->status != 200) {
        f = e2b_failure(answer, err, false);
        f.retry = f.retry == RETRY_NEVER ? RETRY_NEVER : RETRY_LATER; /* reading changes nothing */
        finish(l, &f);
    } else if (read_page(l, answer->body, &bad) != 0) {
        f = e2b_failure_make(bad.code, RETRY_LATER, bad.msg);
        finish(l, &f);
    } else if (answer->next_token.n == 0) {
        finish(l, NULL);
    } else if (++l->pages >= MAX_PAGES || !str_copy(answer->next_token, l->token, sizeof l->token)) {
        f = e2b_failure_make(ERR_LIMIT, RETRY_LATER, "the list of sandboxes does not end");
        finish(l, &f);
    } else if (e2b_is_late(r)) {
        f = e2b_failure_make(ERR_TIMEOUT, RETRY_LATER, "listing the sandboxes took too long");
        finish(l, &f);
    } else {
        ask_page(l);
    }
}

static void ask_page(struct list *l)
{
    struct buf path;
    buf_init(&path, 2 * QUERY_BYTES);
    struct e2b_control call = {
        .method = "GET",
        .path = build_path(l, &path) ? path.data : "/v2/sandboxes",
        .timeout_ms = e2b_left_ms(&l->r),
        .max_body = E2B_LIST_BYTES,
    };
    e2b_control(&l->r, &call, on_page);
    buf_deinit(&path);
}

struct sandbox_request *e2b_list(struct provider *p, struct uuid deployment, struct uuid nonce,
                                 int64_t deadline_ms, sandbox_list_fn *fn, void *arg)
{
    struct list *l = e2b_request_new(p, sizeof *l, deadline_ms);
    if (l == NULL)
        return NULL;
    l->r.release = release;
    l->fn = fn;
    l->arg = arg;
    l->deployment = deployment;
    l->nonce = nonce;
    ask_page(l);
    return &l->r.base;
}
