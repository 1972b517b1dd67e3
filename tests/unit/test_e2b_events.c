/* e2b events: what a process stream says, with protobuf's omissions and Go's blanks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "sandbox/e2b_event.h"

static struct buf scratch;

static struct e2b_event decode(const char *json)
{
    struct e2b_event e;
    struct err err = ERR_INIT;
    if (e2b_event_decode(str_of(json), &scratch, &e, &err) != 0)
        fail_msg("%s: %s", json, err.msg);
    return e;
}

static void output_is_decoded_on_both_ways(void **state)
{
    (void)state;
    static const struct {
        const char *json, *bytes;
        enum e2b_event_kind kind;
    } cases[] = {
        {"{\"event\":{\"data\":{\"stdout\":\"aGVsbG8K\"}}}", "hello\n", E2B_EVENT_STDOUT},
        {"{\"event\":{\"data\":{\"stderr\":\"ZXJyCg==\"}}}", "err\n", E2B_EVENT_STDERR},
        {"{\"event\": {\"data\": {\"stdout\": \"aGVsbG8K\"}}}", "hello\n", E2B_EVENT_STDOUT},
        {"{ \"event\" : { \"data\" : { \"stderr\" : \"ZXJyCg==\" } } }", "err\n", E2B_EVENT_STDERR},
        {"{\"event\":{\"data\":{\"stdout\":\"aGVsbG8K\"}},\"new\":1}", "hello\n", E2B_EVENT_STDOUT},
        {"{\"event\":{\"data\":{\"stdout\":\"aGVs\\u0062G8K\"}}}", "hello\n", E2B_EVENT_STDOUT},
        {"{\"event\":{\"data\":{\"stdout\":\"aGVsbG8\"}}}", "hello", E2B_EVENT_STDOUT},
        {"{\"event\":{\"data\":{\"stdout\":\"\"}}}", "", E2B_EVENT_STDOUT},
        {"{\"event\":{\"data\":{}}}", "", E2B_EVENT_OTHER},
        {"{\"event\":{\"data\":{\"pty\":\"aGVsbG8K\"}}}", "", E2B_EVENT_OTHER},
        {"{\"event\":{\"keepalive\":{}}}", "", E2B_EVENT_OTHER},
        {"{\"event\":{\"later\":{}}}", "", E2B_EVENT_OTHER},
        {"{}", "", E2B_EVENT_OTHER},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct e2b_event e = decode(cases[i].json);
        assert_int_equal(e.kind, cases[i].kind);
        assert_true(str_eq_c(e.bytes, cases[i].bytes));
    }
}

static void pids_come_as_numbers_or_strings(void **state)
{
    (void)state;
    assert_int_equal(decode("{\"event\":{\"start\":{\"pid\":42}}}").pid, 42);
    assert_int_equal(decode("{\"event\":{\"start\":{\"pid\":\"42\"}}}").pid, 42);
}

static void exits_and_signals_are_told_apart(void **state)
{
    (void)state;
    struct sandbox_exit x =
        decode("{\"event\":{\"end\":{\"exited\":true,\"status\":\"exit status 0\"}}}").exit;
    assert_int_equal(x.kind, SANDBOX_EXITED);
    assert_int_equal(x.code, 0);
    assert_int_equal(x.cpu_ms, -1);
    assert_int_equal(x.peak_memory_bytes, -1);
    x = decode("{\"event\":{\"end\":{\"exitCode\":3,\"exited\":true,\"status\":\"exit status "
               "3\",\"error\":\"e\"}}}")
            .exit;
    assert_int_equal(x.code, 3);
    x = decode("{\"event\":{\"end\":{\"exitCode\":-1,\"status\":\"signal: killed\"}}}").exit;
    assert_int_equal(x.kind, SANDBOX_SIGNALED);
    assert_string_equal(x.signal, "KILL");
    x = decode("{\"event\":{\"end\":{\"exited\":true,\"status\":\"exit status "
               "0\",\"sandpiper\":{\"cpuMs\":\"12\","
               "\"peakMemoryBytes\":\"123456\",\"oomKilled\":true}}}}")
            .exit;
    assert_int_equal(x.cpu_ms, 12);
    assert_int_equal(x.peak_memory_bytes, 123456);
    assert_true(x.oom_killed);
    x = decode("{\"event\":{\"end\":{\"status\":\"signal: killed\",\"sandpiper\":{\"cpuMs\":7}}}}").exit;
    assert_int_equal(x.cpu_ms, 7);
    assert_false(x.oom_killed);
}

static void signal_names_are_go_s(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"signal: killed", "KILL"},
        {"signal: terminated", "TERM"},
        {"signal: aborted (core dumped)", "ABRT"},
        {"signal: segmentation fault (core dumped)", "SEGV"},
        {"signal: stopped (signal)", "STOP"},
        {"signal: signal 34", "34"},
        {"signal 34", "34"},
        {"signal: SIGKILL", "KILL"},
        {"signal: I/O possible", "IO"},
    };
    char name[16];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_true(e2b_signal_name(str_of(cases[i][0]), name, sizeof name));
        assert_string_equal(name, cases[i][1]);
    }
    assert_false(e2b_signal_name(STR("exit status 1"), name, sizeof name));
    assert_false(e2b_signal_name(STR(""), name, sizeof name));
    assert_false(e2b_signal_name(STR("signal"), name, sizeof name));
    assert_false(e2b_signal_name(STR("signal: "), name, sizeof name));
    assert_false(e2b_signal_name(STR("signal: a name that is longer than any"), name, sizeof name));
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "{",
        "null x",
        "{\"event\":{\"data\":{\"stdout\":\"a\xff\"}}}",
        "{\"event\":{\"data\":{\"stdout\":\"***\"}}}",
        "{\"event\":{\"start\":{}}}",
        "{\"event\":{\"start\":{\"pid\":-1}}}",
        "{\"event\":{\"end\":{}}}",
        "{\"event\":{\"end\":{\"exitCode\":0}}}",
        "{\"event\":{\"end\":{\"status\":\"exit status 0\"}}}",
        "{\"event\":{\"data\":{\"stdout\":\"aGVsbG8K\"}}} x",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct e2b_event e;
        struct err err = ERR_INIT;
        assert_int_equal(e2b_event_decode(str_of(bad[i]), &scratch, &e, &err), -1);
        assert_int_equal(err.code, ERR_PROTOCOL);
    }
}

static void stream_ends_carry_codes(void **state)
{
    (void)state;
    struct e2b_stream_end end;
    struct err err = ERR_INIT;
    assert_int_equal(e2b_stream_end_decode(STR("{}"), &end, &err), 0);
    assert_string_equal(end.code, "");
    assert_int_equal(
        e2b_stream_end_decode(STR("{\"error\":{\"code\":\"unavailable\",\"message\":\"gone\"}}"), &end, &err),
        0);
    assert_string_equal(end.code, "unavailable");
    assert_string_equal(end.message, "gone");
    assert_int_equal(e2b_stream_end_decode(STR("{\"error\":{}}"), &end, &err), 0);
    assert_string_equal(end.code, "unknown");
    assert_int_equal(e2b_stream_end_decode(STR("{\"error\""), &end, &err), -1);
}

static int setup(void **state)
{
    (void)state;
    buf_init(&scratch, 1024);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    buf_deinit(&scratch);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_is_decoded_on_both_ways),
        cmocka_unit_test(pids_come_as_numbers_or_strings),
        cmocka_unit_test(exits_and_signals_are_told_apart),
        cmocka_unit_test(signal_names_are_go_s),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(stream_ends_carry_codes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
