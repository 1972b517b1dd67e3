/* redis: commands, scripts, losses and recovery, timeouts, subscriptions; against a private real server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "redis/redis.h"

static struct loop *loop;
static char dir[32] = "/tmp/sp-redis-XXXXXX";
static char url[80];
static pid_t server;

static void server_start(void)
{
    char sock[64];
    snprintf(sock, sizeof sock, "%s/s", dir);
    unlink(sock);
    server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (freopen("/dev/null", "w", stdout) == NULL)
            _exit(126);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", sock, "--save", "",
               "--appendonly", "no", "--dir", dir, "--enable-debug-command", "yes", (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 1000 && access(sock, F_OK) != 0; i++) {
        assert_int_equal(waitpid(server, NULL, WNOHANG), 0);
        usleep(10000);
    }
}

static void server_kill(void)
{
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    server = 0;
}

struct answer {
    int fired, order;
    enum redis_type type;
    int64_t value;
    char text[64];
    size_t count;
    struct err err;
    int *waiting;
};

static int order;

static void on_done(void *arg, const struct redis_reply *r, const struct err *err)
{
    struct answer *a = arg;
    a->fired++;
    a->order = ++order;
    assert_true((r == NULL) != (err == NULL));
    if (err != NULL)
        a->err = *err;
    if (r != NULL) {
        a->type = redis_type_of(r);
        a->value = redis_int(r);
        a->count = redis_count(r);
        str_copy(redis_str(r), a->text, sizeof a->text);
        if (a->count > 0)
            str_copy(redis_str(redis_at(r, 0)), a->text, sizeof a->text);
        assert_null(redis_at(r, a->count));
    }
    if (a->waiting != NULL && --*a->waiting == 0)
        loop_stop(loop);
}

static void too_late(void *arg)
{
    (void)arg;
    fail_msg("the test waited too long");
}

static void stop(void *arg)
{
    (void)arg;
    loop_stop(loop);
}

static void run(void)
{
    struct loop_timer *guard = loop_timer_new(loop, too_late, NULL);
    loop_timer_start(guard, 15000);
    loop_run(loop);
    loop_timer_free(&guard);
}

struct watch {
    int ups, downs;
    bool stop_on_up, stop_on_down;
};

static void on_state(void *arg, bool connected)
{
    struct watch *w = arg;
    connected ? w->ups++ : w->downs++;
    if (connected ? w->stop_on_up : w->stop_on_down)
        loop_stop(loop);
}

static struct redis *open_url(const char *to, struct watch *w, int max_pending)
{
    struct redis_options o = {
        .url = to, .name = "test", .max_pending = max_pending, .on_state = on_state, .arg = w};
    struct redis *r = redis_open(loop, &o, NULL);
    assert_non_null(r);
    w->stop_on_up = true;
    run();
    w->stop_on_up = false;
    assert_true(redis_connected(r));
    return r;
}

/* Splits words at spaces. */
static struct redis_request *send_words(struct redis *r, const char *words, int64_t timeout_ms,
                                        struct answer *a)
{
    struct str argv[16], rest = str_of(words);
    int argc = 0;
    while (argc < 16 && str_split(&rest, ' ', &argv[argc]))
        argc++;
    return redis_command(r, argv, argc, timeout_ms, a != NULL ? on_done : NULL, a, NULL);
}

static void ask(struct redis *r, const char *words, struct answer *a)
{
    int waiting = 1;
    *a = (struct answer){.waiting = &waiting};
    assert_non_null(send_words(r, words, 5000, a));
    assert_int_equal(a->fired, 0);
    run();
    a->waiting = NULL;
    assert_int_equal(a->fired, 1);
}

static void commands_and_replies(void **state)
{
    (void)state;
    struct watch w = {0};
    struct redis *r = open_url(url, &w, 0);
    struct answer a;
    ask(r, "SET k 41", &a);
    assert_int_equal(a.type, REDIS_STATUS);
    assert_string_equal(a.text, "OK");
    ask(r, "GET k", &a);
    assert_int_equal(a.type, REDIS_STR);
    assert_int_equal(a.value, 41);
    ask(r, "INCR k", &a);
    assert_int_equal(a.type, REDIS_INT);
    assert_int_equal(a.value, 42);
    ask(r, "GET none", &a);
    assert_int_equal(a.type, REDIS_NIL);
    ask(r, "MGET k none", &a);
    assert_int_equal(a.type, REDIS_ARRAY);
    assert_int_equal(a.count, 2);
    assert_string_equal(a.text, "42");
    ask(r, "LPUSH k x", &a);
    assert_int_equal(a.err.code, ERR_REDIS);
    assert_memory_equal(a.err.msg, "WRONGTYPE", 9);
    ask(r, "CLIENT GETNAME", &a);
    assert_string_equal(a.text, "test");
    assert_int_equal(redis_pending(r), 0);
    redis_close(&r);
    assert_null(r);
    redis_close(&r);
}

static void bytes_and_many_arguments(void **state)
{
    (void)state;
    struct watch w = {0};
    struct redis *r = open_url(url, &w, 0);
    static struct str argv[2001];
    static char keys[2001][16];
    argv[0] = STR("MSET");
    for (int i = 1; i <= 2000; i++) {
        snprintf(keys[i], sizeof keys[i], "m%d", i);
        argv[i] = i == 2000 ? STR("\0\xff\r\n") : str_of(keys[i]);
    }
    struct answer a = {0};
    int waiting = 1;
    a.waiting = &waiting;
    redis_command(r, argv, 2001, 5000, on_done, &a, NULL);
    run();
    assert_string_equal(a.text, "OK");
    ask(r, "STRLEN m1999", &a);
    assert_int_equal(a.value, 4);
    redis_close(&r);
}

static void in_order(void **state)
{
    (void)state;
    enum { N = 3000 };
    static struct answer answers[N];
    struct watch w = {0};
    struct redis *r = open_url(url, &w, N);
    int waiting = N, base = order;
    ask(r, "DEL n", &answers[0]);
    base = order;
    for (int i = 0; i < N; i++) {
        answers[i] = (struct answer){.waiting = &waiting};
        assert_non_null(send_words(r, "INCR n", 5000, &answers[i]));
    }
    struct err err;
    assert_null(redis_command(r, &STR("PING"), 1, 100, NULL, NULL, &err));
    assert_int_equal(err.code, ERR_OVERLOADED);
    run();
    for (int i = 0; i < N; i++) {
        assert_int_equal(answers[i].value, i + 1);
        assert_int_equal(answers[i].order, base + i + 1);
    }
    redis_close(&r);
}

static void eval(struct redis *r, struct redis_script *s, const char *arg, struct answer *a)
{
    int waiting = 1;
    struct str key = STR("k"), v = str_of(arg);
    *a = (struct answer){.waiting = &waiting};
    assert_non_null(redis_eval(r, s, &key, 1, &v, 1, 5000, on_done, a, NULL));
    run();
    a->waiting = NULL;
    assert_int_equal(a->fired, 1);
}

static void scripts(void **state)
{
    (void)state;
    static struct redis_script script = {.body = "return KEYS[1] .. ':' .. ARGV[1]"};
    static struct redis_script broken = {.body = "return redis.call('nonsense')"};
    struct watch w = {0};
    struct redis *r = open_url(url, &w, 0);
    struct answer a;
    eval(r, &script, "one", &a);
    assert_string_equal(a.text, "k:one");
    assert_int_equal(strlen(script.sha1), 40);
    eval(r, &script, "", &a);
    assert_string_equal(a.text, "k:");
    ask(r, "SCRIPT FLUSH", &a);
    eval(r, &script, "three", &a); /* NOSCRIPT, then its text */
    assert_string_equal(a.text, "k:three");
    eval(r, &broken, "x", &a);
    assert_int_equal(a.err.code, ERR_REDIS);
    redis_close(&r);
}

static void timeouts(void **state)
{
    (void)state;
    struct watch w = {0};
    struct redis *r = open_url(url, &w, 0);
    struct answer slow = {0}, behind = {0}, patient = {0}, a;
    int waiting = 3;
    slow.waiting = behind.waiting = patient.waiting = &waiting;
    send_words(r, "DEBUG SLEEP 0.4", 100, &slow);
    send_words(r, "PING", 50, &behind);
    send_words(r, "PING", 5000, &patient);
    run();
    assert_int_equal(slow.err.code, ERR_TIMEOUT);
    assert_int_equal(behind.err.code, ERR_TIMEOUT);
    assert_true(behind.order < slow.order && slow.order < patient.order);
    assert_string_equal(patient.text, "PONG");
    assert_int_equal(redis_pending(r), 0);
    assert_int_equal(w.downs, 0);
    ask(r, "PING", &a);
    assert_string_equal(a.text, "PONG");
    redis_close(&r);
}

static void a_frozen_server(void **state)
{
    (void)state;
    struct watch w = {0};
    struct redis *r = open_url(url, &w, 0);
    struct answer late = {0}, lost = {0};
    kill(server, SIGSTOP);
    send_words(r, "PING", 100, &late);
    send_words(r, "PING", 10000, &lost);
    w.stop_on_down = true;
    mono_t t = mono_now();
    run();
    assert_in_range(mono_ms_between(t, mono_now()), 1000, 3000);
    assert_int_equal(late.err.code, ERR_TIMEOUT);
    assert_int_equal(lost.err.code, ERR_OUTCOME_UNKNOWN);
    assert_int_equal(late.fired + lost.fired, 2);
    kill(server, SIGCONT);
    w.stop_on_up = true;
    run();
    assert_true(redis_connected(r));
    redis_close(&r);
}

static void a_killed_server(void **state)
{
    (void)state;
    struct watch w = {0};
    struct redis *r = open_url(url, &w, 0);
    struct answer sent = {0}, offline = {0}, detached = {0}, a;
    send_words(r, "BLPOP nothing 0", 10000, &sent);
    struct redis_request *q = send_words(r, "PING", 10000, &detached);
    send_words(r, "PING", 10000, NULL);
    redis_cancel(&q);
    assert_null(q);
    w.stop_on_down = true;
    struct loop_timer *t = loop_timer_new(loop, stop, NULL);
    loop_timer_start(t, 50);
    run(); /* let them out */
    loop_timer_free(&t);
    server_kill();
    run();
    assert_int_equal(sent.err.code, ERR_OUTCOME_UNKNOWN);
    assert_int_equal(detached.fired, 0);
    assert_false(redis_connected(r));
    int waiting = 1;
    offline.waiting = &waiting;
    send_words(r, "PING", 1000, &offline);
    assert_int_equal(offline.fired, 0); /* never inside the call */
    run();
    assert_int_equal(offline.err.code, ERR_REDIS);
    w.stop_on_up = true;
    server_start();
    run();
    ask(r, "PING", &a);
    assert_string_equal(a.text, "PONG");
    assert_int_equal(w.ups, 2);
    assert_int_equal(w.downs, 1);
    redis_close(&r);
}

static struct redis *closing;

static void close_inside(void *arg, const struct redis_reply *r, const struct err *err)
{
    (void)arg, (void)r, (void)err;
    redis_close(&closing);
    loop_stop(loop);
}

static void closing_in_a_callback(void **state)
{
    (void)state;
    struct watch w = {0};
    struct answer never = {0};
    closing = open_url(url, &w, 0);
    redis_command(closing, &STR("PING"), 1, 1000, close_inside, NULL, NULL);
    for (int i = 0; i < 5; i++)
        send_words(closing, "PING", 1000, &never);
    run();
    assert_null(closing);
    assert_int_equal(never.fired, 0);
    closing = open_url(url, &w, 0);
    send_words(closing, "PING", 1000, &never);
    redis_close(&closing);
    assert_int_equal(never.fired, 0);
}

static void urls(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "localhost",
                                      "http://x",
                                      "redis://",
                                      "redis://h:0",
                                      "redis://h:99999",
                                      "redis://h:x",
                                      "redis://h/x",
                                      "redis://user@h",
                                      "redis://:%zz@h",
                                      "redis://[::1",
                                      "unix://rel",
                                      "unix:///p?x=1",
                                      "rediss://h"};
    struct err err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct redis_options o = {.url = bad[i]};
        if (redis_open(loop, &o, &err) != NULL)
            fail_msg("accepted %s", bad[i]);
        assert_int_equal(err.code, ERR_CONFIG);
    }
    static const char *const good[] = {"redis://127.0.0.1:1", "redis://[::1]:1/2",
                                       "redis://u:p@127.0.0.1:1/0", "redis://:p%40@localhost:1"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct redis_options o = {.url = good[i]};
        struct redis *r = redis_open(loop, &o, &err);
        struct answer a = {0};
        int waiting = 1;
        a.waiting = &waiting;
        assert_non_null(r);
        assert_non_null(send_words(r, "PING", 100, &a));
        run();
        assert_int_equal(a.err.code, ERR_REDIS);
        redis_close(&r);
    }
}

static void user_password_and_database(void **state)
{
    (void)state;
    char to[160];
    struct watch w = {0};
    struct answer a;
    snprintf(to, sizeof to, "unix://worker:p%%2540ss:w@%s/s?db=3", dir);
    struct redis *r = open_url(url, &w, 0);
    ask(r, "ACL SETUSER worker on >p%40ss:w ~* &* +@all", &a);
    assert_string_equal(a.text, "OK");
    redis_close(&r);
    r = open_url(to, &w, 0);
    ask(r, "ACL WHOAMI", &a);
    assert_string_equal(a.text, "worker");
    ask(r, "SET in3 1", &a);
    redis_close(&r);
    r = open_url(url, &w, 0);
    ask(r, "EXISTS in3", &a);
    assert_int_equal(a.value, 0);
    redis_close(&r);
}

static void a_password_that_we_lack(void **state)
{
    (void)state;
    struct watch w = {0}, refused = {0};
    struct answer a;
    struct redis *r = open_url(url, &w, 0);
    ask(r, "CONFIG SET requirepass secret", &a);
    struct redis_options o = {.url = url, .on_state = on_state, .arg = &refused};
    struct redis *other = redis_open(loop, &o, NULL);
    int waiting = 1;
    a = (struct answer){.waiting = &waiting};
    struct loop_timer *t = loop_timer_new(loop, stop, NULL);
    loop_timer_start(t, 200);
    run();
    loop_timer_free(&t);
    assert_int_equal(refused.ups, 0);
    assert_non_null(send_words(other, "PING", 100, &a));
    run();
    assert_non_null(strstr(a.err.msg, "NOAUTH")); /* says why */
    redis_close(&other);
    ask(r, "CONFIG SET requirepass ", &a);
    redis_close(&r);
}

struct inbox {
    int count, want;
    char last[64], channel[16];
};

static void on_message(void *arg, struct str channel, struct str payload)
{
    struct inbox *in = arg;
    str_copy(channel, in->channel, sizeof in->channel);
    str_copy(payload, in->last, sizeof in->last);
    if (++in->count == in->want)
        loop_stop(loop);
}

static void subscriptions(void **state)
{
    (void)state;
    static const char *const channels[] = {"one", "two"};
    struct watch w = {.stop_on_up = true}, pw = {0};
    struct inbox in = {.want = 2};
    struct redis_options o = {.url = url, .on_state = on_state, .arg = &w};
    struct redis_sub *s = redis_sub_open(loop, &o, channels, 2, on_message, &in, NULL);
    run();
    assert_int_equal(w.ups, 1);
    struct redis *r = open_url(url, &pw, 0);
    send_words(r, "PUBLISH one a", 1000, NULL);
    send_words(r, "PUBLISH three x", 1000, NULL);
    send_words(r, "PUBLISH two b", 1000, NULL);
    run();
    assert_string_equal(in.last, "b");
    assert_string_equal(in.channel, "two");
    w.stop_on_down = true;
    server_kill();
    run();
    server_start();
    run();
    assert_int_equal(w.ups, 2);
    pw.stop_on_up = true;
    if (!redis_connected(r))
        run();
    in.want = 3;
    send_words(r, "PUBLISH one again", 1000, NULL);
    run();
    assert_string_equal(in.last, "again");
    redis_close(&r);
    kill(server, SIGSTOP); /* silent: only the probe can find out */
    mono_t t = mono_now();
    run();
    assert_in_range(mono_ms_between(t, mono_now()), 1000, 6000);
    assert_int_equal(w.downs, 2);
    kill(server, SIGCONT);
    redis_sub_close(&s);
    assert_null(s);
}

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    loop = loop_new();
    if (loop == NULL || mkdtemp(dir) == NULL)
        return -1;
    snprintf(url, sizeof url, "unix://%s/s", dir);
    server_start();
    return 0;
}

static int rm(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    if (server > 0)
        server_kill();
    nftw(dir, rm, 16, FTW_DEPTH | FTW_PHYS);
    loop_free(&loop);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_and_replies),
        cmocka_unit_test(bytes_and_many_arguments),
        cmocka_unit_test(in_order),
        cmocka_unit_test(scripts),
        cmocka_unit_test(timeouts),
        cmocka_unit_test(a_frozen_server),
        cmocka_unit_test(a_killed_server),
        cmocka_unit_test(closing_in_a_callback),
        cmocka_unit_test(urls),
        cmocka_unit_test(user_password_and_database),
        cmocka_unit_test(a_password_that_we_lack),
        cmocka_unit_test(subscriptions),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
