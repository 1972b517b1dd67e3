/* gateway/event_text: ids, the cut between characters, text and base64, Accept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "event_text.h"

static void ids_read_back(void **state)
{
    (void)state;
    const char *const good[] = {"1.0.0", "20.1048576.3", "32767.1125899906842624.1125899906842624"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct event_position p;
        char again[EVENT_ID_BYTES];
        assert_true(event_id_parse(str_of(good[i]), &p));
        event_id_format(&p, again);
        assert_string_equal(again, good[i]);
    }
}

static void other_ids_are_refused(void **state)
{
    (void)state;
    const char *const bad[] = {"",
                               "1",
                               "1.",
                               "1.0",
                               "1.0.",
                               "1.0.0.",
                               "1.0.0.0",
                               "0.0.0",
                               "-1.0.0",
                               "+1.0.0",
                               "1.-1.0",
                               "1.0x.0",
                               "01.0.0",
                               "1.00.0",
                               "1.0.00",
                               " 1.0.0",
                               "1.0.0\n",
                               "1,0,0",
                               "1 .0.0",
                               "32768.0.0",
                               "1.1125899906842625.0",
                               "1.0.18446744073709551616"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct event_position p = {.attempt = 77};
        assert_false(event_id_parse(str_of(bad[i]), &p));
        assert_int_equal(p.attempt, 77);
    }
}

/* Every prefix of a text is cut so that what stands before the cut is text, and nothing is held too long. */
static void cut_prefixes(const char *text)
{
    size_t n = strlen(text);
    for (size_t i = 0; i <= n; i++) {
        size_t cut = event_cut(str_make(text, i));
        assert_true(cut <= 3 && cut <= i);
        assert_true(str_is_utf8(str_make(text, i - cut)));
        if (cut > 0)
            assert_false(str_is_utf8(str_make(text, i)));
        if (i < n && ((unsigned char)text[i] & 0xC0) != 0x80)
            assert_int_equal(cut, 0);
    }
}

static void characters_are_not_split(void **state)
{
    (void)state;
    cut_prefixes("a\xC3\xA9\xE2\x98\x83\xF0\x9F\x98\x80z");
    cut_prefixes("\xE0\xA0\x80\xED\x9F\xBF\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\xC2\x80\xDF\xBF");
}

static void what_is_no_text_is_not_held(void **state)
{
    (void)state;
    const char *const bytes[] = {"\xFF",     "a\x80",        "\x80\x80\x80\x80", "\xC0",
                                 "\xC1",     "\xF5\x80\x80", "\xE0\x80",         "\xE0\x9F",
                                 "\xED\xA0", "\xF0\x80",     "\xF0\x8F\xBF",     "\xF4\x90\x80",
                                 "\xC3\xA9", "\xE2\x98\x83"};
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++)
        assert_int_equal(event_cut(str_of(bytes[i])), 0);
    assert_int_equal(event_cut(STR("")), 0);
    assert_int_equal(event_cut(STR("x\xC3")), 1);
    assert_int_equal(event_cut(STR("\xFF\xE2\x98")), 2);
    assert_int_equal(event_cut(STR("\xF0\x9F\x98")), 3);
}

static void written(struct str bytes, const char *want)
{
    struct buf out;
    const struct event_position p = {.attempt = 2, .at = {10, 4}};
    buf_init(&out, 4096);
    event_write_bytes(&out, &p, "stderr", bytes);
    assert_false(out.failed);
    assert_string_equal(buf_cstr(&out), want);
    buf_deinit(&out);
}

static void bytes_become_events(void **state)
{
    (void)state;
    written(STR("a\r\nb\"\\"), "id: 2.10.4\nevent: stderr\ndata: \"a\\r\\nb\\\"\\\\\"\n\n");
    written(STR("\xC3\xA9"), "id: 2.10.4\nevent: stderr\ndata: \"\xC3\xA9\"\n\n");
    written(STR("a\0b"), "id: 2.10.4\nevent: stderr\ndata: {\"base64\":\"YQBi\"}\n\n");
    written(STR("\xFF"), "id: 2.10.4\nevent: stderr\ndata: {\"base64\":\"/w==\"}\n\n");
}

static void json_is_flattened(void **state)
{
    (void)state;
    struct buf json;
    buf_init(&json, 100);
    buf_cstr_append(&json, "{\r\n\"a\":\n1}");
    event_flatten(&json);
    assert_string_equal(buf_cstr(&json), "{  \"a\": 1}");
    buf_deinit(&json);
}

static void accepts(void **state)
{
    (void)state;
    const char *const yes[] = {"text/event-stream",
                               "Text/Event-Stream",
                               "application/json, text/event-stream",
                               "text/event-stream;q=0.5",
                               " text/event-stream ; charset=utf-8",
                               "text/event-stream;q=1"};
    const char *const no[] = {"",
                              "*/*",
                              "text/*",
                              "application/json",
                              "text/event-streams",
                              "text/event-stream;q=0",
                              "text/event-stream; q=0.00",
                              ",,;",
                              "text/event-stream;q=0, */*"};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        assert_true(event_accepted(str_of(yes[i])));
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        assert_false(event_accepted(str_of(no[i])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_read_back),
        cmocka_unit_test(other_ids_are_refused),
        cmocka_unit_test(characters_are_not_split),
        cmocka_unit_test(what_is_no_text_is_not_held),
        cmocka_unit_test(bytes_become_events),
        cmocka_unit_test(json_is_flattened),
        cmocka_unit_test(accepts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
