/* json/writer: commas, escapes, numbers; and that what it writes passes the strict scan. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "json/json.h"
#include "json/writer.h"

static void expect(struct buf *b, const char *want)
{
    assert_false(b->failed);
    assert_string_equal(buf_cstr(b), want);
    buf_clear(b);
}

static void commas_and_nesting(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 4096);
    struct json_writer w = json_writer(&b);
    jw_object(&w);
    jw_kint(&w, "a", -5);
    jw_key(&w, "list");
    jw_array(&w);
    jw_int(&w, INT64_MIN);
    jw_array(&w);
    jw_array_end(&w);
    jw_object(&w);
    jw_object_end(&w);
    jw_null(&w);
    jw_array_end(&w);
    jw_kbool(&w, "t", true);
    jw_knull(&w, "n");
    jw_kcstr(&w, "c", NULL);
    jw_key_str(&w, STR("q\"\n"));
    jw_raw(&w, STR("{\"x\":1}"));
    jw_object_end(&w);
    expect(
        &b,
        "{\"a\":-5,\"list\":[-9223372036854775808,[],{},null],\"t\":true,\"n\":null,\"c\":null,\"q\\\"\\n\":"
        "{\"x\":1}}");
    buf_deinit(&b);
}

static void strings_are_escaped(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 4096);
    struct json_writer w = json_writer(&b);
    jw_str(&w, STR("plain text longer than eight\\\"\n\r\t\x01\x1f\0z\x7f"));
    expect(&b, "\"plain text longer than eight\\\\\\\"\\n\\r\\t\\u0001\\u001f\\u0000z\x7f\"");
    w = json_writer(&b);
    jw_str(&w, STR("\xc3\xa9\xf0\x9f\x98\x80|\x80|\xe2\x82|\xed\xa0\x80"));
    expect(&b, "\"\xc3\xa9\xf0\x9f\x98\x80|\xef\xbf\xbd|\xef\xbf\xbd\xef\xbf\xbd|"
               "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    w = json_writer(&b);
    jw_str(&w, STR(""));
    expect(&b, "\"\"");
    buf_deinit(&b);
}

static void all_bytes_pass_the_scan(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 16);
    for (int len = 0; len < 20; len++) {
        for (int c = 1; c < 256; c++) {
            char bytes[20];
            memset(bytes, 'x', sizeof bytes);
            bytes[len] = (char)c;
            struct json_writer w = json_writer(&b);
            jw_str(&w, str_make(bytes, (size_t)len + 1));
            assert_int_equal(json_scan(buf_view(&b), NULL), 0);
            buf_clear(&b);
        }
    }
    buf_deinit(&b);
}

static void doubles_read_back(void **state)
{
    (void)state;
    static const double values[] = {0,    0.1,  1.0 / 3,           5e-324, 1.7976931348623157e308,
                                    -2.5, 1e21, 123456789012345680};
    struct buf b;
    buf_init(&b, 4096);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct json_writer w = json_writer(&b);
        jw_double(&w, values[i]);
        struct json *doc = json_parse(buf_view(&b), NULL);
        double back = 1;
        assert_true(json_double(json_root(doc), &back));
        assert_memory_equal(&back, &values[i], sizeof back);
        json_free(&doc);
        buf_clear(&b);
    }
    struct json_writer w = json_writer(&b);
    jw_double(&w, 0.1);
    expect(&b, "0.1");
    w = json_writer(&b);
    jw_double(&w, 1e308 * 10);
    expect(&b, "null");
    buf_deinit(&b);
}

static void ids_times_and_base64(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 4096);
    struct json_writer w = json_writer(&b);
    jw_object(&w);
    jw_ktime(&w, "t", (wall_t){.us = 1500000});
    jw_ktime(&w, "z", (wall_t){.us = 0});
    jw_kid(&w, "id", "inv", (struct uuid){{1, 2}});
    jw_key(&w, "b");
    jw_base64(&w, STR("\xff\xfe"));
    jw_object_end(&w);
    expect(
        &b,
        "{\"t\":\"1970-01-01T00:00:01.500Z\",\"z\":null,\"id\":\"inv_01020000-0000-0000-0000-000000000000\","
        "\"b\":\"//4=\"}");
    buf_deinit(&b);
}

static void a_full_buffer_stays_failed(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 10);
    struct json_writer w = json_writer(&b);
    jw_array(&w);
    jw_str(&w, STR("far too long for ten bytes"));
    jw_array_end(&w);
    assert_true(b.failed);
    assert_true(b.len <= 10);
    buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commas_and_nesting),      cmocka_unit_test(strings_are_escaped),
        cmocka_unit_test(all_bytes_pass_the_scan), cmocka_unit_test(doubles_read_back),
        cmocka_unit_test(ids_times_and_base64),    cmocka_unit_test(a_full_buffer_stays_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
