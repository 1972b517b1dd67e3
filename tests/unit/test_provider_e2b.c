/* e2b provider: against a fake in process that speaks the wire and misbehaves on demand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "http/server.h"
#include "json/json.h"
#include "loop/loop.h"
#include "sandbox/connect.h"
#include "sandbox/provider.h"

enum create_mode { CREATE_OK, CREATE_STATUS, CREATE_BREAK, CREATE_HANG, CREATE_GARBAGE };
enum start_mode { START_RUNS, START_STATUS, START_ENDS, START_HANGS };

static struct {
    bool v1;           /* no /v2 path */
    int refuse_probes; /* 500 to so many probes first */
    enum create_mode create;
    int status; /* of CREATE_STATUS, START_STATUS */
    const char *retry_after;
    bool makes_anyway; /* a failing create leaves a sandbox */
    int deletes_fail;  /* 500 to so many deletes first */
    enum start_mode start;
    const char *script; /* what Start says: frames separated by '|'; see say() */
    const char *attach; /* what Connect says; NULL: 404 not_found */
    int health;
    int list_pages;

    int probes, creates, deletes, lists, starts, attaches, healths, files;
    int live;
    char body[4096], query[512], path[256], type[128], timeout_ms[32], token[64];
    struct http_request *stream;
} fake;

static struct loop *loop;
static struct http_server *server;
static struct provider *provider;
static struct secret *key;
static struct loop_timer *guard, *cutter;
static struct uuid deployment, boot, nonce;

/* ---- the fake ---- */

static void frame(struct http_request *r, int flags, struct str payload)
{
    char head[5] = {(char)flags, 0, 0, (char)(payload.n >> 8), (char)payload.n};
    http_stream_write(r, str_make(head, 5));
    http_stream_write(r, payload);
}

/* "start", "out:<base64>", "err:<base64>", "exit:3", "exit0", "kill", "end", "error:<code>", "cut", "bad",
 * "rest". */
static void say(struct http_request *r, const char *script)
{
    struct str rest = str_of(script), word;
    char text[512];
    while (str_split(&rest, '|', &word)) {
        struct str value = word, name;
        str_split(&value, ':', &name);
        if (str_eq_c(name, "start"))
            frame(r, 0, STR("{\"event\":{\"start\":{\"pid\":42}}}"));
        else if (str_eq_c(name, "out") || str_eq_c(name, "err"))
            frame(r, 0,
                  str_make(text, (size_t)snprintf(text, sizeof text,
                                                  "{\"event\":{\"data\":{\"std%.*s\":\"%.*s\"}}}",
                                                  STR_ARG(name), STR_ARG(value))));
        else if (str_eq_c(name, "exit0"))
            frame(r, 0, STR("{\"event\":{\"end\":{\"exited\":true,\"status\":\"exit status 0\"}}}"));
        else if (str_eq_c(name, "exit"))
            frame(r, 0,
                  str_make(text, (size_t)snprintf(text, sizeof text,
                                                  "{\"event\":{\"end\":{\"exitCode\":%.*s,\"exited\":true}}}",
                                                  STR_ARG(value))));
        else if (str_eq_c(name, "kill"))
            frame(r, 0, STR("{\"event\":{\"end\":{\"exitCode\":-1,\"status\":\"signal: killed\"}}}"));
        else if (str_eq_c(name, "bad"))
            frame(r, 1, STR("zip"));
        else if (str_eq_c(name, "error"))
            frame(r, 2,
                  str_make(text, (size_t)snprintf(text, sizeof text,
                                                  "{\"error\":{\"code\":\"%.*s\",\"message\":\"m\"}}",
                                                  STR_ARG(value))));
        else if (str_eq_c(name, "end"))
            frame(r, 2, STR("{}"));
        else if (str_eq_c(name, "cut")) { /* once what was said is on its way */
            fake.stream = r;
            loop_timer_start(cutter, 20);
            return;
        } else if (str_eq_c(name, "rest")) { /* stays open */
            fake.stream = r;
            return;
        }
    }
    http_stream_end(r);
}

static void cut(void *arg)
{
    (void)arg;
    http_abort(fake.stream);
    fake.stream = NULL;
}

static void fake_error(struct http_request *r, int status)
{
    if (fake.retry_after != NULL)
        http_set_header(r, "Retry-After", str_of(fake.retry_after));
    http_reply(r, status, "application/json", STR("{\"code\":1,\"message\":\"no luck\"}"));
}

static void fake_create(struct http_request *r, struct str body)
{
    struct json *doc = json_parse(body, NULL);
    bool probe = json_get(json_root(doc), "templateID") == NULL;
    json_free(&doc);
    if (probe) {
        fake.probes++;
        int status = fake.refuse_probes-- > 0 ? 500 : fake.v1 ? 404 : 400;
        http_reply(r, status, "application/json", STR("{\"code\":400,\"message\":\"validation error\"}"));
        return;
    }
    fake.creates++;
    str_copy(body, fake.body, sizeof fake.body);
    str_copy(http_path(r), fake.path, sizeof fake.path);
    fake.live += fake.create == CREATE_OK || fake.makes_anyway;
    switch (fake.create) {
    case CREATE_OK:
        http_reply(r, 201, "application/json",
                   STR("{\"sandboxID\":\"isandbox1\",\"envdVersion\":\"0.5.13\",\"envdAccessToken\":\"tok\","
                       "\"domain\":null}"));
        break;
    case CREATE_STATUS:
        fake_error(r, fake.status);
        break;
    case CREATE_BREAK:
        http_abort(r);
        break;
    case CREATE_GARBAGE:
        http_reply(r, 201, "application/json", STR("{\"sandbox"));
        break;
    case CREATE_HANG:
        break;
    }
}

static void fake_list(struct http_request *r)
{
    fake.lists++;
    str_copy(http_query(r), fake.query, sizeof fake.query);
    char d[UUID_TEXT_BYTES], b[UUID_TEXT_BYTES], n[UUID_TEXT_BYTES];
    uuid_format(deployment, d);
    uuid_format(boot, b);
    uuid_format(nonce, n);
    static char text[8192];
    size_t at = (size_t)snprintf(text, sizeof text,
                                 "[{\"sandboxID\":\"iother\",\"metadata\":{\"deployment\":\"x\"}}");
    for (int i = 0; i < fake.live; i++)
        at += (size_t)snprintf(
            text + at, sizeof text - at,
            ",{\"sandboxID\":\"ilive%d\",\"startedAt\":\"2026-11-21T08:00:00Z\",\"metadata\":{"
            "\"deployment\":\"%s\",\"executor_boot\":\"%s\",\"nonce\":\"%s\"}}",
            i, d, b, n);
    snprintf(text + at, sizeof text - at, "]");
    if (fake.lists < fake.list_pages)
        http_set_header(r, "X-Next-Token", STR("next/1"));
    http_reply(r, 200, "application/json", str_of(text));
}

static void fake_start(struct http_request *r, struct str body, const char *script)
{
    struct str value;
    str_copy(body.n > 5 ? str_make(body.p + 5, body.n - 5) : body, fake.body, sizeof fake.body);
    if (http_header(r, "Connect-Timeout-Ms", &value))
        str_copy(value, fake.timeout_ms, sizeof fake.timeout_ms);
    if (http_header(r, "X-Access-Token", &value))
        str_copy(value, fake.token, sizeof fake.token);
    http_stream_start(r, 200, "application/connect+json", -1);
    say(r, script);
}

static void fake_file(struct http_request *r, struct str body)
{
    struct str value;
    fake.files++;
    str_copy(body, fake.body, sizeof fake.body);
    str_copy(http_query(r), fake.query, sizeof fake.query);
    if (http_header(r, "Content-Type", &value))
        str_copy(value, fake.type, sizeof fake.type);
    if (http_method_of(r) == HTTP_M_GET)
        http_reply(r, 200, "text/plain", STR("file content"));
    else
        http_reply(r, 200, "application/json", STR("[]"));
}

static void on_body(void *arg, struct http_request *r, struct str body)
{
    (void)arg;
    struct str path = http_path(r);
    bool is_delete = http_method_of(r) == HTTP_M_DELETE, is_get = http_method_of(r) == HTTP_M_GET;
    if (is_delete) {
        fake.deletes++;
        str_copy(path, fake.path, sizeof fake.path);
        if (fake.deletes_fail-- > 0) {
            fake_error(r, 500);
            return;
        }
        int status = fake.live > 0 ? 204 : 404;
        fake.live -= fake.live > 0;
        http_reply(r, status, NULL, STR(""));
    } else if (str_eq_c(path, "/v2/sandboxes") && is_get) {
        fake_list(r);
    } else if (str_eq_c(path, "/v2/sandboxes") || str_eq_c(path, "/sandboxes")) {
        fake_create(r, body);
    } else if (str_eq_c(path, "/process.Process/Start")) {
        fake.starts++;
        if (fake.start == START_STATUS)
            fake_error(r, fake.status);
        else if (fake.start != START_HANGS)
            fake_start(r, body, fake.script);
    } else if (str_eq_c(path, "/process.Process/Connect")) {
        fake.attaches++;
        if (fake.attach != NULL)
            fake_start(r, body, fake.attach);
        else
            http_reply(r, 404, "application/json", STR("{\"code\":\"not_found\",\"message\":\"no pid\"}"));
    } else if (str_eq_c(path, "/health")) {
        fake.healths++;
        http_reply(r, fake.health, "application/json", STR("{\"message\":\"m\"}"));
    } else if (str_eq_c(path, "/files")) {
        fake_file(r, body);
    } else {
        str_copy(path, fake.path, sizeof fake.path);
        str_copy(body, fake.body, sizeof fake.body);
        http_reply(r, 201, "application/json", STR("{\"snapshotID\":\"team/snap:1\"}"));
    }
}

static void on_request(void *arg, struct http_request *r)
{
    (void)arg;
    http_read_body(r, 1 << 20, on_body, NULL);
}

static void on_gone(void *arg, struct http_request *r)
{
    (void)arg;
    if (fake.stream == r)
        fake.stream = NULL;
}

/* ---- the owner ---- */

static struct {
    int calls, starts;
    bool failed, has_exit;
    struct sandbox sandbox;
    struct sandbox_failure failure;
    struct sandbox_exit exit;
    char out[256], err[256], text[256];
    size_t count;
    struct sandbox_listed item;
} seen;
static struct sandbox_request *request;

static void done(const struct sandbox_failure *failure)
{
    seen.calls++;
    seen.failed = failure != NULL;
    if (failure != NULL)
        seen.failure = *failure;
    request = NULL;
    loop_stop(loop);
}

static void on_created(void *arg, const struct sandbox *sandbox, const struct sandbox_failure *failure)
{
    (void)arg;
    if (sandbox != NULL)
        seen.sandbox = *sandbox;
    done(failure);
}

static void on_done(void *arg, const struct sandbox_failure *failure)
{
    (void)arg;
    done(failure);
}

static void on_text(void *arg, struct str content, const struct sandbox_failure *failure)
{
    (void)arg;
    str_copy(content, seen.text, sizeof seen.text);
    done(failure);
}

static void on_snapshot(void *arg, const char *id, const struct sandbox_failure *failure)
{
    on_text(arg, str_of(id), failure);
}

static void on_list(void *arg, const struct sandbox_listed *items, size_t count,
                    const struct sandbox_failure *failure)
{
    (void)arg;
    seen.count = count;
    if (count > 0)
        seen.item = items[0];
    done(failure);
}

static void on_start(void *arg, int64_t pid)
{
    (void)arg;
    assert_int_equal(pid, 42);
    seen.starts++;
}

static void append(char *to, size_t bytes, struct str piece)
{
    size_t n = strlen(to);
    snprintf(to + n, bytes - n, "%.*s", STR_ARG(piece));
}

static void on_stdout(void *arg, struct str piece)
{
    append(seen.out, sizeof seen.out, piece);
    if (arg != NULL) { /* the owner loses interest on the first byte */
        sandbox_cancel(&request);
        loop_stop(loop);
    }
}

static void on_stderr(void *arg, struct str piece)
{
    (void)arg;
    append(seen.err, sizeof seen.err, piece);
}

static void on_end(void *arg, const struct sandbox_exit *exit, const struct sandbox_failure *failure)
{
    (void)arg;
    seen.has_exit = exit != NULL;
    if (exit != NULL)
        seen.exit = *exit;
    done(failure);
}

static void too_late(void *arg)
{
    (void)arg;
    fail_msg("the test waited for longer than 10 s");
}

static void wait_done(void)
{
    loop_timer_start(guard, 10000);
    loop_run(loop);
    loop_timer_stop(guard);
}

static void open_provider(const char *api)
{
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", http_server_port(server));
    struct err err = ERR_INIT;
    struct provider_e2b_options o = {.api_url = api != NULL ? api : url, .sandbox_url = url, .api_key = key};
    provider = provider_e2b_open(loop, &o, &err);
    assert_non_null(provider);
}

static void create(int64_t deadline_ms)
{
    struct sandbox_create spec = {.template_id = "base",
                                  .ttl_ms = 1500,
                                  .deployment = deployment,
                                  .executor_boot = boot,
                                  .nonce = nonce,
                                  .deadline_ms = deadline_ms};
    request = sandbox_create(provider, &spec, on_created, NULL);
    assert_non_null(request);
}

static void begin_spawn(const char *script, bool lose_interest)
{
    static const char *const args[] = {"-c", "echo \"hi\"", NULL}, *const env[] = {"A=b=c", "E=", NULL};
    static struct sandbox sandbox = {.id = "isandbox1", .token = "tok", .envd_version = "0.5.13"};
    fake.script = script;
    struct sandbox_spawn spec = {.sandbox = &sandbox,
                                 .cmd = "/bin/sh",
                                 .args = args,
                                 .env = env,
                                 .cwd = "/tmp",
                                 .kill_after_ms = 60000,
                                 .start_deadline_ms = 300};
    struct sandbox_process_events events = {.on_start = on_start,
                                            .on_stdout = on_stdout,
                                            .on_stderr = on_stderr,
                                            .on_end = on_end,
                                            .arg = lose_interest ? &seen : NULL};
    request = sandbox_spawn(provider, &spec, &events);
    assert_non_null(request);
}

static void spawn(const char *script)
{
    begin_spawn(script, false);
    wait_done();
    assert_int_equal(seen.calls, 1);
}

static int setup(void **state)
{
    (void)state;
    memset(&fake, 0, sizeof fake);
    memset(&seen, 0, sizeof seen);
    fake.health = 204;
    loop = loop_new();
    struct err err = ERR_INIT;
    assert_int_equal(crypto_init(&err), 0);
    server =
        http_server_open(loop,
                         &(struct http_server_options){.listen = "127.0.0.1:0",
                                                       .app = {.on_request = on_request, .on_gone = on_gone}},
                         &err);
    key = secret_new(STR("e2b_0123"));
    guard = loop_timer_new(loop, too_late, NULL);
    cutter = loop_timer_new(loop, cut, NULL);
    deployment = uuid_new();
    boot = uuid_new();
    nonce = uuid_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    provider_close(&provider);
    http_server_close(&server);
    secret_free(&key);
    loop_timer_free(&guard);
    loop_timer_free(&cutter);
    loop_free(&loop);
    return 0;
}

/* ---- create ---- */

static void create_takes_the_second_path(void **state)
{
    (void)state;
    open_provider(NULL);
    create(5000);
    assert_int_equal(seen.calls, 0);
    wait_done();
    assert_false(seen.failed);
    assert_string_equal(seen.sandbox.id, "isandbox1");
    assert_string_equal(seen.sandbox.token, "tok");
    assert_string_equal(seen.sandbox.domain, "");
    assert_string_equal(fake.path, "/v2/sandboxes");
    assert_non_null(strstr(fake.body, "\"templateID\":\"base\""));
    assert_non_null(strstr(fake.body, "\"timeout\":2"));
    assert_null(strstr(fake.body, "\"secure\""));
    char text[UUID_TEXT_BYTES];
    uuid_format(nonce, text);
    assert_non_null(strstr(fake.body, text));
    assert_int_equal(fake.probes, 1);
    assert_true(provider_healthy(provider));
}

static void create_takes_the_first_path_of_older_services(void **state)
{
    (void)state;
    fake.v1 = true;
    fake.refuse_probes = 2;
    open_provider(NULL);
    create(5000);
    wait_done();
    assert_false(seen.failed);
    assert_int_equal(fake.probes, 3);
    assert_string_equal(fake.path, "/sandboxes");
    assert_non_null(strstr(fake.body, "\"secure\":true"));
}

static void create_fails_when_nobody_answers(void **state)
{
    (void)state;
    open_provider("http://127.0.0.1:1");
    create(200);
    wait_done();
    assert_true(seen.failed);
    assert_int_equal(seen.failure.retry, RETRY_LATER);
    assert_false(provider_healthy(provider));
}

static void the_two_429s_differ(void **state)
{
    (void)state;
    open_provider(NULL);
    fake.create = CREATE_STATUS;
    fake.status = 429;
    fake.retry_after = "3";
    create(5000);
    wait_done();
    assert_true(seen.failure.quota && !seen.failure.quota_concurrency);
    assert_int_equal(seen.failure.retry_after_ms, 3000);
    assert_int_equal(seen.failure.retry, RETRY_LATER);
    fake.retry_after = NULL;
    create(5000);
    wait_done();
    assert_true(seen.failure.quota && seen.failure.quota_concurrency);
    assert_int_equal(seen.failure.retry_after_ms, -1);
    assert_int_equal(fake.lists, 0);
}

static void plain_refusals_have_their_class(void **state)
{
    (void)state;
    static const struct {
        int status;
        enum err_retry retry;
    } cases[] = {
        {400, RETRY_NEVER}, {401, RETRY_LATER}, {403, RETRY_NEVER}, {404, RETRY_NEVER}, {503, RETRY_LATER}};
    open_provider(NULL);
    fake.create = CREATE_STATUS;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake.status = cases[i].status;
        create(5000);
        wait_done();
        assert_true(seen.failed);
        assert_int_equal(seen.failure.retry, cases[i].retry);
        assert_non_null(strstr(seen.failure.err.msg, "no luck"));
    }
    assert_int_equal(fake.lists, 0);
}

static void ambiguous_creates_are_reconciled(void **state)
{
    (void)state;
    static const enum create_mode modes[] = {CREATE_BREAK, CREATE_STATUS, CREATE_GARBAGE, CREATE_HANG};
    open_provider(NULL);
    fake.status = 500;
    fake.makes_anyway = true;
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        fake.create = modes[i];
        fake.live = 1;
        fake.deletes = fake.creates = 0;
        create(400);
        wait_done();
        assert_true(seen.failed);
        assert_int_equal(seen.failure.retry, RETRY_CHECK);
        assert_int_equal(fake.creates, 1); /* never sent again by the HTTP library */
        assert_int_equal(fake.live, 0);
        assert_int_equal(fake.deletes, 2);
    }
    char filter[256], d[UUID_TEXT_BYTES], n[UUID_TEXT_BYTES];
    uuid_format(deployment, d);
    uuid_format(nonce, n);
    snprintf(filter, sizeof filter, "metadata=deployment%%3D%s%%26nonce%%3D%s", d, n);
    assert_non_null(strstr(fake.query, filter));
}

static void a_canceled_create_leaves_nothing(void **state)
{
    (void)state;
    open_provider(NULL);
    create(5000);
    wait_done();
    fake.live = 0;
    create(5000);
    sandbox_cancel(&request);
    assert_null(request);
    seen.calls = 0;
    for (int i = 0; i < 1000 && fake.deletes == 0; i++) {
        loop_timer_start(guard, 10000);
        struct loop_timer *tick = loop_timer_new(loop, (loop_timer_fn *)loop_stop, loop);
        loop_timer_start(tick, 5);
        loop_run(loop);
        loop_timer_free(&tick);
    }
    assert_int_equal(fake.live, 0);
    assert_int_equal(fake.deletes, 1);
    assert_int_equal(seen.calls, 0);
}

/* ---- the other calls of the control plane ---- */

static void destroy_is_repeated_and_gone_is_done(void **state)
{
    (void)state;
    open_provider(NULL);
    fake.live = 1;
    fake.deletes_fail = 2;
    request = sandbox_destroy(provider, "isandbox1", 5000, on_done, NULL);
    wait_done();
    assert_false(seen.failed);
    assert_int_equal(fake.deletes, 3);
    assert_string_equal(fake.path, "/sandboxes/isandbox1");
    request = sandbox_destroy(provider, "isandbox1", 5000, on_done, NULL);
    wait_done();
    assert_false(seen.failed);
    fake.deletes_fail = 1000;
    request = sandbox_destroy(provider, "isandbox1", 400, on_done, NULL);
    wait_done();
    assert_true(seen.failed);
}

static void ids_are_encoded_in_paths(void **state)
{
    (void)state;
    open_provider(NULL);
    request = sandbox_snapshot_delete(provider, "team/snap:1", 5000, on_done, NULL);
    wait_done();
    assert_false(seen.failed);
    assert_string_equal(fake.path, "/templates/team%2Fsnap%3A1");
}

static void ttl_and_snapshots(void **state)
{
    (void)state;
    open_provider(NULL);
    request = sandbox_set_ttl(provider, "isandbox1", 1001, 5000, on_done, NULL);
    wait_done();
    assert_false(seen.failed);
    assert_string_equal(fake.path, "/sandboxes/isandbox1/timeout");
    assert_string_equal(fake.body, "{\"timeout\":2}");
    struct sandbox sandbox = {.id = "isandbox1"};
    request = sandbox_snapshot(provider, &sandbox, "s1", 5000, on_snapshot, NULL);
    wait_done();
    assert_string_equal(seen.text, "team/snap:1");
    assert_string_equal(fake.body, "{\"name\":\"s1\"}");
}

static void lists_have_pages_and_are_filtered_again(void **state)
{
    (void)state;
    open_provider(NULL);
    fake.live = 2;
    fake.list_pages = 3;
    request = sandbox_list(provider, deployment, (struct uuid){{0}}, 5000, on_list, NULL);
    wait_done();
    assert_false(seen.failed);
    assert_int_equal(fake.lists, 3);
    assert_int_equal(seen.count, 6);
    assert_string_equal(seen.item.id, "ilive0");
    assert_true(uuid_eq(seen.item.nonce, nonce) && uuid_eq(seen.item.executor_boot, boot));
    assert_true(seen.item.started_at.us > 0);
    assert_non_null(strstr(fake.query, "nextToken=next%2F1"));
}

/* ---- programs ---- */

static void a_program_runs_to_its_end(void **state)
{
    (void)state;
    open_provider(NULL);
    spawn("start|out:aGVsbG8K|err:ZXJyCg==|out:Ynll|exit:3|end");
    assert_true(seen.has_exit);
    assert_int_equal(seen.exit.code, 3);
    assert_string_equal(seen.out, "hello\nbye");
    assert_string_equal(seen.err, "err\n");
    assert_int_equal(seen.starts, 1);
    assert_string_equal(fake.timeout_ms, "60000");
    assert_string_equal(fake.token, "tok");
    assert_string_equal(
        fake.body, "{\"process\":{\"cmd\":\"/bin/sh\",\"args\":[\"-c\",\"echo \\\"hi\\\"\"],\"envs\":{\"A\":"
                   "\"b=c\",\"E\":\"\"},\"cwd\":\"/tmp\"},\"stdin\":false}");
}

static void a_missing_end_stream_is_tolerated(void **state)
{
    (void)state;
    open_provider(NULL);
    spawn("start|exit0");
    assert_true(seen.has_exit);
    assert_int_equal(seen.exit.code, 0);
    memset(&seen, 0, sizeof seen);
    spawn("start|exit0|rest");
    assert_true(seen.has_exit);
}

static void a_signal_is_no_exit(void **state)
{
    (void)state;
    open_provider(NULL);
    spawn("start|kill|end");
    assert_true(seen.has_exit);
    assert_int_equal(seen.exit.kind, SANDBOX_SIGNALED);
    assert_string_equal(seen.exit.signal, "KILL");
}

static void a_cut_stream_with_a_dead_sandbox_is_told(void **state)
{
    (void)state;
    open_provider(NULL);
    fake.health = 502;
    spawn("start|out:aGVsbG8K|cut");
    assert_true(seen.failed && seen.failure.sandbox_gone);
    assert_int_equal(seen.failure.retry, RETRY_CHECK);
    assert_int_equal(fake.healths, 1);
    assert_int_equal(fake.attaches, 0);
}

static void a_cut_stream_is_attached_again(void **state)
{
    (void)state;
    open_provider(NULL);
    static const char *const cuts[] = {"start|out:aGVsbG8K|cut", "start|out:aGVsbG8K|end",
                                       "start|out:aGVsbG8K|bad", "start|out:aGVsbG8K|error:unavailable",
                                       "start|out:aGVsbG8K|error:internal"};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        memset(&seen, 0, sizeof seen);
        fake.attach = "start|out:Ynll|exit:7|end";
        spawn(cuts[i]);
        assert_true(seen.has_exit);
        assert_int_equal(seen.exit.code, 7);
        assert_string_equal(seen.out, "hello\nbye");
        assert_int_equal(seen.starts, 1);
        assert_int_equal(fake.attaches, i + 1);
        assert_string_equal(fake.body, "{\"process\":{\"pid\":42}}");
    }
}

static void a_program_that_nobody_knows_any_more_failed(void **state)
{
    (void)state;
    open_provider(NULL);
    spawn("start|cut");
    assert_true(seen.failed && !seen.failure.sandbox_gone);
    assert_int_equal(seen.failure.retry, RETRY_CHECK);
    assert_int_equal(fake.attaches, 1);
    memset(&seen, 0, sizeof seen);
    fake.attach = "error:not_found";
    spawn("start|cut");
    assert_true(seen.failed && !seen.failure.sandbox_gone);
}

static void failures_before_the_start_have_their_class(void **state)
{
    (void)state;
    open_provider(NULL);
    spawn("error:invalid_argument");
    assert_int_equal(seen.failure.retry, RETRY_NEVER);
    memset(&seen, 0, sizeof seen);
    spawn("error:unavailable");
    assert_true(seen.failure.sandbox_gone);
    memset(&seen, 0, sizeof seen);
    spawn("out:aGVsbG8K|end");
    assert_true(seen.failed);
    assert_string_equal(seen.out, "");
    memset(&seen, 0, sizeof seen);
    spawn("cut");
    assert_int_equal(seen.failure.retry, RETRY_CHECK);
    fake.start = START_STATUS;
    fake.status = 502;
    memset(&seen, 0, sizeof seen);
    spawn("");
    assert_true(seen.failure.sandbox_gone);
    assert_int_equal(seen.starts, 0);
    fake.start = START_HANGS;
    memset(&seen, 0, sizeof seen);
    spawn("");
    assert_int_equal(seen.failure.err.code, ERR_TIMEOUT);
    assert_int_equal(seen.failure.retry, RETRY_CHECK);
    assert_int_equal(fake.healths, 0);
}

static void the_host_s_deadline_is_a_timeout(void **state)
{
    (void)state;
    open_provider(NULL);
    spawn("start|error:deadline_exceeded");
    assert_true(seen.failed);
    assert_int_equal(seen.failure.err.code, ERR_TIMEOUT);
    assert_int_equal(fake.attaches, 0);
}

static void cancel_inside_an_event_is_silent(void **state)
{
    (void)state;
    open_provider(NULL);
    begin_spawn("start|out:aGVsbG8K|out:aGVsbG8K|exit0|end", true);
    wait_done();
    assert_null(request);
    assert_int_equal(seen.calls, 0);
    assert_string_equal(seen.out, "hello\n");
}

/* ---- files and input ---- */

static void files_go_raw_or_as_forms(void **state)
{
    (void)state;
    open_provider(NULL);
    struct sandbox sandbox = {.id = "isandbox1", .envd_version = "0.5.7"};
    request = sandbox_write_file(provider, &sandbox, "/tmp/a b", STR("data"), 5000, on_done, NULL);
    wait_done();
    assert_false(seen.failed);
    assert_string_equal(fake.body, "data");
    assert_string_equal(fake.query, "path=%2Ftmp%2Fa%20b");
    assert_string_equal(fake.type, "application/octet-stream");
    str_copy(STR("0.5.6"), sandbox.envd_version, sizeof sandbox.envd_version);
    request = sandbox_write_file(provider, &sandbox, "x", STR("data"), 5000, on_done, NULL);
    wait_done();
    assert_non_null(strstr(fake.body, "\r\n\r\ndata\r\n--"));
    request = sandbox_read_file(provider, &sandbox, "x", 100, 5000, on_text, NULL);
    wait_done();
    assert_string_equal(seen.text, "file content");
    request = sandbox_read_file(provider, &sandbox, "x", 5, 5000, on_text, NULL);
    wait_done();
    assert_true(seen.failed);
    assert_int_equal(seen.failure.err.code, ERR_LIMIT);
}

static void input_and_signals(void **state)
{
    (void)state;
    open_provider(NULL);
    struct sandbox sandbox = {.id = "isandbox1"};
    request = sandbox_send_input(provider, &sandbox, 42, STR("hello\n"), 5000, on_done, NULL);
    wait_done();
    assert_string_equal(fake.body, "{\"process\":{\"pid\":42},\"input\":{\"stdin\":\"aGVsbG8K\"}}");
    request = sandbox_close_input(provider, &sandbox, 42, 5000, on_done, NULL);
    wait_done();
    assert_string_equal(fake.path, "/process.Process/CloseStdin");
    request = sandbox_signal(provider, &sandbox, 42, true, 5000, on_done, NULL);
    wait_done();
    assert_string_equal(fake.body, "{\"process\":{\"pid\":42},\"signal\":\"SIGNAL_SIGKILL\"}");
}

static void closing_drops_what_runs(void **state)
{
    (void)state;
    open_provider(NULL);
    fake.start = START_HANGS;
    begin_spawn("", false);
    create(5000);
    request = sandbox_destroy(provider, "x", 5000, on_done, NULL);
    provider_close(&provider);
    assert_int_equal(seen.calls, 0);
}

static void bad_options_are_refused(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    assert_null(
        provider_e2b_open(loop, &(struct provider_e2b_options){.api_url = "x", .api_key = key}, &err));
    assert_null(provider_e2b_open(loop, &(struct provider_e2b_options){.api_url = "http://x"}, &err));
    assert_int_equal(err.code, ERR_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(create_takes_the_second_path),
        T(create_takes_the_first_path_of_older_services),
        T(create_fails_when_nobody_answers),
        T(the_two_429s_differ),
        T(plain_refusals_have_their_class),
        T(ambiguous_creates_are_reconciled),
        T(a_canceled_create_leaves_nothing),
        T(destroy_is_repeated_and_gone_is_done),
        T(ids_are_encoded_in_paths),
        T(ttl_and_snapshots),
        T(lists_have_pages_and_are_filtered_again),
        T(a_program_runs_to_its_end),
        T(a_missing_end_stream_is_tolerated),
        T(a_signal_is_no_exit),
        T(a_cut_stream_with_a_dead_sandbox_is_told),
        T(a_cut_stream_is_attached_again),
        T(a_program_that_nobody_knows_any_more_failed),
        T(failures_before_the_start_have_their_class),
        T(the_host_s_deadline_is_a_timeout),
        T(cancel_inside_an_event_is_silent),
        T(files_go_raw_or_as_forms),
        T(input_and_signals),
        T(closing_drops_what_runs),
        T(bad_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
