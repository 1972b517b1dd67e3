/* json: what the strict scan accepts and refuses (a table in the spirit of JSONTestSuite), and typed reads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "json/json.h"

#define ROW(text)                 \
    {                             \
        "" text, sizeof(text) - 1 \
    }

struct row {
    const char *p;
    size_t n;
};

static const struct row accepted[] = {
    ROW("[]"),
    ROW("{}"),
    ROW("null"),
    ROW("true"),
    ROW("false"),
    ROW("\"\""),
    ROW("0"),
    ROW("-0"),
    ROW("1"),
    ROW(" \t\r\n[ ] \n"),
    ROW("[1,2]"),
    ROW("[[[[[]]]]]"),
    ROW("{\"a\":{\"a\":{\"a\":1}}}"),
    ROW("[-0]"),
    ROW("[1E22]"),
    ROW("[1e+2]"),
    ROW("[0e1]"),
    ROW("[0e+1]"),
    ROW("[123.456e-78]"),
    ROW("[1.5]"),
    ROW("[-0.0000000000000000000000000000000000000000000000000000000000000000000000000000001]"),
    ROW("[1e-400]"),
    ROW("[1.7976931348623157e308]"),
    ROW("[9223372036854775807]"),
    ROW("[-9223372036854775808]"),
    ROW("[18446744073709551616]"),
    ROW("[0e999999999999999999]"),
    ROW("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""),
    ROW("\"\\u0041\\u00e9\\u20ac\\ud83d\\ude00\""),
    ROW("\"\x7f\""),
    ROW("\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\""),
    ROW("\"\xef\xbf\xbf\""),
    ROW("\"\xf4\x8f\xbf\xbf\""),
    ROW("\"\\uFFFF\\uDBFF\\uDFFF\""),
    ROW("{\"\":0}"),
    ROW("{\"a\":1,\"A\":2}"),
    ROW("{\"a\":{\"a\":1},\"b\":{\"a\":1}}"),
    ROW("[{\"a\":1},{\"a\":1}]"),
    ROW("\"\xe2\x80\xa8\""),
    ROW("{\"a\":[],\"b\":[{}]}"),
};

static const struct row refused[] = {
    ROW(""),
    ROW(" "),
    ROW("\xef\xbb\xbf{}"),
    ROW("{"),
    ROW("["),
    ROW("]"),
    ROW("}"),
    ROW("[}"),
    ROW("{]"),
    ROW("[1,]"),
    ROW("[,1]"),
    ROW("[1 2]"),
    ROW("[1,,2]"),
    ROW("{\"a\"}"),
    ROW("{\"a\":}"),
    ROW("{\"a\":1,}"),
    ROW("{,}"),
    ROW("{a:1}"),
    ROW("{'a':1}"),
    ROW("{1:1}"),
    ROW("{\"a\" 1}"),
    ROW("{\"a\":1 \"b\":2}"),
    ROW("{\"a\"::1}"),
    ROW("{\"a\":1}}"),
    ROW("[]]"),
    ROW("[] x"),
    ROW("1 2"),
    ROW("01"),
    ROW("-01"),
    ROW("007"),
    ROW("-"),
    ROW("+1"),
    ROW(".5"),
    ROW("1."),
    ROW("1.e1"),
    ROW("1e"),
    ROW("1e+"),
    ROW("1ee2"),
    ROW("0x10"),
    ROW("1a"),
    ROW("Infinity"),
    ROW("NaN"),
    ROW("-Infinity"),
    ROW("1e400"),
    ROW("-1e400"),
    ROW("[1e309]"),
    ROW("1e99999999999999999999"),
    ROW("tru"),
    ROW("True"),
    ROW("nul"),
    ROW("nulll"),
    ROW("falsey"),
    ROW("\"abc"),
    ROW("\""),
    ROW("\"\\"),
    ROW("\"\\x\""),
    ROW("\"\\u00\""),
    ROW("\"\\u00g0\""),
    ROW("\"\\u0000\""),
    ROW("\"\\ud800\""),
    ROW("\"\\udc00\""),
    ROW("\"\\ud800\\u0041\""),
    ROW("\"\\ud800\\ud800\""),
    ROW("\"\\ud800x\""),
    ROW("\"\\ud83d\\ude0\""),
    ROW("\"\n\""),
    ROW("\"\t\""),
    ROW("\"\x01\""),
    ROW("\"\x1f\""),
    ROW("\"a\0b\""),
    ROW("[1]\0"),
    ROW("\0"),
    ROW("\"\x80\""),
    ROW("\"\xc0\x80\""),
    ROW("\"\xc1\xbf\""),
    ROW("\"\xe0\x80\x80\""),
    ROW("\"\xed\xa0\x80\""),
    ROW("\"\xf0\x80\x80\x80\""),
    ROW("\"\xf4\x90\x80\x80\""),
    ROW("\"\xf5\x80\x80\x80\""),
    ROW("\"\xff\""),
    ROW("\"\xc3\""),
    ROW("\"\xe2\x82\""),
    ROW("\"\xf0\x9f\x98\""),
    ROW("{\"a\":1,\"a\":2}"),
    ROW("{\"a\":1,\"\\u0061\":2}"),
    ROW("{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":2}"),
    ROW("[{\"x\":{\"b\":1,\"c\":2,\"b\":3}}]"),
    ROW("{\"\":1,\"\":2}"),
    ROW("{\"\\n\":1,\"\\u000a\":2}"),
    ROW("{\"a\":0,\"b\":0,\"c\":0,\"d\":0,\"e\":0,\"f\":0,\"g\":0,\"h\":0,\"i\":0,\"j\":0,\"c\":1}"),
    ROW("// x\n1"),
    ROW("/**/1"),
    ROW("[1]\x0c"),
    ROW("[\xc2\xa0]"),
    ROW("[1}"),
    ROW("{\"a\":[}"),
    ROW("\"\\\0\""),
    ROW("[\"a\",\n4\n,1,"),
};

static void a_table_of_texts(void **state)
{
    (void)state;
    struct err err;
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        struct str s = str_make(accepted[i].p, accepted[i].n);
        err = ERR_INIT;
        struct json *doc = json_parse(s, &err);
        if (doc == NULL)
            fail_msg("refused: %s: %s", accepted[i].p, err.msg);
        json_free(&doc);
    }
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        /* a copy of exactly that size, so that reading past it is seen */
        char *copy = malloc(refused[i].n + 1);
        memcpy(copy + 1, refused[i].p, refused[i].n);
        err = ERR_INIT;
        if (json_scan(str_make(copy + 1, refused[i].n), &err) == 0)
            fail_msg("accepted row %zu: %s", i, refused[i].p);
        assert_int_equal(err.code, ERR_BAD_JSON);
        free(copy);
    }
}

static void positions_are_named(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(json_scan(STR("{\n  \"a\": 1,\n  \"b\": x\n}"), &err), -1);
    assert_string_equal(err.msg, "line 3 column 8: not a JSON value");
    assert_int_equal(json_scan(STR("{\"a\":1,\"a\":2}"), &err), -1);
    assert_string_equal(err.msg, "line 1 column 8: a name that occurs twice in one object");
    assert_int_equal(json_scan(STR("[1"), NULL), -1);
}

static void repeat(struct buf *b, const char *s, size_t times)
{
    for (size_t i = 0; i < times; i++)
        buf_cstr_append(b, s);
}

static void depth_is_limited(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 20);
    repeat(&b, "[", JSON_MAX_DEPTH);
    repeat(&b, "]", JSON_MAX_DEPTH);
    struct json *doc = json_parse(buf_view(&b), NULL);
    assert_non_null(doc);
    json_free(&doc);
    buf_clear(&b);
    repeat(&b, "{\"a\":", JSON_MAX_DEPTH + 1);
    assert_int_equal(json_scan(buf_view(&b), NULL), -1);
    buf_clear(&b);
    repeat(&b, "[", 100000);
    assert_int_equal(json_scan(buf_view(&b), NULL), -1);
    repeat(&b, "]", 100000);
    assert_int_equal(json_scan(buf_view(&b), NULL), -1);
    buf_deinit(&b);
}

static void members(struct buf *b, int count, int again)
{
    buf_clear(b);
    buf_byte(b, '{');
    for (int i = 0; i < count; i++)
        buf_printf(b, "%s\"k%d\":%d", i > 0 ? "," : "", i, i);
    if (again >= 0)
        buf_printf(b, ",\"\\u006b%d\":0", again);
    buf_byte(b, '}');
}

static void many_and_long_names(void **state)
{
    (void)state;
    struct buf b;
    struct err err;
    buf_init(&b, 16 << 20);
    members(&b, JSON_MAX_KEYS, -1);
    assert_int_equal(json_scan(buf_view(&b), &err), 0);
    members(&b, JSON_MAX_KEYS - 1, 77);
    assert_int_equal(json_scan(buf_view(&b), &err), -1);
    assert_non_null(strstr(err.msg, "twice"));
    members(&b, JSON_MAX_KEYS + 1, -1);
    assert_int_equal(json_scan(buf_view(&b), &err), -1);
    buf_clear(&b);
    buf_cstr_append(&b, "{\"");
    repeat(&b, "k", 1 << 20);
    buf_cstr_append(&b, "\":1,\"");
    repeat(&b, "k", 1 << 20);
    buf_cstr_append(&b, "\":2}");
    assert_int_equal(json_scan(buf_view(&b), &err), -1);
    buf_deinit(&b);
}

static void integers_are_exact(void **state)
{
    (void)state;
    struct json *doc =
        json_parse(STR("{\"a\":[9007199254740993,{\"x\":-9223372036854775808}],\"b\":9223372036854775807,"
                       "\"c\":1.0,\"d\":1e3,\"e\":9223372036854775808,\"f\":-0,\"g\":\"1\",\"h\":0.25}"),
                   NULL);
    assert_non_null(doc);
    const struct json_value *root = json_root(doc), *a = json_get(root, "a");
    int64_t v = 0;
    assert_true(json_int(doc, json_first(a), &v));
    assert_true(v == 9007199254740993);
    assert_true(json_int(doc, json_get(json_next(json_first(a)), "x"), &v));
    assert_true(v == INT64_MIN);
    assert_true(json_int(doc, json_get(root, "b"), &v));
    assert_true(v == INT64_MAX);
    assert_false(json_int(doc, json_get(root, "c"), &v));
    assert_false(json_int(doc, json_get(root, "d"), &v));
    assert_false(json_int(doc, json_get(root, "e"), &v));
    assert_true(json_int(doc, json_get(root, "f"), &v));
    assert_true(v == 0);
    assert_false(json_int(doc, json_get(root, "g"), &v));
    assert_false(json_int(doc, json_get(root, "none"), &v));
    double d = 0;
    assert_true(json_double(json_get(root, "h"), &d));
    assert_true(d > 0.24 && d < 0.26);
    json_free(&doc);
    assert_null(doc);
}

static void long_numbers_survive(void **state)
{
    (void)state;
    struct json *doc = json_parse(
        STR("[1000000000000000000000000000000000000000000000000000000000000000000000000,7]"), NULL);
    double d = 0;
    int64_t v = 0;
    assert_true(json_double(json_first(json_root(doc)), &d));
    assert_true(d > 0.99e72 && d < 1.01e72);
    assert_true(json_int(doc, json_next(json_first(json_root(doc))), &v));
    assert_true(v == 7);
    json_free(&doc);
}

static void typed_reads(void **state)
{
    (void)state;
    struct json *doc =
        json_parse(STR("{\"s\":\"a\\u00e9\\n\",\"t\":true,\"n\":null,\"o\":{\"S\":1},\"l\":[1,2,3]}"), NULL);
    const struct json_value *root = json_root(doc);
    struct str s;
    bool b = false;
    assert_true(json_str(json_get(root, "s"), &s));
    assert_true(str_eq(s, STR("a\xc3\xa9\n")));
    assert_null(json_get(root, "S"));
    assert_false(json_str(json_get(root, "t"), &s));
    assert_true(json_bool(json_get(root, "t"), &b) && b);
    assert_int_equal(json_type_of(json_get(root, "n")), JSON_NULL);
    assert_int_equal(json_type_of(json_get(root, "o")), JSON_OBJECT);
    assert_int_equal(json_type_of(json_get(root, "l")), JSON_ARRAY);
    assert_int_equal(json_type_of(NULL), JSON_ABSENT);
    assert_int_equal(json_count(json_get(root, "l")), 3);
    assert_int_equal(json_count(root), 5);
    assert_true(str_eq(json_key(json_first(root)), STR("s")));
    assert_null(json_get(json_get(root, "l"), "s"));
    assert_null(json_get(NULL, "s"));
    json_free(&doc);
    json_free(&doc);
}

static void members_keep_their_source(void **state)
{
    (void)state;
    struct json *doc = json_parse(
        STR(" {\"a\" : [1, {\"m\":2}] ,\"metadata\": {\"k\": 1e2,\"l\":\"\\u0041\"} , \"z\":7}"), NULL);
    assert_true(str_eq(json_member_source(doc, "metadata"), STR("{\"k\": 1e2,\"l\":\"\\u0041\"}")));
    assert_true(str_eq(json_member_source(doc, "a"), STR("[1, {\"m\":2}]")));
    assert_true(str_eq(json_member_source(doc, "z"), STR("7")));
    assert_int_equal(json_member_source(doc, "m").n, 0);
    json_free(&doc);
    doc = json_parse(STR("[{\"a\":1}]"), NULL);
    assert_int_equal(json_member_source(doc, "a").n, 0);
    json_free(&doc);
}

static void unknown_fields_are_named(void **state)
{
    (void)state;
    static const char *const known[] = {"agent", "prompt", "timeout_s", NULL};
    struct err err;
    struct json *doc = json_parse(STR("{\"agent\":1,\"promt\":2}"), NULL);
    assert_int_equal(json_known_fields(json_root(doc), known, &err), -1);
    assert_int_equal(err.code, ERR_UNKNOWN_FIELD);
    assert_string_equal(err.msg, "unknown field \"promt\"; did you mean \"prompt\"?");
    json_free(&doc);
    doc = json_parse(STR("{\"agent\":1,\"zzzzzzzzzz\":2}"), NULL);
    assert_int_equal(json_known_fields(json_root(doc), known, &err), -1);
    assert_string_equal(err.msg, "unknown field \"zzzzzzzzzz\"");
    json_free(&doc);
    doc = json_parse(STR("{\"timeout_s\":1}"), NULL);
    assert_int_equal(json_known_fields(json_root(doc), known, &err), 0);
    json_free(&doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_of_texts),
        cmocka_unit_test(positions_are_named),
        cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(many_and_long_names),
        cmocka_unit_test(integers_are_exact),
        cmocka_unit_test(long_numbers_survive),
        cmocka_unit_test(typed_reads),
        cmocka_unit_test(members_keep_their_source),
        cmocka_unit_test(unknown_fields_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
