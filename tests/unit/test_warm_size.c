/* Shares and sizes of warm pools. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "warm_size.h"

enum { FLEET = 7 };

static void make_fleet(struct uuid boots[FLEET])
{
    for (int i = 0; i < FLEET; i++)
        boots[i] = (struct uuid){.b = {(uint8_t)(i * 37 + 11)}};
}

/* Whatever the number, the shares of all come to it, and differ by one at most. */
static void test_shares_come_to_the_whole(void **state)
{
    (void)state;
    struct uuid boots[FLEET];
    make_fleet(boots);
    for (int n = 0; n < 40; n++)
        for (uint8_t v = 0; v < 20; v++) {
            struct uuid version = {.b = {[15] = v}};
            int sum = 0;
            for (int i = 0; i < FLEET; i++) {
                int share = warm_share(n, boots, FLEET, boots[i], version);
                assert_in_range(share, n / FLEET, n / FLEET + 1);
                sum += share;
            }
            assert_int_equal(sum, n);
        }
}

/* What is left over does not always go to the same one. */
static void test_who_has_one_more_differs(void **state)
{
    (void)state;
    struct uuid boots[FLEET];
    make_fleet(boots);
    for (int i = 0; i < FLEET; i++) {
        int had = 0;
        for (uint8_t v = 0; v < FLEET; v++)
            had += warm_share(1, boots, FLEET, boots[i], (struct uuid){.b = {[15] = v}});
        assert_int_equal(had, 1);
    }
}

static void test_alone(void **state)
{
    (void)state;
    struct uuid self = {.b = {9}}, version = {.b = {[15] = 3}};
    assert_int_equal(warm_share(10, NULL, 0, self, version), 10); /* the register is not known yet */
    assert_int_equal(warm_share(10, &self, 1, self, version), 10);
}

static void test_a_rate_follows_arrivals(void **state)
{
    (void)state;
    struct warm_rate r = {0};
    mono_t now = {.us = 1000000};
    for (int i = 0; i < 3000; i++) {
        warm_rate_arrival(&r, now);
        now = mono_add_ms(now, 20);
    }
    assert_true(r.per_sec > 48 && r.per_sec < 52);
    assert_true(warm_rate_now(&r, mono_add_ms(now, 10000)) < 20);
    assert_true(warm_rate_now(&r, mono_add_ms(now, 200000)) < 0.001);
}

static void test_wanted(void **state)
{
    (void)state;
    assert_int_equal(warm_wanted(0, 0.2, 0, 20), 0);
    assert_int_equal(warm_wanted(0, 0.2, 3, 20), 3);
    assert_int_equal(warm_wanted(1, 0.2, 0, 20), 2);
    assert_int_equal(warm_wanted(50, 0.15, 0, 20), 16);
    assert_int_equal(warm_wanted(500, 0.15, 0, 20), 20);
    assert_int_equal(warm_wanted(500, 0.15, 10, 10), 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares_come_to_the_whole),
        cmocka_unit_test(test_who_has_one_more_differs),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_a_rate_follows_arrivals),
        cmocka_unit_test(test_wanted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
