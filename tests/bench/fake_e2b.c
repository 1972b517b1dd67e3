/* A sandbox service that takes no time: E2B's control plane and envd as far as an executor calls them, every
 * answer at once and from memory. For benchmarks: what is measured against it is ours.
 *
 *   POST /v2/sandboxes                       create (an empty object: 400, as the probe expects)
 *   POST /process.Process/Start              start, one piece of output, end, end of stream
 *   DELETE /sandboxes/{id}, POST …/timeout   204
 *   POST /sandboxes/{id}/snapshots           a snapshot
 *   GET /v2/sandboxes                        none
 *   POST /files, GET /health                 taken, well
 *
 * It keeps no state: ids are numbers counted up, and any id is known. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "http/server.h"

struct app {
    struct loop *loop;
    struct http_server *server;
    struct loop_signal *term, *intr;
    uint64_t sandboxes;
};

enum { BODY_BYTES = 64 * 1024 * 1024 };

static const char json_type[] = "application/json";

/* Connect's envelope: flags, four bytes of length, the message. */
#define FRAME(flags, n, text) flags "\0\0\0" n text

static const char stream[] = FRAME("\0", "\x22", "{\"event\":{\"start\":{\"pid\":\"1234\"}}}")
    FRAME("\0", "\x24", "{\"event\":{\"data\":{\"stdout\":\"b2sK\"}}}")
        FRAME("\0", "\x3a", "{\"event\":{\"end\":{\"exited\":true,\"status\":\"exit status 0\"}}}")
            FRAME("\2", "\x02", "{}");

static void on_create(void *arg, struct http_request *r, struct str body)
{
    struct app *app = arg;
    char text[256];
    if (body.n <= 2) {
        http_reply(r, 400, json_type, STR("{\"code\":400,\"message\":\"templateID is missing\"}"));
        return;
    }
    int n = snprintf(
        text, sizeof text,
        "{\"sandboxID\":\"i%019llu\",\"templateID\":\"base\",\"clientID\":\"bench\",\"alias\":\"base\","
        "\"envdVersion\":\"0.4.1\",\"envdAccessToken\":\"bench\",\"domain\":null}",
        (unsigned long long)++app->sandboxes);
    http_reply(r, 201, json_type, str_make(text, (size_t)n));
}

static void on_start(void *arg, struct http_request *r, struct str body)
{
    (void)arg, (void)body;
    http_reply(r, 200, "application/connect+json", str_make(stream, sizeof stream - 1));
}

static void on_snapshot(void *arg, struct http_request *r, struct str body)
{
    (void)arg, (void)body;
    http_reply(r, 201, json_type, STR("{\"snapshotID\":\"bench:default\",\"names\":[]}"));
}

static void on_other(void *arg, struct http_request *r, struct str body)
{
    (void)arg, (void)body;
    if (http_method_of(r) == HTTP_M_GET)
        http_reply(r, 200, json_type, STR("[]"));
    else if (str_starts(http_path(r), STR("/files")))
        http_reply(r, 200, json_type, STR("[{\"name\":\"file\",\"type\":\"file\",\"path\":\"/tmp/file\"}]"));
    else
        http_reply(r, 204, NULL, STR(""));
}

static bool ends(struct str s, struct str tail)
{
    return s.n >= tail.n && str_eq(str_make(s.p + s.n - tail.n, tail.n), tail);
}

static void on_request(void *arg, struct http_request *r)
{
    struct str path = http_path(r);
    bool post = http_method_of(r) == HTTP_M_POST;
    http_body_fn *fn = on_other;
    if (post && str_eq_c(path, "/v2/sandboxes"))
        fn = on_create;
    else if (post && str_eq_c(path, "/process.Process/Start"))
        fn = on_start;
    else if (post && ends(path, STR("/snapshots")))
        fn = on_snapshot;
    http_read_body(r, BODY_BYTES, fn, arg);
}

static void on_signal(void *arg, int signum)
{
    (void)signum;
    loop_stop(((struct app *)arg)->loop);
}

int main(int argc, char **argv)
{
    struct app app = {.loop = loop_new()};
    struct err err = ERR_INIT;
    if (argc != 2 || app.loop == NULL) {
        fprintf(stderr, "usage: fake-e2b ADDRESS:PORT\n");
        return 2;
    }
    log_setup("fake-e2b", LOG_INFO);
    signal(SIGPIPE, SIG_IGN);
    app.term = loop_signal_new(app.loop, SIGTERM, on_signal, &app);
    app.intr = loop_signal_new(app.loop, SIGINT, on_signal, &app);
    app.server = http_server_open(
        app.loop,
        &(struct http_server_options){.listen = argv[1], .app = {.on_request = on_request}, .arg = &app},
        &err);
    if (app.server == NULL) {
        log_error("cannot listen", LF_ERR(&err));
        return 1;
    }
    log_info("ready", LF_INT("port", http_server_port(app.server)));
    loop_run(app.loop);
    http_server_close(&app.server);
    loop_signal_free(&app.term);
    loop_signal_free(&app.intr);
    loop_free(&app.loop);
    return 0;
}
