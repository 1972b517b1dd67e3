/* Listing snapshots, all pages. Names come as the service shows them, perhaps with a team before a slash or a
 * tag behind a colon: those are cut off. */
#include <stdio.h>
#include <stdlib.h>

#include "sandbox/e2b.h"

enum { MAX_PAGES = 1000, QUERY_BYTES = 1024, TOKEN_BYTES = 512, SNAPSHOTS_MAX = 100000 };

struct list {
    struct e2b_request r;
    sandbox_snapshots_fn *fn;
    void *arg;
    struct snapshot_listed *items;
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
    l->fn(l->arg, l->items, failure == NULL ? l->count : 0, failure);
    e2b_request_free(&l->r);
}

static struct str plain_name(struct str name)
{
    for (size_t i = name.n; i > 0; i--)
        if (name.p[i - 1] == '/') {
            name = str_make(name.p + i, name.n - i);
            break;
        }
    struct str head = name;
    str_split(&name, ':', &head);
    return head;
}

/* False: one without an id, or with a longer name than ours have. */
static bool read_item(const struct json_value *v, struct snapshot_listed *out)
{
    struct str text;
    *out = (struct snapshot_listed){.id = ""};
    if (!json_str(json_get(v, "snapshotID"), &text) || text.n == 0 ||
        !str_copy(text, out->id, sizeof out->id) || !json_str(json_first(json_get(v, "names")), &text))
        return false;
    return str_copy(plain_name(text), out->name, sizeof out->name);
}

static bool keep(struct list *l, const struct snapshot_listed *item)
{
    if (l->count == l->room) {
        size_t room = l->room > 0 ? l->room * 2 : 16;
        struct snapshot_listed *items =
            room <= SNAPSHOTS_MAX ? realloc(l->items, room * sizeof *items) : NULL;
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
        return err_set(err, ERR_PROTOCOL, "the list of snapshots is not a JSON array");
    }
    int rc = 0;
    for (const struct json_value *v = json_first(json_root(doc)); v != NULL && rc == 0; v = json_next(v)) {
        struct snapshot_listed item;
        if (read_item(v, &item) && !keep(l, &item))
            rc = err_set(err, ERR_LIMIT, "there are too many snapshots to list");
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
        finish(l, &f);
    } else if (read_page(l, answer->body, &bad) != 0) {
        f = e2b_failure_make(bad.code, RETRY_LATER, bad.msg);
        finish(l, &f);
    } else if (answer->next_token.n == 0) {
        finish(l, NULL);
    } else if (++l->pages >= MAX_PAGES || !str_copy(answer->next_token, l->token, sizeof l->token) ||
               e2b_is_late(r)) {
        f = e2b_failure_make(ERR_LIMIT, RETRY_LATER, "the list of snapshots does not end");
        finish(l, &f);
    } else {
        ask_page(l);
    }
}

static void ask_page(struct list *l)
{
    struct buf path;
    buf_init(&path, 2 * QUERY_BYTES);
    buf_cstr_append(&path, "/snapshots?limit=100");
    if (l->token[0] != '\0') {
        buf_cstr_append(&path, "&nextToken=");
        e2b_encode(str_of(l->token), &path);
    }
    struct e2b_control call = {.method = "GET",
                               .path = buf_cstr(&path) != NULL ? path.data : "/snapshots",
                               .timeout_ms = e2b_left_ms(&l->r),
                               .max_body = E2B_LIST_BYTES};
    e2b_control(&l->r, &call, on_page);
    buf_deinit(&path);
}

struct sandbox_request *e2b_snapshots(struct provider *p, int64_t deadline_ms, sandbox_snapshots_fn *fn,
                                      void *arg)
{
    struct list *l = e2b_request_new(p, sizeof *l, deadline_ms);
    if (l == NULL)
        return NULL;
    l->r.release = release;
    l->fn = fn;
    l->arg = arg;
    ask_page(l);
    return &l->r.base;
}
