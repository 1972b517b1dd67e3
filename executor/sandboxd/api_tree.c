/* filesystem.Filesystem: unary calls that the supervisor carries out inside the sandbox. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "api.h"
#include "connect.h"
#include "entry.h"

struct call {
    struct api_pending pending;
    struct http_request *req;
    struct sandbox *sandbox;
    uint32_t ticket;
    bool list, empty;
    int entries;
    struct buf body;
    struct json_writer w;
};

static void call_free(struct call *c)
{
    buf_deinit(&c->body);
    free(c);
}

static void call_gone(struct api_pending *self)
{
    struct call *c = (struct call *)self;
    sandbox_forget(c->sandbox, c->ticket);
    call_free(c);
}

static void answer_done(struct call *c)
{
    if (c->list)
        jw_array_end(&c->w);
    jw_object_end(&c->w);
    api_json(c->req, 200, &c->body);
}

static void on_answer(void *arg, int type, struct wire_reader *r, const int *fds, int fd_count, bool last)
{
    struct call *c = arg;
    const char *text = sandbox_over_text(type);
    (void)fds;
    (void)fd_count;
    if (type == WIRE_ENTRY && !c->empty) {
        if (!c->list)
            jw_key(&c->w, "entry");
        entry_put(&c->w, r);
    }
    if (!last)
        return;
    http_set_data(c->req, NULL);
    const char *code = type == WIRE_FAILED ? api_fault_code(sandbox_fault(r, &text)) : "unavailable";
    if (type == WIRE_DONE)
        answer_done(c);
    else
        api_rpc_error(c->req, code, text);
    call_free(c);
}

/* Writes the request of a method. False when its fields are wrong. */
static bool put_request(struct wire_writer *msg, const struct json *doc, enum wire_type type, struct str user)
{
    const struct json_value *root = json_root(doc);
    struct str path = STR(""), destination;
    int64_t depth = 1;
    bool move = type == WIRE_MOVE;
    if (!json_str(json_get(root, move ? "source" : "path"), &path) && move)
        return false;
    wire_put_str(msg, user.p, user.n);
    wire_put_str(msg, path.p, path.n);
    if (move) {
        if (!json_str(json_get(root, "destination"), &destination))
            return false;
        wire_put_str(msg, destination.p, destination.n);
    } else if (type == WIRE_LIST) {
        if (json_get(root, "depth") != NULL && (!json_int(doc, json_get(root, "depth"), &depth) || depth < 0))
            return false;
        wire_put_u32(msg, depth > 1 ? (uint32_t)depth : 1);
    }
    return true;
}

struct method {
    const char *name;
    enum wire_type type;
};

static const struct method methods[] = {
    {"Stat", WIRE_STAT},    {"MakeDir", WIRE_MKDIR}, {"Move", WIRE_MOVE},
    {"ListDir", WIRE_LIST}, {"Remove", WIRE_REMOVE},
};

static const struct method *method_of(struct str name)
{
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (str_eq_c(name, methods[i].name))
            return &methods[i];
    return NULL;
}

static struct call *call_new(struct http_request *r, struct sandbox *s, enum wire_type type)
{
    struct call *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    *c = (struct call){.pending.on_gone = call_gone,
                       .req = r,
                       .sandbox = s,
                       .list = type == WIRE_LIST,
                       .empty = type == WIRE_REMOVE};
    buf_init(&c->body, API_MAX_ANSWER);
    c->w = json_writer(&c->body);
    jw_object(&c->w);
    if (c->list) {
        jw_key(&c->w, "entries");
        jw_array(&c->w);
    }
    return c;
}

static void start_call(struct http_request *r, struct sandbox *s, const struct json *doc, enum wire_type type)
{
    struct err err = ERR_INIT;
    struct wire_writer *msg = sandbox_message(s, type);
    if (!put_request(msg, doc, type, api_user(r))) {
        api_rpc_error(r, "invalid_argument", "a field is missing or of another type");
        return;
    }
    struct call *c = call_new(r, s, type);
    if (c != NULL)
        c->ticket = sandbox_send(s, msg, NULL, 0, on_answer, c, &err);
    if (c != NULL && c->ticket != 0) {
        http_set_data(r, &c->pending);
        return;
    }
    if (c != NULL)
        call_free(c);
    api_rpc_error(r, "resource_exhausted", err.msg);
}

static void on_body(void *arg, struct http_request *r, struct str body)
{
    struct sandbox *s = api_sandbox(arg, r, true);
    struct json *doc = s != NULL ? api_rpc_body(r, body) : NULL;
    struct str path = http_path(r), prefix = STR("/filesystem.Filesystem/");
    if (doc == NULL)
        return;
    const struct method *m = method_of(str_make(path.p + prefix.n, path.n - prefix.n));
    if (m != NULL)
        start_call(r, s, doc, m->type);
    else
        api_rpc_error(r, "unimplemented", "this method is not available");
    json_free(&doc);
}

/* A streaming method says so in a frame. */
static void watch_unavailable(struct http_request *r)
{
    struct buf frame;
    buf_init(&frame, 1024);
    connect_end_stream(&frame, "unimplemented", "watching directories is not available on this host");
    http_reply(r, 200, "application/connect+json", buf_view(&frame));
    buf_deinit(&frame);
}

void tree_request(struct api *a, struct http_request *r, struct str method)
{
    if (http_method_of(r) != HTTP_M_POST)
        api_error(r, 405, "method not allowed");
    else if (str_eq_c(method, "WatchDir"))
        watch_unavailable(r);
    else if (method_of(method) == NULL)
        api_rpc_error(r, "unimplemented", "this method is not available");
    else
        http_read_body(r, API_MAX_BODY, on_body, a);
}
