/* Looking at a sandbox's files: filesystem.Filesystem's Stat and ListDir (unary RPC). */
#include <stdlib.h>

#include "sandbox/e2b.h"

enum { URL_BYTES = 8192, BODY_BYTES = 16384, TREE_BYTES = 4 * 1024 * 1024, ENTRIES_MAX = 20000 };

struct look {
    struct e2b_request r;
    sandbox_entries_fn *fn;
    void *arg;
    bool list;
};

static void read_entry(const struct json_value *v, struct sandbox_entry *out)
{
    struct str type = str_of(NULL), size, target;
    bool link = json_str(json_get(v, "symlinkTarget"), &target) && target.n > 0;
    uint64_t bytes = 0;
    *out = (struct sandbox_entry){.path = str_of(NULL), .kind = SANDBOX_OTHER};
    json_str(json_get(v, "path"), &out->path);
    json_str(json_get(v, "type"), &type);
    if (json_str(json_get(v, "size"), &size)) /* proto3's JSON: 64-bit numbers are strings, zeros left out */
        str_to_u64(size, &bytes);
    out->bytes = bytes < INT64_MAX ? (int64_t)bytes : INT64_MAX;
    if (!link && str_eq_c(type, "FILE_TYPE_FILE"))
        out->kind = SANDBOX_FILE;
    else if (!link && str_eq_c(type, "FILE_TYPE_DIRECTORY"))
        out->kind = SANDBOX_DIRECTORY;
}

static void finish(struct look *l, const struct sandbox_entry *entries, size_t n,
                   const struct sandbox_failure *failure)
{
    l->fn(l->arg, entries, n, failure);
    e2b_request_free(&l->r);
}

static void broken(struct look *l, const char *why)
{
    struct sandbox_failure f = e2b_failure_make(ERR_PROTOCOL, RETRY_LATER, why);
    finish(l, NULL, 0, &f);
}

/* What is not there may be missing in an answer: an empty list is `{}`. */
static void tell(struct look *l, const struct json *doc)
{
    const struct json_value *root = json_root(doc), *entries = json_get(root, "entries");
    size_t n = l->list ? json_count(entries) : 1, i = 0;
    struct sandbox_entry *all = n <= ENTRIES_MAX ? calloc(n + 1, sizeof *all) : NULL;
    if (all == NULL || (!l->list && json_get(root, "entry") == NULL)) {
        free(all);
        broken(l, "the sandbox's answer cannot be used");
        return;
    }
    if (!l->list)
        read_entry(json_get(root, "entry"), &all[i++]);
    for (const struct json_value *v = json_first(entries); l->list && v != NULL; v = json_next(v))
        read_entry(v, &all[i++]);
    finish(l, all, i, NULL);
    free(all);
}

static void on_answer(struct e2b_request *r, const struct http_response *answer, const struct err *err)
{
    struct look *l = (struct look *)r;
    struct err bad;
    if (err != NULL || answer->status / 100 != 2) {
        struct sandbox_failure f = e2b_failure(answer, err, true);
        finish(l, NULL, 0, &f);
        return;
    }
    struct json *doc = json_parse(answer->body, &bad);
    if (doc == NULL)
        broken(l, "the sandbox's answer is no JSON");
    else
        tell(l, doc);
    json_free(&doc);
}

static struct sandbox_request *look(struct provider *p, const struct sandbox *sandbox, const char *rpc,
                                    const char *path, int depth, int64_t deadline_ms, sandbox_entries_fn *fn,
                                    void *arg)
{
    struct look *l = e2b_request_new(p, sizeof *l, deadline_ms);
    struct buf url, body;
    struct e2b_headers h = {.count = 0};
    if (l == NULL)
        return NULL;
    l->fn = fn;
    l->arg = arg;
    l->list = depth > 0;
    buf_init(&url, URL_BYTES);
    buf_init(&body, BODY_BYTES);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    jw_kcstr(&w, "path", path);
    if (depth > 0)
        jw_kint(&w, "depth", depth);
    jw_object_end(&w);
    e2b_data_headers(&h, sandbox);
    e2b_header(&h, "Content-Type", STR("application/json"));
    bool fits = e2b_data_url(l->r.e2b, sandbox, rpc, &url) && !body.failed;
    struct http_call call = {.method = "POST",
                             .url = fits ? buf_cstr(&url) : NULL,
                             .headers = h.list,
                             .body = buf_view(&body),
                             .max_body = TREE_BYTES,
                             .timeout_ms = e2b_left_ms(&l->r)};
    e2b_send(&l->r, &call, on_answer);
    buf_deinit(&url);
    buf_deinit(&body);
    crypto_wipe(h.text, h.used);
    return &l->r.base;
}

struct sandbox_request *e2b_stat(struct provider *p, const struct sandbox *sandbox, const char *path,
                                 int64_t deadline_ms, sandbox_entries_fn *fn, void *arg)
{
    return look(p, sandbox, "/filesystem.Filesystem/Stat", path, 0, deadline_ms, fn, arg);
}

struct sandbox_request *e2b_list_dir(struct provider *p, const struct sandbox *sandbox, const char *path,
                                     int depth, int64_t deadline_ms, sandbox_entries_fn *fn, void *arg)
{
    return look(p, sandbox, "/filesystem.Filesystem/ListDir", path, depth > 0 ? depth : 1, deadline_ms, fn,
                arg);
}
