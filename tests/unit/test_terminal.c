/* cli/terminal: what a terminal is shown of a stranger's text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "terminal.h"

static void assert_shown(struct str text, const char *shown)
{
    for (size_t step = 1; step <= text.n + 1; step++) {
        struct terminal_text t = {.state = TERMINAL_PLAIN};
        struct buf out;
        buf_init(&out, 1024);
        for (size_t at = 0; at < text.n; at += step)
            assert_true(
                terminal_text_put(&t, str_make(text.p + at, text.n - at < step ? text.n - at : step), &out));
        if (!str_eq_c(buf_view(&out), shown))
            fail_msg("in pieces of %zu: \"%.*s\", not \"%s\"", step, STR_ARG(buf_view(&out)), shown);
        buf_deinit(&out);
    }
}

static void plain_text_stays(void **state)
{
    (void)state;
    assert_shown(STR("one\n\ttwo  \n"), "one\n\ttwo  \n");
    assert_shown(STR("\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80\n"), "\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80\n");
    assert_shown(STR("a\xFF"
                     "b"),
                 "a\xEF\xBF\xBD"
                 "b");
}

static void sequences_go_whole(void **state)
{
    (void)state;
    assert_shown(STR("\x1B[31mred\x1B[0m"), "red");
    assert_shown(STR("a\x1B[2J\x1B[1;1Hb"), "ab");
    assert_shown(STR("a\x1B[?1049hb\x1B[>4;2mc"), "abc");
    assert_shown(STR("a\x1B]0;title\x07"
                     "b"),
                 "ab");
    assert_shown(STR("a\x1B]8;;http://x\x1B\\link\x1B]8;;\x1B\\b"), "alinkb");
    assert_shown(STR("a\x1BP$q\"p\x1B\\b\x1B^x\x1B\\c\x1B_y\x1B\\d\x1BXz\x1B\\e"), "abcde");
    assert_shown(STR("a\x1B(0b\x1B"
                     "7c\x1B"
                     "cd"),
                 "abcd");
    assert_shown(STR("a\xC2\x9B"
                     "31mb\xC2\x9D"
                     "0;t\xC2\x9C"
                     "c\xC2\x90"
                     "d\xC2\x9C"
                     "e"),
                 "abce");
}

static void nothing_hides_what_follows(void **state)
{
    (void)state;
    assert_shown(STR("\x1B]0;never ended\nseen\n"), "\nseen\n");
    assert_shown(STR("\x1B[12\nseen\n"), "\nseen\n");
    assert_shown(STR("\x1B\nseen"), "\nseen");
    assert_shown(STR("\x1B\x1B[31mseen"), "seen");
    assert_shown(STR("\x1B[\x1B[31mseen"), "seen");
    assert_shown(STR("\x1B"), "");
}

static void lines_are_not_written_over(void **state)
{
    (void)state;
    assert_shown(STR("10%\r20%\r\ndone\r"), "10%\n20%\ndone\n");
    assert_shown(STR("\r\r\n"), "\n\n");
    assert_shown(STR("abc\b\b\bxyz\v\f\a\x7F!"), "abcxyz!");
    assert_shown(STR("\xC2\x85\xC2\x84x"), "x");
    assert_shown(STR("a\xE2\x80\xAE"
                     "b\xE2\x81\xA6"
                     "c\xE2\x80\x94"
                     "d"),
                 "abc\xE2\x80\x94"
                 "d");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_text_stays),
        cmocka_unit_test(sequences_go_whole),
        cmocka_unit_test(nothing_hides_what_follows),
        cmocka_unit_test(lines_are_not_written_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
