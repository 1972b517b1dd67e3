/* http server: raw bytes over a socket, client and server on one loop. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "http/server.h"
#include "loop/loop.h"

static struct loop *loop;
static struct http_server *server;
static struct loop_timer *guard;
static int requests, gone, smuggled, bodies;
static char last_path[64], last_body[256];
static size_t body_bytes;
static struct http_request *held;
static bool pause_stream;

/* ---- the application ---- */

static void echo(void *arg, struct http_request *r, struct str body)
{
    (void)arg;
    bodies++;
    body_bytes = body.n;
    str_copy(body, last_body, sizeof last_body);
    http_reply(r, 200, "text/plain", body);
}

static bool on_data(void *arg, struct http_request *r, struct str piece)
{
    (void)arg;
    held = r;
    body_bytes += piece.n;
    return !pause_stream;
}

static void on_end(void *arg, struct http_request *r)
{
    (void)arg;
    held = NULL;
    bodies++;
    http_reply(r, 200, NULL, STR("streamed"));
}

static void write_more(void *arg, struct http_request *r)
{
    (void)arg;
    static char block[32 * 1024];
    memset(block, 'x', sizeof block);
    while (body_bytes < 8u << 20) {
        body_bytes += sizeof block;
        if (!http_stream_write(r, str_make(block, sizeof block))) {
            http_stream_on_drain(r, write_more, NULL);
            return;
        }
    }
    http_stream_end(r);
}

static void flood(struct http_request *r)
{
    static char block[64 * 1024];
    for (int i = 0; i < 40; i++)
        http_stream_write(r, str_make(block, sizeof block));
    held = NULL;
}

static void on_request(void *arg, struct http_request *r)
{
    (void)arg;
    requests++;
    struct str path = http_path(r);
    str_copy(path, last_path, sizeof last_path);
    smuggled += str_eq_c(path, "/smuggled");
    const struct http_body_stream stream = {.on_data = on_data, .on_end = on_end};
    if (str_eq_c(path, "/echo"))
        http_read_body(r, 1 << 20, echo, NULL);
    else if (str_eq_c(path, "/small"))
        http_read_body(r, 10, echo, NULL);
    else if (str_eq_c(path, "/stream"))
        http_stream_body(r, 64 << 20, &stream);
    else if (str_eq_c(path, "/held"))
        held = r;
    else if (str_eq_c(path, "/big")) {
        http_stream_start(r, 200, "text/plain", -1);
        write_more(NULL, r);
    } else if (str_eq_c(path, "/flood")) {
        http_stream_start(r, 200, "text/plain", -1);
        held = r;
        flood(r);
    } else if (str_eq_c(path, "/chunks")) {
        http_stream_start(r, 200, "text/plain", -1);
        http_stream_write(r, STR("one"));
        http_stream_write(r, STR("twenty-six bytes of content"));
        http_stream_end(r);
    } else if (str_eq_c(path, "/short")) {
        http_stream_start(r, 200, "text/plain", 10);
        http_stream_write(r, STR("short"));
        http_stream_end(r);
    } else {
        http_set_header(r, "X-Evil", STR("a\r\nb: c"));
        http_reply(r, 200, "text/plain", STR("hello"));
    }
}

static void on_gone(void *arg, struct http_request *r)
{
    (void)arg;
    gone++;
    if (held == r)
        held = NULL;
}

static const char *error_body(void *arg, enum err_code code, const char *detail, struct buf *out)
{
    (void)arg;
    buf_printf(out, "%s (%s)", err_code_name(code), detail);
    return "text/x-error";
}

/* ---- a raw client ---- */

struct peer {
    int fd;
    struct loop_io *io;
    struct buf got;
    bool eof, deaf;
    const char *wanted;
    struct str unsent;
};

static void peer_event(void *arg, int fd, int events)
{
    struct peer *p = arg;
    if ((events & LOOP_WRITE) != 0 && p->unsent.n > 0) {
        ssize_t n = send(fd, p->unsent.p, p->unsent.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0)
            p->unsent = str_make(p->unsent.p + n, p->unsent.n - (size_t)n);
        if (n < 0 && errno != EAGAIN)
            p->unsent.n = 0;
        if (p->unsent.n == 0)
            loop_io_set(p->io, p->deaf ? 0 : LOOP_READ);
    }
    if ((events & LOOP_READ) == 0 || p->deaf)
        return;
    char *to = buf_reserve(&p->got, 64 * 1024);
    ssize_t n = recv(fd, to, 64 * 1024, MSG_DONTWAIT);
    if (n > 0)
        buf_commit(&p->got, (size_t)n);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        p->eof = true;
        loop_io_set(p->io, 0);
    }
    bool found = p->wanted != NULL && memmem(p->got.data, p->got.len, p->wanted, strlen(p->wanted)) != NULL;
    if (p->eof || found)
        loop_stop(loop);
}

static void peer_open(struct peer *p)
{
    *p = (struct peer){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)http_server_port(server))};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(p->fd, (struct sockaddr *)&a, sizeof a), 0);
    buf_init(&p->got, 64 << 20);
    p->io = loop_io_new(loop, p->fd, LOOP_READ, peer_event, p);
}

static void peer_close(struct peer *p)
{
    loop_io_free(&p->io);
    close(p->fd);
    buf_deinit(&p->got);
}

/* The bytes must stay valid until they are gone. */
static void peer_send(struct peer *p, struct str bytes)
{
    p->unsent = bytes;
    loop_io_set(p->io, LOOP_WRITE | (p->deaf ? 0 : LOOP_READ));
}

static void too_late(void *arg)
{
    (void)arg;
    fail_msg("the test waited for longer than 10 s");
}

/* Runs until the text has come (NULL: until the server's end). */
static void peer_await(struct peer *p, const char *text)
{
    p->wanted = text;
    bool there =
        text != NULL && p->got.len > 0 && memmem(p->got.data, p->got.len, text, strlen(text)) != NULL;
    loop_timer_start(guard, 10000);
    if (!there && !p->eof)
        loop_run(loop);
    loop_timer_stop(guard);
    if (text != NULL && (p->got.len == 0 || memmem(p->got.data, p->got.len, text, strlen(text)) == NULL))
        fail_msg("\"%s\" did not come, but: %.*s", text, (int)(p->got.len < 500 ? p->got.len : 500),
                 p->got.data);
}

static void stop(void *arg)
{
    (void)arg;
    loop_stop(loop);
}

static void run_for(int64_t ms)
{
    struct loop_timer *t = loop_timer_new(loop, stop, NULL);
    loop_timer_start(t, ms);
    loop_run(loop);
    loop_timer_free(&t);
}

static int count(const struct buf *b, const char *text)
{
    int n = 0;
    struct str rest = buf_view(b);
    const char *at;
    while (rest.n > 0 && (at = memmem(rest.p, rest.n, text, strlen(text))) != NULL) {
        n++;
        rest = str_make(at + 1, rest.n - (size_t)(at - rest.p) - 1);
    }
    return n;
}

/* Sends and reads to the server's end; the caller closes. */
static void exchange(struct peer *p, const char *bytes, size_t n)
{
    peer_open(p);
    peer_send(p, str_make(bytes, n));
    peer_await(p, NULL);
}

static void exchange_text(struct peer *p, const char *text)
{
    exchange(p, text, strlen(text));
}

static int setup(void **state)
{
    (void)state;
    loop = loop_new();
    struct err err = ERR_INIT;
    struct http_server_options o = {
        .listen = "127.0.0.1:0",
        .app = {.on_request = on_request, .on_gone = on_gone, .error_body = error_body},
        .header_timeout_ms = 200,
        .idle_timeout_ms = 400,
        .body_timeout_ms = 200,
        .write_timeout_ms = 400,
        .max_connections = 8,
    };
    server = http_server_open(loop, &o, &err);
    assert_non_null(server);
    guard = loop_timer_new(loop, too_late, NULL);
    requests = gone = smuggled = bodies = 0;
    body_bytes = 0;
    held = NULL;
    pause_stream = false;
    last_body[0] = last_path[0] = '\0';
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    http_server_close(&server);
    loop_timer_free(&guard);
    loop_free(&loop);
    return 0;
}

/* ---- strictness ---- */

#define H "Host: x\r\n"
#define SMUGGLED "GET /smuggled HTTP/1.1\r\n" H "\r\n"
#define BAD(text)              \
    {                          \
        text, sizeof(text) - 1 \
    }

static void malformed_requests_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
    } bad[] = {
        BAD("GET / HTTP/1.1\r\n\r\n"),          /* no Host */
        BAD("GET / HTTP/1.1\r\n" H H "\r\n"),   /* two */
        BAD("GET / HTTP/1.1\r\nHost:\r\n\r\n"), /* empty */
        BAD("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
        BAD("POST /echo HTTP/1.1\r\n" H "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
        BAD("POST /echo HTTP/1.1\r\n" H "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
        BAD("POST /echo HTTP/1.1\r\n" H "Content-Length: 3, 3\r\n\r\nabc"),
        BAD("POST /echo HTTP/1.1\r\n" H "Content-Length: +3\r\n\r\nabc"),
        BAD("POST /echo HTTP/1.1\r\n" H "Content-Length: -3\r\n\r\nabc"),
        BAD("POST /echo HTTP/1.1\r\n" H "Content-Length: 0x3\r\n\r\nabc"),
        BAD("POST /echo HTTP/1.1\r\n" H "Content-Length: 3a\r\n\r\nabc"),
        BAD("POST /echo HTTP/1.1\r\n" H "Content-Length: \r\n\r\nabc"),
        BAD("POST /echo HTTP/1.1\r\n" H "Content-Length: 99999999999999999999\r\n\r\nabc"),
        BAD("POST /echo HTTP/1.1\r\n" H "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        BAD("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"),
        BAD("POST /echo HTTP/1.1\r\n" H
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        BAD("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        BAD("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n"),
        BAD("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        BAD("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
        BAD("POST /echo HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        BAD("POST /echo HTTP/1.1\r\n" H "Content-Length : 3\r\n\r\nabc"),
        BAD("GET / HTTP/1.1\r\nHost : x\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\n" H "A: b\r\n c\r\n\r\n"), /* folding */
        BAD("GET / HTTP/1.1\r\n" H "A: b\r\n\tc\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\n Host: x\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\n" H ": empty\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\n" H "no colon\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\n" H "bad name: x\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\n" H "A\x01: x\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\n" H "A: x\x01y\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\n" H "A: x\0y\r\n\r\n"), /* NUL */
        BAD("GET /\0 HTTP/1.1\r\n" H "\r\n"),
        BAD("GET / HTTP/1.1\n"
            "Host: x\n\n"), /* bare LF */
        BAD("GET / HTTP/1.1\r\nHost: x\n\r\n"),
        BAD("GET / HTTP/1.1\r\n" H "\n"),
        BAD("GET / HTTP/1.1\r\n" H "A: b\rC: d\r\n\r\n"), /* bare CR */
        BAD("GET / HTTP/1.1\r" H "\r\n\r\n"),
        BAD("GET http://x/ HTTP/1.1\r\n" H "\r\n"), /* absolute form */
        BAD("GET x HTTP/1.1\r\n" H "\r\n"),
        BAD("GET * HTTP/1.1\r\n" H "\r\n"),
        BAD("GET /a b HTTP/1.1\r\n" H "\r\n"),
        BAD("GET /a#b HTTP/1.1\r\n" H "\r\n"),
        BAD("GET /a\x80 HTTP/1.1\r\n" H "\r\n"),
        BAD("GET /a\tb HTTP/1.1\r\n" H "\r\n"),
        BAD("GET  / HTTP/1.1\r\n" H "\r\n"),
        BAD("GET /  HTTP/1.1\r\n" H "\r\n"),
        BAD(" GET / HTTP/1.1\r\n" H "\r\n"),
        BAD("GET / HTTP/1.1 \r\n" H "\r\n"),
        BAD("GET /\r\n" H "\r\n"),
        BAD("GET / HTTP/2.0\r\n" H "\r\n"),
        BAD("GET / HTTP/0.9\r\n" H "\r\n"),
        BAD("GET / HTTP/1.2\r\n" H "\r\n"),
        BAD("GET / HTTP/1.10\r\n" H "\r\n"),
        BAD("GET / http/1.1\r\n" H "\r\n"),
        BAD("GET / RTSP/1.0\r\n" H "\r\n"),
        BAD("SOURCE / ICE/1.0\r\n" H "\r\n"),
        BAD("get / HTTP/1.1\r\n" H "\r\n"),
        BAD("FOO / HTTP/1.1\r\n" H "\r\n"),
        BAD("CONNECT x:1 HTTP/1.1\r\n" H "\r\n"),
        BAD("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        BAD("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), /* TLS */
        BAD("\r\n\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n"),
#define C "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
        BAD(C "5\nhello\r\n0\r\n\r\n"),
        BAD(C "5\r\nhello\n0\r\n\r\n"),
        BAD(C "5\r\nhello\r\n0\n\r\n"),
        BAD(C "5\r\nhello\r\n0\r\n\n"),
        BAD(C "5\r\nhelloX\r\n0\r\n\r\n"),
        BAD(C "5 \r\nhello\r\n0\r\n\r\n"),
        BAD(C " 5\r\nhello\r\n0\r\n\r\n"),
        BAD(C "0x5\r\nhello\r\n0\r\n\r\n"),
        BAD(C "-5\r\nhello\r\n0\r\n\r\n"),
        BAD(C "\r\nhello\r\n0\r\n\r\n"),
        BAD(C "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        BAD(C "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        BAD(C "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        BAD(C "5\r\nhello\r\n0\r\nT: a\n\r\n"),
        BAD(C "5\r\nhello\r\n0\r\nT: a\r\n b\r\n\r\n"),
        BAD(C "5\r\nhello\r\n0\r\n T: a\r\n\r\n"),
        BAD(C "5\r\nhello\r\n0\r\nT: a\0\r\n\r\n"),
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char bytes[1024];
        memcpy(bytes, bad[i].bytes, bad[i].n);
        memcpy(bytes + bad[i].n, SMUGGLED, sizeof SMUGGLED - 1);
        struct peer p;
        exchange(&p, bytes, bad[i].n + sizeof SMUGGLED - 1);
        bool refused = p.got.len == 0 || str_starts(buf_view(&p.got), STR("HTTP/1.1 400 "));
        if (!refused || smuggled > 0 || bodies > 0 || count(&p.got, "Date: ") > 1)
            fail_msg("case %zu: %s\n--> %.*s", i, bad[i].bytes, (int)p.got.len, p.got.data);
        if (p.got.len > 0)
            assert_true(count(&p.got, "Connection: close") == 1 && count(&p.got, "bad_request (") == 1);
        peer_close(&p);
    }
    assert_int_equal(gone, requests); /* those with a bad chunk */
}

static void good_requests_are_not_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n",
        "GET /a?b=c&d=%20+ HTTP/1.1\r\nHOST:x:80\r\nconnection:\tClose \r\n\r\n",
        "OPTIONS * HTTP/1.1\r\n" H "Connection: close\r\n\r\n",
        "PATCH /x HTTP/1.1\r\nHost: [::1]:8080\r\nConnection: close\r\nEmpty:\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "PROPFIND / HTTP/1.1\r\n" H "Connection: close\r\n\r\n",
        "GET / HTTP/1.1\r\n" H "Connection: upgrade, close\r\nUpgrade: h2c\r\n\r\n",
        "POST /echo HTTP/1.1\r\n" H "Connection: close\r\nContent-Length: 5\r\n\r\nhello",
        "POST /echo HTTP/1.1\r\n" H
        "Connection: close\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\n" H
        "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n05\r\nhello\r\n000\r\nT: v\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct peer p;
        exchange(&p, texts[i], strlen(texts[i]));
        if (!str_starts(buf_view(&p.got), STR("HTTP/1.1 200 OK\r\n")))
            fail_msg("%s\n--> %.*s", texts[i], (int)p.got.len, p.got.data);
        peer_close(&p);
    }
    assert_int_equal(gone, 0);
}

static void every_division_of_a_request_is_read_the_same(void **state)
{
    (void)state;
    static const char text[] =
        "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n1\r\n!\r\n0\r\n"
        "Hosting: v\r\n\r\nPOST /echo HTTP/1.1\r\n" H "Content-Length: 3\r\nConnection: close\r\n\r\nabc";
    for (size_t cut = 1; cut < sizeof text - 1; cut++) {
        struct peer p;
        peer_open(&p);
        peer_send(&p, str_make(text, cut));
        run_for(1);
        peer_send(&p, str_make(text + cut, sizeof text - 1 - cut));
        peer_await(&p, NULL);
        assert_int_equal(count(&p.got, "HTTP/1.1 200 OK"), 2);
        assert_int_equal(count(&p.got, "hello!"), 1);
        assert_int_equal(count(&p.got, "\r\n\r\nabc"), 1);
        peer_close(&p);
    }
}

static void limits_have_their_statuses(void **state)
{
    (void)state;
    static char big[40000];
    struct peer p;
    size_t n = (size_t)snprintf(big, sizeof big, "GET / HTTP/1.1\r\n" H "A: ");
    memset(big + n, 'a', sizeof big - n);
    exchange(&p, big, 30000);
    peer_await(&p, "HTTP/1.1 431 ");
    peer_close(&p);
    memset(big, 'a', sizeof big);
    memcpy(big, "GET /", 5);
    exchange(&p, big, 30000);
    peer_await(&p, "HTTP/1.1 414 ");
    peer_close(&p);
    n = (size_t)snprintf(big, sizeof big, "GET / HTTP/1.1\r\n" H);
    for (int i = 0; i < 100; i++)
        n += (size_t)snprintf(big + n, sizeof big - n, "A: b\r\n");
    n += (size_t)snprintf(big + n, sizeof big - n, "\r\n");
    exchange(&p, big, n);
    peer_await(&p, "HTTP/1.1 431 ");
    peer_close(&p);
    assert_int_equal(requests, 0);
    exchange_text(&p, "GET / HTTP/1.1\r\n" H "Expect: magic\r\n\r\n");
    peer_await(&p, "HTTP/1.1 417 ");
    peer_close(&p);
    static const char *const large[] = {"POST /small HTTP/1.1\r\n" H "Content-Length: 11\r\n\r\n01234567890",
                                        "POST /small HTTP/1.1\r\n" H
                                        "Transfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n"};
    for (int i = 0; i < 2; i++) {
        exchange(&p, large[i], strlen(large[i]));
        peer_await(&p, "HTTP/1.1 413 ");
        assert_int_equal(gone, i + 1);
        peer_close(&p);
    }
}

/* ---- slow and many clients ---- */

/* The same application behind other limits. */
static void reopen(struct http_server_options o)
{
    struct err err = ERR_INIT;
    http_server_close(&server);
    o.listen = "127.0.0.1:0";
    o.app = (struct http_app){.on_request = on_request, .on_gone = on_gone, .error_body = error_body};
    server = http_server_open(loop, &o, &err);
    assert_non_null(server);
}

/* Sends a body of 5,000 bytes in pieces, one each 20 ms; how many went before the answer came. */
static int trickle(struct peer *p, struct str piece)
{
    int sent = 0;
    peer_open(p);
    peer_send(p, STR("POST /echo HTTP/1.1\r\n" H "Content-Length: 5000\r\n\r\n"));
    run_for(20);
    for (; sent * piece.n < 5000 && p->got.len == 0; sent++) {
        peer_send(p, piece);
        run_for(20);
    }
    return sent;
}

static void a_body_that_trickles_is_refused(void **state)
{
    (void)state;
    struct peer p;
    reopen((struct http_server_options){.body_span_ms = 200, .body_min_rate = 1000, .body_timeout_ms = 5000});
    assert_in_range(trickle(&p, STR("x")), 5, 60); /* each byte renews the silence, and nothing else */
    peer_await(&p, "too slowly");
    assert_int_equal(count(&p.got, "HTTP/1.1 408 "), 1);
    assert_int_equal(count(&p.got, "\r\nRetry-After: 1\r\n"), 1);
    assert_int_equal(gone, 1);
    peer_close(&p);
}

static void a_body_has_a_deadline_as_a_whole(void **state)
{
    (void)state;
    struct peer p;
    reopen((struct http_server_options){
        .body_span_ms = 100, .body_min_rate = 1, .body_timeout_ms = 5000, .body_whole_ms = 400});
    assert_in_range(trickle(&p, STR("0123456789")), 10, 100); /* faster than the least rate, yet too slow */
    peer_await(&p, "as a whole");
    assert_int_equal(count(&p.got, "HTTP/1.1 408 "), 1);
    peer_close(&p);
}

static void a_body_at_a_fair_rate_is_not_refused(void **state)
{
    (void)state;
    struct peer p;
    static char piece[500];
    memset(piece, 'x', sizeof piece);
    reopen((struct http_server_options){.body_span_ms = 50, .body_min_rate = 1000, .body_timeout_ms = 100});
    assert_int_equal(trickle(&p, str_make(piece, sizeof piece)), 10);
    peer_await(&p, "HTTP/1.1 200 ");
    peer_close(&p);
}

static void bodies_have_one_budget(void **state)
{
    (void)state;
    enum { HOLDERS = 3, BYTES = 200000 };
    struct peer p[HOLDERS], late, small;
    static char half[BYTES], whole[BYTES + 100];
    reopen((struct http_server_options){.max_body_bytes = 1 << 20});
    size_t n =
        (size_t)snprintf(half, sizeof half, "POST /echo HTTP/1.1\r\n" H "Content-Length: %d\r\n\r\n", BYTES);
    memset(half + n, 'x', sizeof half - n);
    for (int i = 0; i < HOLDERS; i++) {
        peer_open(&p[i]);
        peer_send(&p[i], str_make(half, sizeof half));
        run_for(50);
    }
    size_t bytes = http_server_body_bytes(server);
    assert_in_range(bytes, HOLDERS * (BYTES - 200), 1 << 20);
    exchange(&late, half, sizeof half); /* by its announced length already */
    peer_await(&late, "HTTP/1.1 503 ");
    assert_int_equal(count(&late.got, "overloaded (too many bodies are held)"), 1);
    assert_int_equal(count(&late.got, "\r\nRetry-After: 1\r\n"), 1);
    exchange_text(&small, "POST /echo HTTP/1.1\r\n" H "Connection: close\r\nContent-Length: 5\r\n\r\nhello");
    peer_await(&small, "HTTP/1.1 200 "); /* small ones have a part of their own */
    peer_close(&small);
    peer_close(&late);
    for (int i = 0; i < HOLDERS; i++)
        peer_close(&p[i]);
    run_for(50);
    assert_int_equal(http_server_body_bytes(server), 0);
    n = (size_t)snprintf(whole, sizeof whole,
                         "POST /echo HTTP/1.1\r\n" H "Connection: close\r\nContent-Length: %d\r\n\r\n",
                         BYTES - 1000);
    memset(whole + n, 'x', BYTES - 1000);
    exchange(&late, whole, n + BYTES - 1000);
    peer_await(&late, "HTTP/1.1 200 ");
    peer_close(&late);
}

static void an_announced_length_takes_no_memory(void **state)
{
    (void)state;
    struct peer p[4];
    for (int i = 0; i < 4; i++) {
        peer_open(&p[i]);
        peer_send(&p[i], STR("POST /echo HTTP/1.1\r\n" H "Content-Length: 1000000\r\n\r\n"));
        run_for(10);
        peer_send(&p[i], STR("x"));
        run_for(10);
    }
    assert_in_range(http_server_body_bytes(server), 4, 4 * 8192);
    for (int i = 0; i < 4; i++)
        peer_close(&p[i]);
}

static void a_full_server_drops_who_was_quiet_longest(void **state)
{
    (void)state;
    struct peer first, second, third;
    reopen((struct http_server_options){.max_connections = 2, .evict_after_ms = 100});
    peer_open(&first);
    peer_send(&first, STR("GET / HTTP/1.1\r\n")); /* and no more */
    peer_open(&second);
    run_for(20);
    peer_open(&third);
    peer_await(&third, "HTTP/1.1 503 "); /* both are young */
    peer_await(&third, NULL);
    peer_close(&third);
    run_for(150);
    peer_send(&second, STR("GET / HTTP/1.1\r\n" H "\r\n"));
    peer_await(&second, "hello"); /* it moved */
    peer_open(&third);
    peer_send(&third, STR("GET / HTTP/1.1\r\n" H "\r\n"));
    peer_await(&first, NULL);
    peer_await(&third, "hello");
    assert_true(first.eof);
    assert_false(second.eof);
    assert_int_equal(http_server_evicted(server), 1);
    assert_int_equal(http_server_connections(server), 2);
    peer_close(&first);
    peer_close(&second);
    peer_close(&third);
}

static void who_waits_for_an_answer_is_not_dropped(void **state)
{
    (void)state;
    struct peer waits, other;
    reopen((struct http_server_options){.max_connections = 1, .evict_after_ms = 50});
    peer_open(&waits);
    peer_send(&waits, STR("GET /held HTTP/1.1\r\n" H "\r\n"));
    run_for(100);
    peer_open(&other);
    peer_await(&other, "HTTP/1.1 503 ");
    http_reply(held, 200, NULL, STR("at last"));
    peer_await(&waits, "at last");
    peer_close(&other);
    peer_close(&waits);
}

static void queries_are_checked_against_a_list(void **state)
{
    (void)state;
    static const char *const known[] = {"wait", "limit", "metadata.", NULL};
    static const struct {
        const char *target, *said; /* NULL: in order */
    } rows[] = {
        {"/held", NULL},
        {"/held?", NULL},
        {"/held?wait=1&limit=2", NULL},
        {"/held?&&wait=1&", NULL},
        {"/held?w%61it", NULL},
        {"/held?metadata.a=1&metadata.a=2&metadata.b=3", NULL},
        {"/held?wait=1&wait=1", "more than once"},
        {"/held?wiat=1", "did you mean \"wait\"?"},
        {"/held?limits=1", "did you mean \"limit\"?"},
        {"/held?metadata.=1", "unknown query parameter"},
        {"/held?zzzzzz=1", "unknown query parameter \"zzzzzz\""},
        {"/held?=1", "unknown query parameter \"\""},
        {"/held?wait=%zz", "malformed"},
        {"/held?%z=1", "malformed"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct peer p;
        struct err err = ERR_INIT;
        char text[200];
        int n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\n" H "\r\n", rows[i].target);
        peer_open(&p);
        peer_send(&p, str_make(text, (size_t)n));
        run_for(10);
        assert_non_null(held);
        int rc = http_query_check(held, known, &err);
        if ((rc == 0) != (rows[i].said == NULL) || (rc != 0 && strstr(err.msg, rows[i].said) == NULL))
            fail_msg("%s: %s", rows[i].target, err.msg);
        http_reply(held, 200, NULL, STR("done"));
        peer_await(&p, "done");
        peer_close(&p);
        held = NULL;
    }
}

/* ---- rows of requests ---- */

static void ten_thousand_pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    enum { N = 10000 };
    static char bytes[N * 80];
    size_t n = 0;
    for (int i = 0; i < N; i++)
        n += (size_t)snprintf(bytes + n, sizeof bytes - n,
                              "POST /echo HTTP/1.1\r\n" H "Content-Length: 6\r\n\r\n=%05d", i);
    struct peer p;
    peer_open(&p);
    peer_send(&p, str_make(bytes, n));
    peer_await(&p, "=09999");
    assert_int_equal(requests, N);
    assert_int_equal(count(&p.got, "HTTP/1.1 200 OK"), N);
    struct str rest = buf_view(&p.got);
    for (int i = 0; i < N; i++) {
        char wanted[32];
        snprintf(wanted, sizeof wanted, "\r\n\r\n=%05d", i);
        const char *at = memmem(rest.p, rest.n, wanted, strlen(wanted));
        assert_non_null(at);
        rest = str_make(at + 1, rest.n - (size_t)(at + 1 - rest.p));
    }
    peer_close(&p);
}

static void a_pipelined_request_waits_for_the_one_before(void **state)
{
    (void)state;
    struct peer p;
    peer_open(&p);
    peer_send(&p, STR("GET /held HTTP/1.1\r\n" H "\r\nGET / HTTP/1.1\r\n" H "\r\n"));
    run_for(20);
    assert_int_equal(requests, 1);
    http_reply(held, 200, NULL, STR("first"));
    peer_await(&p, "hello");
    assert_int_equal(requests, 2);
    assert_int_equal(count(&p.got, "first"), 1);
    assert_int_equal(count(&p.got, "\r\nb: c"), 0); /* no header was injected */
    peer_close(&p);
}

static void a_pipeline_that_is_not_read_is_held_back(void **state)
{
    (void)state;
    enum { N = 400000 };
    static char bytes[N * 30];
    size_t n = 0;
    while (n < sizeof bytes - 64)
        n += (size_t)snprintf(bytes + n, sizeof bytes - n, "GET / HTTP/1.1\r\n" H "\r\n");
    struct peer p;
    peer_open(&p);
    p.deaf = true;
    peer_send(&p, str_make(bytes, n));
    run_for(300);
    int before = requests;
    run_for(100);
    assert_true(requests == before || gone == 0);
    assert_true(p.unsent.n > 0);
    for (int i = 0; i < 200 && http_server_connections(server) > 0; i++)
        run_for(50); /* the write deadline */
    assert_int_equal(http_server_connections(server), 0);
    peer_close(&p);
}

/* ---- answers ---- */

static void heads_have_no_bodies(void **state)
{
    (void)state;
    struct peer p;
    exchange_text(&p, "HEAD /chunks HTTP/1.1\r\n" H "\r\nHEAD / HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    assert_int_equal(count(&p.got, "HTTP/1.1 200 OK"), 2);
    assert_int_equal(count(&p.got, "one"), 0);
    assert_int_equal(count(&p.got, "hello"), 0);
    assert_int_equal(count(&p.got, "Content-Length: 5\r\n"), 1);
    peer_close(&p);
}

static void streams_are_chunked_but_not_to_1_0(void **state)
{
    (void)state;
    struct peer p;
    peer_open(&p);
    peer_send(&p, STR("GET /chunks HTTP/1.1\r\n" H "\r\n"));
    peer_await(&p, "0\r\n\r\n");
    peer_await(&p, "\r\n\r\n3\r\none\r\n1b\r\ntwenty-six bytes of content\r\n0\r\n\r\n");
    peer_close(&p);
    exchange_text(&p, "GET /chunks HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    peer_await(&p, "\r\n\r\nonetwenty-six bytes of content");
    assert_int_equal(count(&p.got, "chunked"), 0);
    peer_close(&p);
    peer_open(&p);
    peer_send(&p, STR("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    peer_await(&p, "Connection: keep-alive");
    peer_send(&p, STR("GET / HTTP/1.0\r\n\r\n"));
    peer_await(&p, NULL);
    assert_int_equal(count(&p.got, "hello"), 2);
    peer_close(&p);
}

static void an_answer_that_falls_short_breaks(void **state)
{
    (void)state;
    struct peer p;
    exchange_text(&p, "GET /short HTTP/1.1\r\n" H "\r\n");
    assert_true(p.eof);
    assert_int_equal(gone, 0);
    peer_close(&p);
}

static void a_large_stream_waits_for_its_reader(void **state)
{
    (void)state;
    struct peer p;
    peer_open(&p);
    p.deaf = true;
    peer_send(&p, STR("GET /big HTTP/1.1\r\n" H "Connection: close\r\n\r\n"));
    run_for(50);
    size_t stuck = body_bytes;
    assert_true(stuck < 8u << 20); /* it stopped: the kernel's buffers and ours are full */
    p.deaf = false;
    loop_io_set(p.io, LOOP_READ);
    peer_await(&p, NULL);
    assert_int_equal(body_bytes, 8u << 20);
    assert_true(p.got.len > 8u << 20);
    assert_int_equal(gone, 0);
    peer_close(&p);
}

static void a_writer_that_ignores_back_pressure_is_cut(void **state)
{
    (void)state;
    struct peer p;
    peer_open(&p);
    peer_send(&p, STR("GET /flood HTTP/1.1\r\n" H "\r\n"));
    peer_await(&p, NULL);
    assert_int_equal(gone, 1);
    peer_close(&p);
}

/* ---- bodies ---- */

static void expect_continue_is_answered(void **state)
{
    (void)state;
    struct peer p;
    peer_open(&p);
    peer_send(&p, STR("POST /echo HTTP/1.1\r\n" H "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"));
    peer_await(&p, "HTTP/1.1 100 Continue\r\n\r\n");
    peer_send(&p, STR("hello"));
    peer_await(&p, "\r\n\r\nhello");
    assert_int_equal(count(&p.got, "HTTP/1.1 200 OK"), 1);
    peer_close(&p);
    exchange_text(&p, "POST /nobody HTTP/1.1\r\n" H "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_int_equal(count(&p.got, "Connection: close"), 1); /* it was never asked for */
    peer_close(&p);
}

static void a_body_that_nobody_wants_is_swallowed_or_ends_the_connection(void **state)
{
    (void)state;
    static char bytes[300000];
    struct peer p;
    size_t n =
        (size_t)snprintf(bytes, sizeof bytes, "POST /unread HTTP/1.1\r\n" H "Content-Length: 60000\r\n\r\n");
    memset(bytes + n, 'x', 60000);
    n += 60000;
    n += (size_t)snprintf(bytes + n, sizeof bytes - n,
                          "GET /second HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    exchange(&p, bytes, n);
    assert_int_equal(count(&p.got, "HTTP/1.1 200 OK"), 2);
    peer_close(&p);
    n = (size_t)snprintf(bytes, sizeof bytes, "POST /unread HTTP/1.1\r\n" H "Content-Length: 200000\r\n\r\n");
    memset(bytes + n, 'x', 200000);
    exchange(&p, bytes, n + 200000);
    assert_int_equal(count(&p.got, "HTTP/1.1 200 OK"), 1);
    assert_int_equal(count(&p.got, "Connection: close"), 1);
    peer_close(&p);
}

static void large_bodies_arrive_whole(void **state)
{
    (void)state;
    static char bytes[1 << 20];
    struct peer p;
    size_t n =
        (size_t)snprintf(bytes, sizeof bytes,
                         "POST /echo HTTP/1.1\r\n" H "Content-Length: 1000000\r\nConnection: close\r\n\r\n");
    for (size_t i = n; i < n + 1000000; i++)
        bytes[i] = (char)('a' + i % 26);
    exchange(&p, bytes, n + 1000000);
    assert_int_equal(body_bytes, 1000000);
    assert_memory_equal(p.got.data + p.got.len - 1000000, bytes + n, 1000000);
    peer_close(&p);
}

static void a_paused_body_stops_its_sender(void **state)
{
    (void)state;
    enum { N = 16 << 20 };
    static char bytes[N + 200];
    size_t n =
        (size_t)snprintf(bytes, sizeof bytes, "POST /stream HTTP/1.1\r\n" H "Content-Length: %d\r\n\r\n", N);
    struct peer p;
    pause_stream = true;
    peer_open(&p);
    peer_send(&p, str_make(bytes, n + N));
    run_for(300); /* longer than the body's deadline: a pause of ours does not count */
    assert_true(body_bytes > 0 && body_bytes < 1 << 20);
    assert_true(p.unsent.n > 0);
    assert_int_equal(gone, 0);
    pause_stream = false;
    http_body_resume(held);
    peer_await(&p, "streamed");
    assert_int_equal(body_bytes, N);
    peer_close(&p);
}

/* ---- time and hang-ups ---- */

static void slow_peers_are_let_go(void **state)
{
    (void)state;
    struct peer p;
    exchange_text(&p, "GET / HTT");
    peer_await(&p, "HTTP/1.1 408 ");
    peer_close(&p);
    exchange_text(&p, "POST /echo HTTP/1.1\r\n" H "Content-Length: 9\r\n\r\nabc");
    peer_await(&p, "HTTP/1.1 408 ");
    assert_int_equal(gone, 1);
    peer_close(&p);
    exchange(&p, "", 0); /* idle */
    assert_int_equal(p.got.len, 0);
    peer_close(&p);
    peer_open(&p);
    peer_send(&p, STR("GET /held HTTP/1.1\r\n" H "\r\n"));
    run_for(700); /* a waiting request has no deadline here */
    assert_non_null(held);
    http_reply(held, 200, NULL, STR("patience"));
    peer_await(&p, "patience");
    peer_close(&p);
}

static void a_hang_up_is_seen_while_waiting(void **state)
{
    (void)state;
    for (int half = 0; half < 2; half++) {
        struct peer p;
        peer_open(&p);
        peer_send(&p, STR("GET /held HTTP/1.1\r\n" H "\r\nGET / HTTP/1.1\r\n" H "\r\n"));
        run_for(20);
        assert_non_null(held);
        assert_int_equal(gone, half);
        if (half == 1)
            shutdown(p.fd, SHUT_WR);
        else
            peer_close(&p);
        run_for(20);
        assert_int_equal(gone, half + 1);
        assert_null(held);
        if (half == 1)
            peer_close(&p);
    }
    assert_int_equal(http_server_connections(server), 0);
    assert_int_equal(requests, 2);
}

static void a_client_that_shuts_its_side_still_gets_a_prompt_answer(void **state)
{
    (void)state;
    struct peer p;
    peer_open(&p);
    static const char text[] = "GET /chunks HTTP/1.1\r\n" H "\r\n";
    assert_int_equal(send(p.fd, text, sizeof text - 1, 0), sizeof text - 1);
    shutdown(p.fd, SHUT_WR);
    peer_await(&p, "0\r\n\r\n");
    peer_close(&p);
}

static void draining_ends_idle_connections_and_marks_answers(void **state)
{
    (void)state;
    struct peer idle, silent, busy;
    peer_open(&idle);
    peer_open(&silent);
    peer_open(&busy);
    peer_send(&idle, STR("GET /one HTTP/1.1\r\n" H "\r\n"));
    peer_await(&idle, "hello");
    peer_send(&busy, STR("GET /held HTTP/1.1\r\n" H "\r\n"));
    run_for(20);
    http_server_drain(server);
    peer_await(&idle, NULL);
    http_reply(held, 200, NULL, STR("bye"));
    peer_await(&busy, NULL);
    assert_int_equal(count(&busy.got, "Connection: close"), 1);
    assert_false(silent.eof); /* it may ask yet */
    peer_await(&silent, NULL);
    assert_int_equal(silent.got.len, 0);
    peer_close(&idle);
    peer_close(&silent);
    peer_close(&busy);
    run_for(20);
    assert_int_equal(http_server_connections(server), 0);
}

/* Whatever a client has sent before it could know: behind an answer on a kept connection, on a new one, and
 * on one that is not accepted yet. */
static void draining_answers_what_was_sent_before(void **state)
{
    (void)state;
    static const char text[] = "GET /last HTTP/1.1\r\n" H "\r\n";
    struct peer kept, fresh, waiting, late;
    peer_open(&kept);
    peer_open(&fresh);
    peer_open(&late);
    peer_send(&kept, STR("GET /one HTTP/1.1\r\n" H "\r\n"));
    peer_await(&kept, "hello");
    run_for(20);
    peer_open(&waiting); /* from here on the loop does not run */
    struct peer *const all[] = {&kept, &fresh, &waiting};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(send(all[i]->fd, text, sizeof text - 1, 0), sizeof text - 1);
    http_server_drain(server);
    for (size_t i = 0; i < 3; i++) {
        peer_await(all[i], NULL);
        assert_int_equal(count(&all[i]->got, "Connection: close"), 1);
    }
    peer_send(&late, STR("GET /last HTTP/1.1\r\n" H "\r\n"));
    peer_await(&late, NULL);
    assert_int_equal(count(&late.got, "Connection: close"), 1);
    for (size_t i = 0; i < 3; i++)
        peer_close(all[i]);
    peer_close(&late);
    run_for(20);
    assert_int_equal(http_server_connections(server), 0);
}

static void beyond_the_limit_connections_get_503(void **state)
{
    (void)state;
    struct peer p[9];
    for (int i = 0; i < 9; i++)
        peer_open(&p[i]);
    peer_await(&p[8], "HTTP/1.1 503 ");
    assert_in_range(http_server_connections(server), 8, 9); /* the ninth only while it is told */
    peer_await(&p[8], NULL);
    for (int i = 0; i < 9; i++)
        peer_close(&p[i]);
}

static void queries_are_decoded(void **state)
{
    (void)state;
    struct peer p;
    peer_open(&p);
    peer_send(&p,
              STR("GET /held?a=1&b=x%20y+z&c&%64=%zz HTTP/1.1\r\nhOsT: x\r\nX-A: \t v \r\nx-a: w\r\n\r\n"));
    run_for(20);
    struct str v;
    struct err err = ERR_INIT;
    assert_int_equal(http_query_get(held, "b", &v, &err), 1);
    assert_true(str_eq_c(v, "x y z"));
    assert_int_equal(http_query_get(held, "c", &v, &err), 1);
    assert_int_equal(v.n, 0);
    assert_int_equal(http_query_get(held, "d", &v, &err), -1);
    assert_int_equal(http_query_get(held, "a", &v, &err), 1);
    assert_true(http_header(held, "X-A", &v));
    assert_true(str_eq_c(v, "v"));
    assert_int_equal(http_header_count(held, "x-A"), 2);
    assert_false(http_header(held, "X-B", &v));
    assert_string_equal(http_peer(held), "127.0.0.1");
    assert_true(http_decode(held, STR("a%2Fb+"), false, &v));
    assert_true(str_eq_c(v, "a/b+"));
    assert_false(http_decode(held, STR("%2"), false, &v));
    assert_false(http_decode(held, STR("%"), false, &v));
    http_reply(held, 204, NULL, STR(""));
    peer_await(&p, "HTTP/1.1 204 No Content\r\n");
    assert_int_equal(count(&p.got, "Content-Length"), 0);
    peer_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(malformed_requests_are_refused),
        T(good_requests_are_not_refused),
        T(every_division_of_a_request_is_read_the_same),
        T(limits_have_their_statuses),
        T(a_body_that_trickles_is_refused),
        T(a_body_has_a_deadline_as_a_whole),
        T(a_body_at_a_fair_rate_is_not_refused),
        T(bodies_have_one_budget),
        T(an_announced_length_takes_no_memory),
        T(a_full_server_drops_who_was_quiet_longest),
        T(who_waits_for_an_answer_is_not_dropped),
        T(queries_are_checked_against_a_list),
        T(ten_thousand_pipelined_requests_are_answered_in_order),
        T(a_pipelined_request_waits_for_the_one_before),
        T(a_pipeline_that_is_not_read_is_held_back),
        T(heads_have_no_bodies),
        T(streams_are_chunked_but_not_to_1_0),
        T(an_answer_that_falls_short_breaks),
        T(a_large_stream_waits_for_its_reader),
        T(a_writer_that_ignores_back_pressure_is_cut),
        T(expect_continue_is_answered),
        T(a_body_that_nobody_wants_is_swallowed_or_ends_the_connection),
        T(large_bodies_arrive_whole),
        T(a_paused_body_stops_its_sender),
        T(slow_peers_are_let_go),
        T(a_hang_up_is_seen_while_waiting),
        T(a_client_that_shuts_its_side_still_gets_a_prompt_answer),
        T(draining_ends_idle_connections_and_marks_answers),
        T(draining_answers_what_was_sent_before),
        T(beyond_the_limit_connections_get_503),
        T(queries_are_decoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
