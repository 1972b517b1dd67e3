/* connect: envelopes whole, divided at every byte, in rows, and broken ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "sandbox/connect.h"

static const char two[] = "\0\0\0\0\5hello\2\0\0\0\2{}\0\0\0\0\0";
enum { TWO_BYTES = sizeof two - 1 };

static void check(struct connect_decoder *d, struct str in, int *seen)
{
    struct connect_frame f;
    struct err err = ERR_INIT;
    int got;
    while ((got = connect_next(d, &in, &f, &err)) > 0) {
        static const char *const texts[] = {"hello", "{}", ""};
        assert_true(*seen < 3);
        assert_true(str_eq_c(f.payload, texts[*seen]));
        assert_int_equal(f.end_stream, *seen == 1);
        (*seen)++;
    }
    assert_int_equal(got, 0);
    assert_int_equal(in.n, 0);
}

static void frames_survive_any_division(void **state)
{
    (void)state;
    for (size_t cut = 0; cut <= TWO_BYTES; cut++) {
        struct connect_decoder d;
        connect_init(&d);
        int seen = 0;
        check(&d, str_make(two, cut), &seen);
        check(&d, str_make(two + cut, TWO_BYTES - cut), &seen);
        assert_int_equal(seen, 3);
        assert_false(connect_midway(&d));
        connect_deinit(&d);
    }
}

static void frames_come_byte_by_byte(void **state)
{
    (void)state;
    struct connect_decoder d;
    connect_init(&d);
    int seen = 0;
    for (size_t i = 0; i < TWO_BYTES; i++) {
        check(&d, str_make(two + i, 1), &seen);
        if (i == 0)
            assert_true(connect_midway(&d));
    }
    assert_int_equal(seen, 3);
    connect_deinit(&d);
}

static void bad_heads_are_refused_before_memory_is_taken(void **state)
{
    (void)state;
    static const char *const bad[] = {"\1\0\0\0\1x", "\4\0\0\0\1x", "\200\0\0\0\1x", "\0\0\100\0\1x",
                                      "\0\377\377\377\377x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        for (size_t first = 1; first <= 6; first++) {
            struct connect_decoder d;
            connect_init(&d);
            struct connect_frame f;
            struct err err = ERR_INIT;
            struct str a = str_make(bad[i], first), b = str_make(bad[i] + first, 6 - first);
            int got = connect_next(&d, &a, &f, &err);
            if (got == 0)
                got = connect_next(&d, &b, &f, &err);
            assert_int_equal(got, -1);
            assert_int_equal(err.code, ERR_PROTOCOL);
            assert_true(d.partial.cap < 128);
            connect_deinit(&d);
        }
    }
}

static void what_is_encoded_decodes(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 64);
    assert_true(connect_encode(STR("hello"), &b));
    assert_int_equal(b.len, 10);
    assert_memory_equal(b.data, two, 10);
    buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_survive_any_division),
        cmocka_unit_test(frames_come_byte_by_byte),
        cmocka_unit_test(bad_heads_are_refused_before_memory_is_taken),
        cmocka_unit_test(what_is_encoded_decodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
