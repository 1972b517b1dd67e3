/* model/usage_report: what counts as a report, and events found in a stream. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "model/usage_report.h"

static int parse(const char *text, struct inv_cost *c)
{
    struct err err = ERR_INIT;
    int rc = usage_report_parse(str_of(text), c, &err);
    assert_int_equal(rc == 0, err.code == ERR_NONE);
    return rc;
}

static void plain_reports(void **state)
{
    (void)state;
    struct inv_cost c;
    assert_int_equal(parse("{\"input_tokens\": 10, \"output_tokens\": 0, \"cost_usd\": 0.25}", &c), 0);
    assert_true(c.has_input && c.has_output && c.has_cost);
    assert_int_equal(c.input_tokens, 10);
    assert_int_equal(c.output_tokens, 0);
    assert_true(c.cost_usd > 0.249 && c.cost_usd < 0.251);
    assert_int_equal(parse("{\"output_tokens\": 1000000000000, \"input_tokens\": null, \"other\": []}", &c),
                     0);
    assert_true(!c.has_input && c.has_output && !c.has_cost);
}

static void claudes_reports(void **state)
{
    (void)state;
    struct inv_cost c;
    assert_int_equal(parse("{\"type\": \"result\", \"total_cost_usd\": 2, \"usage\": {\"input_tokens\": 1, "
                           "\"cache_creation_input_tokens\": 20, \"cache_read_input_tokens\": 300, "
                           "\"output_tokens\": 4000}, \"input_tokens\": 7}",
                           &c),
                     0);
    assert_int_equal(c.input_tokens, 321);
    assert_int_equal(c.output_tokens, 4000);
    assert_true(c.has_cost && c.cost_usd > 1.9);
}

static void refused_reports(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "[]",
                                      "null",
                                      "{}",
                                      "{\"usage\": {}}",
                                      "{\"usage\": 1, \"cost_usd\": 1}",
                                      "{\"input_tokens\": -1}",
                                      "{\"input_tokens\": 1.0}",
                                      "{\"input_tokens\": \"1\"}",
                                      "{\"input_tokens\": 1000000000001}",
                                      "{\"input_tokens\": 99999999999999999999}",
                                      "{\"cost_usd\": -0.01}",
                                      "{\"cost_usd\": 1000001}",
                                      "{\"cost_usd\": true}",
                                      "{\"input_tokens\": 1, \"cost_usd\": -1}",
                                      "{\"input_tokens\": 1} x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct inv_cost c;
        assert_int_equal(parse(bad[i], &c), -1);
        assert_true(!c.has_input && !c.has_output && !c.has_cost);
    }
}

/* What is found when it comes in pieces of that size. */
static int scan(const char *text, size_t step, struct inv_cost *c)
{
    struct usage_scan *s = usage_scan_new();
    struct err err = ERR_INIT;
    size_t n = strlen(text);
    assert_non_null(s);
    for (size_t at = 0; at < n; at += step)
        usage_scan_feed(s, str_make(text + at, n - at < step ? n - at : step));
    int found = usage_scan_end(s, c, &err);
    assert_int_equal(found < 0, err.code != ERR_NONE);
    usage_scan_free(&s);
    assert_null(s);
    return found;
}

static void events_in_a_stream(void **state)
{
    (void)state;
    static const char text[] = "hello\n{\"type\": \"result\", \"total_cost_usd\": 1}\n\n"
                               "{\"type\": \"assistant\", \"text\": \"{\\\"type\\\": \\\"result\\\"}\"}\n"
                               "{\"type\": \"result\", \"usage\": {\"input_tokens\": 5}}";
    struct inv_cost c;
    for (size_t step = 1; step < sizeof text; step++) {
        assert_int_equal(scan(text, step, &c), 1);
        assert_true(c.has_input && !c.has_cost);
        assert_int_equal(c.input_tokens, 5);
    }
    assert_int_equal(scan("no event \"result\"\n{\"type\": \"result\"", 7, &c), 0);
    assert_int_equal(scan("{\"type\": \"result\", \"total_cost_usd\": 1}\n{\"type\": \"result\"}\n", 5, &c),
                     -1);
    assert_false(c.has_cost);
}

static void long_lines_are_passed_over(void **state)
{
    (void)state;
    static char text[3 * 1024 * 1024];
    struct inv_cost c;
    memset(text, 'x', sizeof text - 1);
    static const char event[] = "\n{\"type\": \"result\", \"total_cost_usd\": 1}\n";
    memcpy(text + 1200000, event, sizeof event - 1);
    assert_int_equal(scan(text, 65536, &c), 1);
    assert_true(c.has_cost);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_reports),
        cmocka_unit_test(claudes_reports),
        cmocka_unit_test(refused_reports),
        cmocka_unit_test(events_in_a_stream),
        cmocka_unit_test(long_lines_are_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
