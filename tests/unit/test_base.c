/* base: buffers, views, arenas, ids, clocks, errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/culprit.h"
#include "base/err.h"
#include "base/id.h"
#include "base/utf8.h"

static void buf_caps_and_sticks(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 10);
    assert_true(buf_append(&b, "12345678", 8));
    assert_false(buf_append(&b, "9ab", 3));
    assert_true(b.failed);
    assert_false(buf_byte(&b, 'x')); /* sticky, though it would fit */
    assert_int_equal(b.len, 8);
    buf_clear(&b);
    assert_true(buf_i64(&b, INT64_MIN / 1000000000000));
    assert_true(str_eq_c(buf_view(&b), "-9223372"));
    buf_consume(&b, 1);
    assert_true(str_eq_c(buf_view(&b), "9223372"));
    buf_deinit(&b);
}

static void numbers_are_strict(void **state)
{
    (void)state;
    uint64_t u = 7;
    int64_t i = 7;
    assert_true(str_to_u64(STR("18446744073709551615"), &u));
    assert_true(u == UINT64_MAX);
    assert_false(str_to_u64(STR("18446744073709551616"), &u));
    assert_false(str_to_u64(STR(""), &u));
    assert_false(str_to_u64(STR("+1"), &u));
    assert_false(str_to_u64(STR(" 1"), &u));
    assert_true(str_to_i64(STR("-9223372036854775808"), &i));
    assert_true(i == INT64_MIN);
    assert_false(str_to_i64(STR("9223372036854775808"), &i));
    assert_false(str_to_i64(STR("-"), &i));
}

static void utf8_is_rfc3629(void **state)
{
    (void)state;
    static const char *const good[] = {
        "", "a", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xF4\x8F\xBF\xBF"};
    static const char *const bad[] = {"\x80",
                                      "\xC0\x80",
                                      "\xC1\xBF",
                                      "\xE0\x80\x80",
                                      "\xED\xA0\x80",
                                      "\xF4\x90\x80\x80",
                                      "\xF5\x80\x80\x80",
                                      "\xE2\x82",
                                      "\xC3",
                                      "\xFF"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(str_is_utf8(str_of(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(str_is_utf8(str_of(bad[i])));
}

/* In pieces of `step` bytes. */
static void assert_mended(struct str bytes, size_t step, const char *text)
{
    struct utf8_mend m = {.held_n = 0};
    struct buf out;
    buf_init(&out, 1024);
    for (size_t at = 0; at < bytes.n; at += step)
        assert_true(utf8_mend(&m, str_make(bytes.p + at, bytes.n - at < step ? bytes.n - at : step), &out));
    assert_true(utf8_mend_end(&m, &out));
    assert_true(str_eq_c(buf_view(&out), text));
    assert_true(str_is_utf8(buf_view(&out)));
    buf_deinit(&out);
}

#define NONE "\xEF\xBF\xBD"

static void bytes_become_text_however_they_are_cut(void **state)
{
    (void)state;
    for (size_t step = 1; step < 9; step++) {
        assert_mended(STR("plain\n"), step, "plain\n");
        assert_mended(STR("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80!"), step,
                      "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80!");
        assert_mended(STR("a\0b\x1B[0m"), step, "a" NONE "b\x1B[0m");
        assert_mended(STR("\xE2\x82"
                          "A\xFF"),
                      step, NONE NONE "A" NONE);
        assert_mended(STR("\xE2\xC3\xA9"), step, NONE "\xC3\xA9");
        assert_mended(STR("x\xF0\x9F\x98"), step, "x" NONE NONE NONE);
        assert_mended(STR("\xED\xA0\x80"), step, NONE NONE NONE);
    }
    static const struct str euros = {.p = "\xE2\x82\xAC\xE2\x82\xAC", .n = 6};
    static const size_t floors[] = {0, 0, 0, 3, 3, 3, 6, 6};
    for (size_t n = 0; n < 8; n++)
        assert_int_equal(utf8_floor(euros, n), floors[n]);
}

static void ids_grow_and_round_trip(void **state)
{
    (void)state;
    struct uuid last = uuid_new();
    for (int i = 0; i < 200000; i++) {
        struct uuid id = uuid_new();
        assert_true(uuid_cmp(last, id) < 0);
        last = id;
    }
    char text[ID_TEXT_BYTES];
    id_format("inv", last, text);
    struct uuid back;
    assert_true(id_parse("inv", str_of(text), &back));
    assert_true(uuid_eq(last, back));
    assert_false(id_parse("agt", str_of(text), &back));
    text[10] = 'g';
    assert_false(id_parse("inv", str_of(text), &back));
    assert_int_equal(last.b[6] >> 4, 7);
    assert_int_equal(last.b[8] >> 6, 2);
    int64_t age_ms = (wall_now().us - uuid_time(last).us) / 1000;
    assert_true(age_ms > -1000 && age_ms < 5000);
}

static void times_format_and_parse(void **state)
{
    (void)state;
    char text[WALL_TEXT_BYTES];
    wall_format((wall_t){.us = 1795246200123456}, text);
    assert_string_equal(text, "2026-11-21T07:30:00.123Z");
    wall_t t;
    assert_true(wall_parse(STR("2026-11-21T09:30:00.123456789+02:00"), &t));
    assert_true(t.us == 1795246200123456);
    assert_false(wall_parse(STR("2026-11-21"), &t));
    assert_false(wall_parse(STR("2026-13-21T07:30:00Z"), &t));
    assert_false(wall_parse(STR("2026-02-29T07:30:00Z"), &t));
    assert_false(wall_parse(STR("2026-04-31T07:30:00Z"), &t));
    assert_true(wall_parse(STR("2028-02-29T23:59:60Z"), &t));
    assert_false(wall_parse(STR("2026-11-21T07:30:00Zx"), &t));
    assert_false(wall_parse(STR("2026-11-21T07:30:00.Z"), &t));
}

static void errors_wrap(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    assert_int_equal(err_set(&e, ERR_TIMEOUT, "no answer in %d ms", 5), -1);
    err_wrap(&e, "create sandbox");
    assert_string_equal(e.msg, "create sandbox: no answer in 5 ms");
    assert_int_equal(e.code, ERR_TIMEOUT);
    assert_int_equal(err_code_from_name("agent_not_found", 15), ERR_AGENT_NOT_FOUND);
    for (int i = 1; i < ERR_COUNT; i++) { /* names are unique: scripts match on them */
        const char *name = err_code_name((enum err_code)i);
        assert_int_equal(err_code_from_name(name, strlen(name)), i);
    }
}

static void arenas_cap(void **state)
{
    (void)state;
    struct arena *a = arena_new(10000);
    assert_string_equal(arena_printf(a, "%d-%s", 7, "x"), "7-x");
    assert_non_null(arena_alloc(a, 9000));
    assert_null(arena_alloc(a, 1000));
    arena_free(&a);
    assert_null(a);
    arena_free(&a);
}

static void a_culprit_lasts_as_long_as_its_block(void **state)
{
    (void)state;
    const struct uuid a = {.b = {1}}, b = {.b = {2}};
    assert_true(uuid_is_zero(culprit_now()));
    {
        CULPRIT(a);
        assert_true(uuid_eq(culprit_now(), a));
        for (int i = 0; i < 2; i++) {
            CULPRIT(b);
            assert_true(uuid_eq(culprit_now(), b));
            if (i == 0)
                continue; /* leaves it, too */
        }
        assert_true(uuid_eq(culprit_now(), a));
    }
    assert_true(uuid_is_zero(culprit_now()));
}

/* The last test: the clock stays set. */
static void a_clock_that_is_set_goes_on_from_there_and_ids_follow(void **state)
{
    (void)state;
    wall_t now = wall_now();
    struct uuid before = uuid_new(), after;
    wall_set((wall_t){.us = now.us - 30 * 1000000LL});
    assert_in_range(now.us - wall_now().us, 28 * 1000000LL, 30 * 1000000LL);
    after = uuid_new(); /* in order: half a minute is waited for */
    assert_true(uuid_cmp(before, after) < 0);
    wall_set((wall_t){.us = now.us - 3600 * 1000000LL});
    after = uuid_new(); /* an hour is not */
    assert_in_range((wall_now().us - uuid_time(after).us) / 1000, 0, 1000);
    before = after;
    after = uuid_new();
    assert_true(uuid_cmp(before, after) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buf_caps_and_sticks),
        cmocka_unit_test(numbers_are_strict),
        cmocka_unit_test(utf8_is_rfc3629),
        cmocka_unit_test(bytes_become_text_however_they_are_cut),
        cmocka_unit_test(ids_grow_and_round_trip),
        cmocka_unit_test(times_format_and_parse),
        cmocka_unit_test(errors_wrap),
        cmocka_unit_test(arenas_cap),
        cmocka_unit_test(a_culprit_lasts_as_long_as_its_block),
        cmocka_unit_test(a_clock_that_is_set_goes_on_from_there_and_ids_follow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
