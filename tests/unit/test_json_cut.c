/* json/cut: the same items wherever the stream is split, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "json/cut.h"

enum { ITEM_MAX = 64 };

struct seen {
    char text[512]; /* "line:item;" each; "!" in place of one that is too long */
    uint64_t stop_at;
};

static bool on_item(void *arg, uint64_t number, uint64_t line, struct str text)
{
    struct seen *s = arg;
    size_t n = strlen(s->text);
    if (text.p == NULL)
        text = STR("!");
    snprintf(s->text + n, sizeof s->text - n, "%llu:%.*s;", (unsigned long long)line, STR_ARG(text));
    return number != s->stop_at;
}

/* In pieces of each length; all must give the same. */
static int cut(enum json_cut_form form, const char *text, const char *want, const char *frame,
               struct err *err)
{
    int rc = 0;
    size_t len = strlen(text);
    for (size_t step = 1; step <= len + 1; step++) {
        struct seen s = {0};
        struct json_cut c;
        json_cut_init(&c, form, ITEM_MAX, on_item, &s);
        *err = ERR_INIT;
        rc = 0;
        for (size_t at = 0; at < len && rc == 0; at += step)
            rc = json_cut_put(&c, str_make(text + at, at + step <= len ? step : len - at), err);
        if (rc == 0)
            rc = json_cut_end(&c, err);
        if (want != NULL)
            assert_string_equal(s.text, want);
        if (frame != NULL)
            assert_true(str_eq_c(json_cut_frame(&c), frame));
        json_cut_deinit(&c);
    }
    return rc;
}

static void accepts(enum json_cut_form form, const char *text, const char *want, const char *frame)
{
    struct err err;
    assert_int_equal(cut(form, text, want, frame, &err), 0);
}

static void refuses(enum json_cut_form form, const char *text, const char *words)
{
    struct err err;
    assert_int_equal(cut(form, text, NULL, NULL, &err), -1);
    assert_int_equal(err.code, ERR_BAD_JSON);
    if (strstr(err.msg, words) == NULL)
        fail_msg("%s: %s", text, err.msg);
}

static void lines(void **state)
{
    (void)state;
    accepts(JSON_CUT_LINES, "", "", "");
    accepts(JSON_CUT_LINES, "{}\n{\"a\":1}", "1:{};2:{\"a\":1};", "");
    accepts(JSON_CUT_LINES, "\n\r\n  \n{}\r\n\nx\n", "4:{}\r;6:x;", "");
    accepts(JSON_CUT_LINES,
            "{\"k\":\"0123456789012345678901234567890123456789012345678901234567890123456789\"}\n{}",
            "1:!;2:{};", "");
}

static void arrays(void **state)
{
    (void)state;
    accepts(JSON_CUT_ARRAY, "[]", "", "");
    accepts(JSON_CUT_ARRAY, " [ {} , {\"a\":[1,{}]}\n,{\"b\":\"]}\\\"{\"} ] ",
            "1:{};1:{\"a\":[1,{}]};2:{\"b\":\"]}\\\"{\"};", "");
    accepts(JSON_CUT_ARRAY, "[{\n},\n{}]", "1:{\n};3:{};", "");
    accepts(JSON_CUT_ARRAY,
            "[{\"k\":\"0123456789012345678901234567890123456789012345678901234567890123456789\"},{}]",
            "1:!;1:{};", "");
}

static void framed(void **state)
{
    (void)state;
    accepts(JSON_CUT_ARRAY, "{\"items\":[{},{}]}", "1:{};1:{};", "{\"items\":[]}");
    accepts(JSON_CUT_ARRAY, "{\"a\": [1], \"items\" : [{\"x\":{}}], \"b\":{\"items\":[7]}}\n",
            "1:{\"x\":{}};", "{\"a\": [1], \"items\" : [], \"b\":{\"items\":[7]}}");
    accepts(JSON_CUT_ARRAY, "{\"a\":\"\\\"items\\\":[\"}", "", "{\"a\":\"\\\"items\\\":[\"}");
    accepts(JSON_CUT_ARRAY, "{\"\\\\\\\"items\":[{}]}", "", "{\"\\\\\\\"items\":[{}]}"); /* another name */
    accepts(JSON_CUT_ARRAY, "{\"items\":{\"items\":[{}]}}", "", NULL);
}

static void refusals(void **state)
{
    (void)state;
    refuses(JSON_CUT_ARRAY, "", "ends too early");
    refuses(JSON_CUT_ARRAY, "[{}", "ends too early");
    refuses(JSON_CUT_ARRAY, "{\"items\":[{}]", "ends too early");
    refuses(JSON_CUT_ARRAY, "x", "expected an array");
    refuses(JSON_CUT_ARRAY, "[1]", "expected an item");
    refuses(JSON_CUT_ARRAY, "[{},]", "expected an item");
    refuses(JSON_CUT_ARRAY, "[,{}]", "expected an item");
    refuses(JSON_CUT_ARRAY, "[{}\n{}]", "line 2: expected ','");
    refuses(JSON_CUT_ARRAY, "[{}]]", "something follows");
}

static void a_reader_may_stop(void **state)
{
    (void)state;
    struct seen s = {.stop_at = 2};
    struct err err = ERR_INIT;
    struct json_cut c;
    json_cut_init(&c, JSON_CUT_LINES, ITEM_MAX, on_item, &s);
    assert_int_equal(json_cut_put(&c, STR("a\nb\nc\n"), &err), -1);
    assert_int_equal(err.code, ERR_NONE);
    assert_string_equal(s.text, "1:a;2:b;");
    json_cut_deinit(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),
        cmocka_unit_test(arrays),
        cmocka_unit_test(framed),
        cmocka_unit_test(refusals),
        cmocka_unit_test(a_reader_may_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
