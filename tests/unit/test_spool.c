/* executor/spool: memory, disk, cap, budget, cuts in text and in binary. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "spool.h"

static char *pattern(size_t n)
{
    char *p = malloc(n);
    for (size_t i = 0; i < n; i++)
        p[i] = (char)(i * 31 + i / 251);
    return p;
}

static void holds(const struct spool *s, const char *want, int64_t n)
{
    char *got = malloc((size_t)n + 1);
    assert_int_equal(s->size, n);
    assert_int_equal(spool_read(s, 0, got, (size_t)n + 1), n);
    assert_memory_equal(got, want, (size_t)n);
    free(got);
}

static void memory_then_disk(void **state)
{
    (void)state;
    enum { N = 100000 };
    struct spool_budget budget = {.dir = "/tmp", .max = 1 << 20};
    struct spool s;
    char *data = pattern(N);
    spool_init(&s, &budget, 1 << 20);
    for (size_t at = 0, step = 1; at < N; at += step, step = step % 977 + 13) {
        size_t n = N - at < step ? N - at : step;
        spool_put(&s, str_make(data + at, n));
        assert_int_equal(s.size, at + n);
        assert_int_equal(s.fd >= 0, s.size > SPOOL_MEMORY_BYTES);
    }
    assert_false(s.truncated);
    assert_int_equal(s.seen, N);
    assert_int_equal(budget.used, N - SPOOL_MEMORY_BYTES);
    holds(&s, data, N);
    char some[100];
    assert_int_equal(spool_read(&s, SPOOL_MEMORY_BYTES - 50, some, sizeof some), 100); /* across the seam */
    assert_memory_equal(some, data + SPOOL_MEMORY_BYTES - 50, 100);
    assert_int_equal(spool_read(&s, N, some, sizeof some), 0);
    assert_int_equal(spool_read(&s, N - 7, some, sizeof some), 7);
    spool_deinit(&s);
    assert_int_equal(budget.used, 0);
    spool_deinit(&s);
    assert_int_equal(budget.used, 0);
    free(data);
}

static void cap(void **state)
{
    (void)state;
    struct spool_budget budget = {.dir = "/tmp", .max = 1 << 20};
    char *data = pattern(60000);
    static const int64_t caps[] = {1, 1000, SPOOL_MEMORY_BYTES, SPOOL_MEMORY_BYTES + 1, 50000};
    for (size_t i = 0; i < sizeof caps / sizeof *caps; i++) {
        struct spool s;
        spool_init(&s, &budget, caps[i]);
        spool_put(&s, str_make(data, 10));
        spool_put(&s, str_make(data + 10, 59990));
        spool_put(&s, STR("after the gap"));
        assert_true(s.truncated);
        assert_int_equal(s.seen, 60013);
        holds(&s, data, caps[i]);
        spool_deinit(&s);
    }
    struct spool s;
    spool_init(&s, &budget, 60000);
    spool_put(&s, str_make(data, 60000));
    assert_false(s.truncated); /* exactly full is whole */
    spool_put(&s, STR("x"));
    assert_true(s.truncated);
    spool_deinit(&s);
    assert_int_equal(budget.used, 0);
    free(data);
}

static void budget_is_shared(void **state)
{
    (void)state;
    struct spool_budget budget = {.dir = "/tmp", .max = 5000};
    struct spool a, b, c;
    char *data = pattern(40000);
    spool_init(&a, &budget, 1 << 20);
    spool_init(&b, &budget, 1 << 20);
    spool_init(&c, &budget, 1 << 20);
    spool_put(&a, str_make(data, SPOOL_MEMORY_BYTES + 3000));
    assert_false(a.truncated);
    spool_put(&b, str_make(data, SPOOL_MEMORY_BYTES + 3000));
    assert_true(b.truncated);
    holds(&b, data, SPOOL_MEMORY_BYTES + 2000);
    spool_put(&c, str_make(data, SPOOL_MEMORY_BYTES));
    assert_false(c.truncated); /* memory is each one's own */
    spool_put(&c, STR("x"));
    assert_true(c.truncated);
    assert_int_equal(budget.used, 5000);
    spool_deinit(&a);
    assert_int_equal(budget.used, 2000);
    spool_deinit(&b);
    spool_deinit(&c);
    assert_int_equal(budget.used, 0);
    free(data);
}

static void no_directory(void **state)
{
    (void)state;
    struct spool_budget budget = {.dir = "/nonexistent", .max = 1 << 20};
    struct spool s;
    char *data = pattern(SPOOL_MEMORY_BYTES + 1);
    spool_init(&s, &budget, 1 << 20);
    spool_put(&s, str_make(data, SPOOL_MEMORY_BYTES + 1));
    assert_true(s.truncated);
    holds(&s, data, SPOOL_MEMORY_BYTES);
    spool_deinit(&s);
    assert_int_equal(budget.used, 0);
    free(data);
}

/* The size kept of `whole`, cut at `cap` after `before` bytes of ASCII. */
static int64_t finished(size_t before, struct str whole, int64_t cap_after)
{
    struct spool_budget budget = {.dir = "/tmp", .max = 1 << 20};
    struct spool s;
    char *fill = malloc(before + 1);
    memset(fill, 'a', before + 1);
    spool_init(&s, &budget, (int64_t)before + cap_after);
    spool_put(&s, str_make(fill, before));
    spool_put(&s, whole);
    spool_finish(&s);
    int64_t size = s.size;
    int64_t on_disk = s.fd >= 0 ? s.size - (int64_t)s.head.len : 0;
    assert_int_equal(budget.used, on_disk);
    spool_deinit(&s);
    assert_int_equal(budget.used, 0);
    free(fill);
    return size - (int64_t)before;
}

static void cut_text(void **state)
{
    (void)state;
    static const size_t befores[] = {10, 5000, SPOOL_MEMORY_BYTES - 2, SPOOL_MEMORY_BYTES + 5000};
    for (size_t i = 0; i < 4; i++) {
        size_t n = befores[i];
        bool seam = i == 2; /* the last bytes lie on both sides of the seam: left as they are */
        assert_int_equal(finished(n, STR("xy\xc3\xa4zz"), 3), seam ? 3 : 2);
        assert_int_equal(finished(n, STR("xy\xc3\xa4zz"), 4), 4);
        assert_int_equal(finished(n, STR("xy\xe2\x82\xaczz"), 3), seam ? 3 : 2);
        assert_int_equal(finished(n, STR("xy\xe2\x82\xaczz"), 4), seam ? 4 : 2);
        assert_int_equal(finished(n, STR("xy\xe2\x82\xaczz"), 5), 5);
        assert_int_equal(finished(n, STR("xyab\xf0\x9f\x98\x80zz"), 7), 4);
        assert_int_equal(finished(n, STR("xyab\xf0\x9f\x98\x80zz"), 8), 8);
        assert_int_equal(finished(n, STR("abc\xc3\xa4"), 5), 5); /* whole: nothing to do */
    }
}

static void cut_binary(void **state)
{
    (void)state;
    static const size_t befores[] = {10, 5000, SPOOL_MEMORY_BYTES + 5000};
    for (size_t i = 0; i < 3; i++) { /* what is not text keeps each byte */
        assert_int_equal(finished(befores[i], STR("\xff\xfe\x00\xc3zz"), 4), 4);
        assert_int_equal(finished(befores[i], STR("\x80\x80\x80\x80\x80zz"), 4), 4);
        assert_int_equal(finished(befores[i], STR("\xed\xa0\x80\xe2\x82zz"), 5), 5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_then_disk), cmocka_unit_test(cap),      cmocka_unit_test(budget_is_shared),
        cmocka_unit_test(no_directory),     cmocka_unit_test(cut_text), cmocka_unit_test(cut_binary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
