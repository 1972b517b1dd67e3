/* Single calls to a sandbox's daemon: input and signals (unary RPC), files. None is repeated here. */
#include <stdio.h>
#include <stdlib.h>

#include "sandbox/e2b.h"

enum { URL_BYTES = 8192, RPC_BYTES = 8 * 1024 * 1024, FILE_ANSWER_BYTES = 64 * 1024 };

struct single {
    struct e2b_request r;
    sandbox_done_fn *done;
    sandbox_file_fn *file; /* instead of done, when reading */
    void *arg;
    char *body;     /* owned; a multipart body */
    int64_t offset; /* of a range */
};

static void release(struct e2b_request *r)
{
    free(((struct single *)r)->body);
}

static struct single *single_new(struct provider *p, int64_t deadline_ms, sandbox_done_fn *done, void *arg)
{
    struct single *s = e2b_request_new(p, sizeof *s, deadline_ms);
    if (s == NULL)
        return NULL;
    s->r.release = release;
    s->done = done;
    s->arg = arg;
    return s;
}

static void on_single(struct e2b_request *r, const struct http_response *answer, const struct err *err)
{
    struct single *s = (struct single *)r;
    bool fine = err == NULL && answer->status / 100 == 2;
    struct sandbox_failure f = {0};
    if (!fine)
        f = e2b_failure(answer, err, true);
    if (fine && s->offset > 0 && answer->status != 206) { /* ranges are not served: this is the beginning */
        fine = false;
        f = e2b_failure_make(ERR_PROTOCOL, RETRY_NEVER, "the sandbox does not serve ranges of files");
    }
    if (s->file != NULL)
        s->file(s->arg, fine ? answer->body : STR(""), fine ? NULL : &f);
    else
        s->done(s->arg, fine ? NULL : &f);
    e2b_request_free(r);
}

/* Sends with the given path and body. */
static struct sandbox_request *single_send(struct single *s, const struct sandbox *sandbox, const char *path,
                                           struct http_call *call, const char *content_type,
                                           const char *range)
{
    struct buf url;
    buf_init(&url, URL_BYTES);
    struct e2b_headers h = {.count = 0};
    e2b_data_headers(&h, sandbox);
    if (content_type != NULL)
        e2b_header(&h, "Content-Type", str_of(content_type));
    if (range != NULL)
        e2b_header(&h, "Range", str_of(range));
    call->url = path != NULL && e2b_data_url(s->r.e2b, sandbox, path, &url) ? buf_cstr(&url) : NULL;
    call->headers = h.list;
    call->timeout_ms = e2b_left_ms(&s->r);
    e2b_send(&s->r, call, on_single);
    buf_deinit(&url);
    crypto_wipe(h.text, h.used);
    return &s->r.base;
}

/* ---- unary RPC ---- */

static struct sandbox_request *rpc(struct provider *p, const struct sandbox *sandbox, const char *path,
                                   struct buf *body, int64_t deadline_ms, sandbox_done_fn *fn, void *arg)
{
    struct single *s = body->failed ? NULL : single_new(p, deadline_ms, fn, arg);
    struct sandbox_request *r = NULL;
    if (s != NULL) {
        struct http_call call = {.method = "POST", .body = buf_view(body), .max_body = FILE_ANSWER_BYTES};
        r = single_send(s, sandbox, path, &call, "application/json", NULL);
    }
    buf_deinit(body);
    return r;
}

static struct json_writer begin_rpc(struct buf *body, int64_t pid)
{
    buf_init(body, RPC_BYTES);
    struct json_writer w = json_writer(body);
    jw_object(&w);
    jw_key(&w, "process");
    jw_object(&w);
    jw_kint(&w, "pid", pid);
    jw_object_end(&w);
    return w;
}

struct sandbox_request *e2b_signal(struct provider *p, const struct sandbox *sandbox, int64_t pid, bool kill,
                                   int64_t deadline_ms, sandbox_done_fn *fn, void *arg)
{
    struct buf body;
    struct json_writer w = begin_rpc(&body, pid);
    jw_kcstr(&w, "signal", kill ? "SIGNAL_SIGKILL" : "SIGNAL_SIGTERM");
    jw_object_end(&w);
    return rpc(p, sandbox, "/process.Process/SendSignal", &body, deadline_ms, fn, arg);
}

struct sandbox_request *e2b_send_input(struct provider *p, const struct sandbox *sandbox, int64_t pid,
                                       struct str data, int64_t deadline_ms, sandbox_done_fn *fn, void *arg)
{
    struct buf body;
    struct json_writer w = begin_rpc(&body, pid);
    jw_key(&w, "input");
    jw_object(&w);
    jw_key(&w, "stdin");
    jw_base64(&w, data);
    jw_object_end(&w);
    jw_object_end(&w);
    return rpc(p, sandbox, "/process.Process/SendInput", &body, deadline_ms, fn, arg);
}

struct sandbox_request *e2b_close_input(struct provider *p, const struct sandbox *sandbox, int64_t pid,
                                        int64_t deadline_ms, sandbox_done_fn *fn, void *arg)
{
    struct buf body;
    struct json_writer w = begin_rpc(&body, pid);
    jw_object_end(&w);
    return rpc(p, sandbox, "/process.Process/CloseStdin", &body, deadline_ms, fn, arg);
}

/* ---- files ---- */

static const char *files_path(const struct sandbox *sandbox, const char *path, struct buf *out)
{
    buf_init(out, URL_BYTES);
    buf_str(out, STR("/files?path="));
    e2b_encode(str_of(path), out);
    if (!e2b_version_at_least(sandbox->envd_version, 0, 4, 0))
        buf_str(out, STR("&username=user"));
    return buf_cstr(out);
}

#define BOUNDARY "sandpiper-3f1c0b7e5a9d4c62"

/* Before envd 0.5.7 a file comes only as a form with one part. The boundary cannot be known to the data's
 * author beforehand in any useful way: a collision only spoils his own file. */
static bool multipart(struct single *s, struct str data, struct str *out)
{
    static const struct str head = {
        "--" BOUNDARY "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n"
        "Content-Type: application/octet-stream\r\n\r\n",
        sizeof("--" BOUNDARY "\r\nContent-Disposition: form-data; name=\"file\"; "
               "filename=\"f\"\r\nContent-Type: application/octet-stream\r\n\r\n") -
            1};
    static const struct str tail = {"\r\n--" BOUNDARY "--\r\n", sizeof("\r\n--" BOUNDARY "--\r\n") - 1};
    size_t n = head.n + data.n + tail.n;
    s->body = malloc(n);
    if (s->body == NULL)
        return false;
    memcpy(s->body, head.p, head.n);
    if (data.n > 0)
        memcpy(s->body + head.n, data.p, data.n);
    memcpy(s->body + head.n + data.n, tail.p, tail.n);
    *out = str_make(s->body, n);
    return true;
}

struct sandbox_request *e2b_write_file(struct provider *p, const struct sandbox *sandbox, const char *path,
                                       struct str data, int64_t deadline_ms, sandbox_done_fn *fn, void *arg)
{
    struct single *s = single_new(p, deadline_ms, fn, arg);
    if (s == NULL)
        return NULL;
    bool raw = e2b_version_at_least(sandbox->envd_version, 0, 5, 7);
    struct http_call call = {
        .method = "POST", .body = data, .body_borrowed = true, .max_body = FILE_ANSWER_BYTES};
    if (!raw && !multipart(s, data, &call.body)) {
        e2b_request_free(&s->r);
        return NULL;
    }
    struct buf text;
    const char *at = files_path(sandbox, path, &text);
    const char *type = raw ? "application/octet-stream" : "multipart/form-data; boundary=" BOUNDARY;
    struct sandbox_request *r = single_send(s, sandbox, at, &call, type, NULL);
    buf_deinit(&text);
    return r;
}

/* With a range: what is longer is cut. */
static struct sandbox_request *read_part(struct single *s, const struct sandbox *sandbox, const char *path,
                                         size_t max_bytes, sandbox_file_fn *fn, const char *range)
{
    if (s == NULL)
        return NULL;
    s->file = fn;
    struct http_call call = {
        .method = "GET", .max_body = max_bytes > 0 ? max_bytes : 1, .cut = range != NULL};
    struct buf text;
    const char *at = files_path(sandbox, path, &text);
    struct sandbox_request *r = single_send(s, sandbox, at, &call, NULL, range);
    buf_deinit(&text);
    return r;
}

struct sandbox_request *e2b_read_file(struct provider *p, const struct sandbox *sandbox, const char *path,
                                      size_t max_bytes, int64_t deadline_ms, sandbox_file_fn *fn, void *arg)
{
    return read_part(single_new(p, deadline_ms, NULL, arg), sandbox, path, max_bytes, fn, NULL);
}

struct sandbox_request *e2b_read_range(struct provider *p, const struct sandbox *sandbox, const char *path,
                                       int64_t offset, size_t bytes, int64_t deadline_ms, sandbox_file_fn *fn,
                                       void *arg)
{
    struct single *s = single_new(p, deadline_ms, NULL, arg);
    char range[64];
    snprintf(range, sizeof range, "bytes=%lld-%lld", (long long)offset,
             (long long)offset + (long long)bytes - 1);
    if (s != NULL)
        s->offset = offset;
    return read_part(s, sandbox, path, bytes, fn, range);
}
