/* http client: statuses, timeouts, broken answers, streams, cancels, many at once; against our own server in
 * process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "http/client.h"
#include "http/server.h"
#include "loop/loop.h"

static struct loop *loop;
static struct http_server *server;
static struct http_client *client;
static struct loop_timer *guard;
static char base[64];
static int requests, gone;
static struct http_request *held[8];
static int held_count;

/* ---- the server's side ---- */

static void echo(void *arg, struct http_request *r, struct str body)
{
    (void)arg;
    struct str type;
    http_set_header(r, "X-Method", http_method_text(r));
    http_set_header(r, "X-Type", http_header(r, "Content-Type", &type) ? type : STR("none"));
    http_reply(r, 200, "text/plain", body);
}

static void hold(struct http_request *r)
{
    http_set_data(r, r);
    held[held_count++ % 8] = r;
}

static void on_request(void *arg, struct http_request *r)
{
    (void)arg;
    requests++;
    struct str path = http_path(r);
    uint64_t status;
    if (str_eq_c(path, "/echo")) {
        http_read_body(r, 8 << 20, echo, NULL);
    } else if (str_starts(path, STR("/status/")) && str_to_u64(str_make(path.p + 8, path.n - 8), &status)) {
        http_set_header(r, "Retry-After", STR("7"));
        http_set_header(r, "X-Next-Token", STR("page2"));
        http_reply(r, (int)status, "text/plain", STR("body of it"));
    } else if (str_eq_c(path, "/date")) {
        http_set_header(r, "Retry-After", STR("Fri, 31 Dec 1999 23:59:59 GMT"));
        http_reply(r, 503, NULL, STR(""));
    } else if (str_eq_c(path, "/break")) {
        http_stream_start(r, 200, "text/plain", 100);
        http_stream_write(r, STR("part"));
        hold(r);
    } else if (str_eq_c(path, "/stream")) {
        http_stream_start(r, 200, "text/plain", -1);
        http_stream_write(r, STR("one"));
        hold(r);
    } else if (str_eq_c(path, "/drop")) {
        http_abort(r);
    } else {
        hold(r); /* never answered */
    }
}

static void on_gone(void *arg, struct http_request *r)
{
    (void)arg;
    gone++;
    for (int i = 0; i < 8; i++)
        if (held[i] == r)
            held[i] = NULL;
    loop_stop(loop);
}

/* ---- the client's side ---- */

struct seen {
    int calls, wanted;
    int status;
    enum err_code code;
    int64_t retry_after;
    char next[16], body[64];
    size_t body_bytes, data_bytes;
    int pieces, stop_after;
    struct http_transfer *transfer;
};

static void on_done(void *arg, const struct http_response *r, const struct err *err)
{
    struct seen *s = arg;
    s->calls++;
    s->transfer = NULL;
    s->status = r->status;
    s->code = err != NULL ? err->code : ERR_NONE;
    s->retry_after = r->retry_after_sec;
    s->body_bytes = r->body.n;
    str_copy(r->next_token, s->next, sizeof s->next);
    str_copy(r->body, s->body, sizeof s->body);
    if (s->calls >= s->wanted)
        loop_stop(loop);
}

static bool on_data(void *arg, struct str piece)
{
    struct seen *s = arg;
    s->data_bytes += piece.n;
    s->pieces++;
    loop_stop(loop);
    return s->stop_after == 0 || s->pieces < s->stop_after;
}

static void too_late(void *arg)
{
    (void)arg;
    fail_msg("the test waited for longer than 10 s");
}

static void wait_for_stop(void)
{
    loop_timer_start(guard, 10000);
    loop_run(loop);
    loop_timer_stop(guard);
}

static void begin(struct seen *s, const char *path, struct http_call call)
{
    char url[128];
    snprintf(url, sizeof url, "%s%s", path[0] == '/' ? base : "", path);
    call.url = url;
    call.method = call.method != NULL ? call.method : "GET";
    call.done = on_done;
    call.arg = s;
    s->wanted = 1;
    struct err err = ERR_INIT;
    s->transfer = http_call(client, &call, &err);
    assert_non_null(s->transfer);
}

static struct seen call(const char *path, struct http_call c)
{
    struct seen s = {0};
    begin(&s, path, c);
    while (s.calls == 0) /* the server's on_gone stops the loop, too */
        wait_for_stop();
    return s;
}

static int setup(void **state)
{
    (void)state;
    loop = loop_new();
    struct err err = ERR_INIT;
    server =
        http_server_open(loop,
                         &(struct http_server_options){.listen = "127.0.0.1:0",
                                                       .app = {.on_request = on_request, .on_gone = on_gone}},
                         &err);
    client = http_client_open(loop, &(struct http_client_options){.user_agent = "test"}, &err);
    guard = loop_timer_new(loop, too_late, NULL);
    snprintf(base, sizeof base, "http://127.0.0.1:%d", http_server_port(server));
    requests = gone = held_count = 0;
    memset(held, 0, sizeof held);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    http_client_close(&client);
    http_server_close(&server);
    loop_timer_free(&guard);
    loop_free(&loop);
    return 0;
}

static void answers_come_with_their_parts(void **state)
{
    (void)state;
    static const int codes[] = {200, 404, 429, 500, 503};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        char path[32];
        snprintf(path, sizeof path, "/status/%d", codes[i]);
        struct seen s = call(path, (struct http_call){0});
        assert_int_equal(s.code, ERR_NONE);
        assert_int_equal(s.status, codes[i]);
        assert_int_equal(s.retry_after, 7);
        assert_string_equal(s.next, "page2");
        assert_string_equal(s.body, "body of it");
    }
    assert_int_equal(http_server_connections(server), 1); /* kept alive */
    assert_int_equal(call("/date", (struct http_call){0}).retry_after, -1);
    struct seen s = call("/status/204", (struct http_call){.method = "DELETE"});
    assert_int_equal(s.status, 204);
    s = call("/status/200", (struct http_call){.method = "HEAD"});
    assert_int_equal(s.status, 200);
    assert_int_equal(s.body_bytes, 0);
    assert_int_equal(http_client_active(client), 0);
}

static void bodies_go_out_copied_or_borrowed(void **state)
{
    (void)state;
    static char big[3 << 20];
    memset(big, 'x', sizeof big);
    struct str body = str_make(big, sizeof big);
    struct seen s = call(
        "/echo",
        (struct http_call){.method = "POST", .body = body, .body_borrowed = true, .max_body = sizeof big});
    assert_int_equal(s.body_bytes, sizeof big);
    s = call("/echo", (struct http_call){.method = "PUT", .body = body, .max_body = sizeof big});
    assert_int_equal(s.body_bytes, sizeof big);
    const char *headers[] = {"Content-Type: application/json", NULL};
    s = call("/echo", (struct http_call){.method = "POST", .body = STR("{}"), .headers = headers});
    assert_string_equal(s.body, "{}");
    s = call("/echo", (struct http_call){.method = "POST"});
    assert_int_equal(s.status, 200);
    assert_int_equal(s.body_bytes, 0);
}

static void too_large_an_answer_is_refused(void **state)
{
    (void)state;
    struct seen s =
        call("/echo", (struct http_call){.method = "POST", .body = STR("0123456789"), .max_body = 9});
    assert_int_equal(s.code, ERR_LIMIT);
}

static void timeouts_and_no_connection_differ(void **state)
{
    (void)state;
    assert_int_equal(call("/never", (struct http_call){.timeout_ms = 80}).code, ERR_TIMEOUT);
    assert_int_equal(call("/never", (struct http_call){.idle_timeout_ms = 80}).code, ERR_TIMEOUT);
    assert_int_equal(call("http://127.0.0.1:1/", (struct http_call){0}).code, ERR_IO);
    assert_int_equal(call("http://no-such-host.invalid/", (struct http_call){.timeout_ms = 5000}).code,
                     ERR_IO);
    assert_int_equal(call("ftp://127.0.0.1/", (struct http_call){0}).code, ERR_IO);
    assert_int_equal(call("nonsense://", (struct http_call){0}).code, ERR_IO);
}

static void private_addresses_can_be_refused(void **state)
{
    (void)state;
    static const struct http_guard closed; /* allows nothing that is private */
    assert_int_equal(call("/status/200", (struct http_call){.guard = &closed}).code, ERR_FORBIDDEN);
    assert_int_equal(call("http://[::ffff:127.0.0.1]/", (struct http_call){.guard = &closed}).code,
                     ERR_FORBIDDEN);
    assert_int_equal(call("http://169.254.169.254/", (struct http_call){.guard = &closed}).code,
                     ERR_FORBIDDEN);
    assert_int_equal(requests, 0);
}

static void a_broken_answer_is_told(void **state)
{
    (void)state;
    assert_int_equal(call("/drop", (struct http_call){0}).code, ERR_PROTOCOL);
    struct seen s = {0};
    begin(&s, "/break", (struct http_call){.on_data = on_data});
    wait_for_stop();
    assert_int_equal(s.data_bytes, 4);
    http_abort(held[0]);
    wait_for_stop();
    assert_int_equal(s.calls, 1);
    assert_int_equal(s.code, ERR_PROTOCOL);
    assert_int_equal(s.status, 200);
    assert_int_equal(gone, 0);
}

static void a_stream_comes_in_pieces(void **state)
{
    (void)state;
    struct seen s = {0};
    begin(&s, "/stream", (struct http_call){.on_data = on_data, .idle_timeout_ms = 5000});
    wait_for_stop();
    assert_int_equal(s.data_bytes, 3);
    http_stream_write(held[0], STR("two"));
    wait_for_stop();
    assert_int_equal(s.data_bytes, 6);
    http_stream_end(held[0]);
    wait_for_stop();
    assert_int_equal(s.calls, 1);
    assert_int_equal(s.code, ERR_NONE);
    assert_int_equal(s.body_bytes, 0);
}

static void a_stream_can_be_refused_by_its_owner(void **state)
{
    (void)state;
    struct seen s = {.stop_after = 1};
    begin(&s, "/stream", (struct http_call){.on_data = on_data});
    while (s.calls == 0 || gone == 0)
        wait_for_stop();
    assert_int_equal(s.code, ERR_CANCELED);
}

static void cancel_is_silent_and_hangs_up(void **state)
{
    (void)state;
    struct seen s = {0};
    begin(&s, "/stream", (struct http_call){.on_data = on_data});
    wait_for_stop();
    http_cancel(&s.transfer);
    assert_null(s.transfer);
    http_cancel(&s.transfer);
    while (gone == 0)
        wait_for_stop();
    assert_int_equal(s.calls, 0);
    assert_int_equal(http_client_active(client), 0);
}

static bool cancel_in_data(void *arg, struct str piece)
{
    struct seen *s = arg;
    s->data_bytes += piece.n;
    http_cancel(&s->transfer);
    return true;
}

static void cancel_inside_its_own_data_is_fine(void **state)
{
    (void)state;
    struct seen s = {0};
    begin(&s, "/stream", (struct http_call){.on_data = cancel_in_data});
    while (gone == 0)
        wait_for_stop();
    assert_int_equal(s.data_bytes, 3);
    assert_int_equal(s.calls, 0);
}

static void hundreds_run_at_once(void **state)
{
    (void)state;
    enum { N = 700 };
    struct seen s = {0};
    for (int i = 0; i < N; i++) {
        begin(&s, i % 2 == 0 ? "/status/200" : "/echo",
              (struct http_call){.method = "POST", .body = STR("b")});
    }
    s.wanted = N;
    assert_int_equal(http_client_active(client), N);
    wait_for_stop();
    assert_int_equal(s.calls, N);
    assert_int_equal(s.status, 200);
    assert_int_equal(requests, N);
}

static void the_limit_refuses(void **state)
{
    (void)state;
    http_client_close(&client);
    struct err err = ERR_INIT;
    client = http_client_open(loop, &(struct http_client_options){.max_transfers = 1}, &err);
    struct seen s = {0};
    begin(&s, "/never", (struct http_call){0});
    char url[128];
    snprintf(url, sizeof url, "%s/", base);
    assert_null(http_call(
        client, &(struct http_call){.method = "GET", .url = url, .done = on_done, .arg = &s}, &err));
    assert_int_equal(err.code, ERR_OVERLOADED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(answers_come_with_their_parts),
        T(bodies_go_out_copied_or_borrowed),
        T(too_large_an_answer_is_refused),
        T(timeouts_and_no_connection_differ),
        T(private_addresses_can_be_refused),
        T(a_broken_answer_is_told),
        T(a_stream_comes_in_pieces),
        T(a_stream_can_be_refused_by_its_owner),
        T(cancel_is_silent_and_hangs_up),
        T(cancel_inside_its_own_data_is_fine),
        T(hundreds_run_at_once),
        T(the_limit_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
