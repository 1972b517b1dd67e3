/* store/queue_output: messages of live output. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "store/queue_output.h"

static void asks_read_back(void **state)
{
    (void)state;
    struct buf m;
    struct uuid gateway = uuid_new(), told;
    const struct output_ask asks[] = {
        {.id = uuid_new(),
         .attempt = 1,
         .kind = OUTPUT_WATCH,
         .phase = OUTPUT_RUNNING,
         .seen = {7, INT64_C(1) << 40}},
        {.id = uuid_new(), .attempt = 20, .kind = OUTPUT_FETCH_STDOUT, .offset = 0},
        {.id = uuid_new(), .attempt = 300, .kind = OUTPUT_FETCH_STDERR, .offset = 1048576},
    };
    buf_init(&m, 4096);
    output_asks_begin(&m, gateway);
    for (size_t i = 0; i < 3; i++)
        output_asks_put(&m, &asks[i]);
    assert_true(output_asks_open(buf_view(&m), &told));
    assert_true(uuid_eq(told, gateway));
    assert_int_equal(output_asks_count(buf_view(&m)), 3);
    for (size_t i = 0; i < 3; i++) {
        struct output_ask got;
        assert_true(output_asks_get(buf_view(&m), i, &got));
        assert_true(uuid_eq(got.id, asks[i].id));
        assert_int_equal(got.attempt, asks[i].attempt);
        assert_int_equal(got.kind, asks[i].kind);
        assert_int_equal(got.phase, asks[i].phase);
        assert_int_equal(got.seen[0], asks[i].seen[0]);
        assert_int_equal(got.seen[1], asks[i].seen[1]);
        assert_int_equal(got.offset, asks[i].offset);
    }
    struct output_ask none;
    assert_false(output_asks_get(buf_view(&m), 3, &none));
    for (size_t n = 0; n < m.len; n++) /* cut anywhere but between two */
        assert_int_equal(output_asks_open(str_make(m.data, n), &told), n >= 17 && (n - 17) % 36 == 0);
    m.data[0] = 2;
    assert_false(output_asks_open(buf_view(&m), &told));
    buf_deinit(&m);
}

static void parts_read_back(void **state)
{
    (void)state;
    struct buf m;
    const struct output_part part = {.id = uuid_new(),
                                     .attempt = 3,
                                     .to = OUTPUT_FETCH_STDERR,
                                     .phase = OUTPUT_OVER,
                                     .size = {100, 12},
                                     .offset = {96, 5},
                                     .bytes = {STR("four"), STR("a\0b\xFF")}};
    struct output_part got;
    buf_init(&m, 4096);
    assert_true(output_part_encode(&part, &m));
    assert_true(output_part_decode(buf_view(&m), &got));
    assert_true(uuid_eq(got.id, part.id));
    assert_int_equal(got.attempt, 3);
    assert_int_equal(got.to, OUTPUT_FETCH_STDERR);
    assert_int_equal(got.phase, OUTPUT_OVER);
    for (int k = 0; k < OUTPUT_STREAMS; k++) {
        assert_int_equal(got.size[k], part.size[k]);
        assert_int_equal(got.offset[k], part.offset[k]);
        assert_true(str_eq(got.bytes[k], part.bytes[k]));
    }
    for (size_t n = 0; n < m.len; n++)
        assert_false(output_part_decode(str_make(m.data, n), &got));
    buf_byte(&m, 'x');
    assert_false(output_part_decode(buf_view(&m), &got));
    buf_deinit(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(asks_read_back),
        cmocka_unit_test(parts_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
