/* executor/redact: what is taken out, whatever the pieces; against a plain reading of the rule. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "crypto/crypto.h"
#include "redact.h"

enum { MAX = 1 << 20 };

static void put(void *arg, struct str piece)
{
    assert_true(buf_str(arg, piece));
}

/* Fed in pieces of `step`, after a first one of `first` bytes. */
static void run(struct redact_values *v, struct str text, size_t first, size_t step, struct buf *out)
{
    struct redactor *r = redactor_new(v, put, out);
    buf_clear(out);
    for (size_t at = 0, n = first; at < text.n; at += n, n = step) {
        n = text.n - at < n ? text.n - at : n;
        redactor_feed(r, str_make(text.p + at, n));
    }
    redactor_end(r);
    redactor_free(&r);
}

static void gives(const struct redact_value *list, size_t n, const char *text, const char *want)
{
    struct redact_values *v = redact_values_new(list, n);
    struct buf out;
    assert_non_null(v);
    buf_init(&out, MAX);
    size_t len = strlen(text);
    for (size_t first = 1; first <= len; first++)
        for (size_t step = 1; step <= len; step = step < 9 ? step + 1 : step * 3) {
            run(v, str_of(text), first, step, &out);
            if (!str_eq_c(buf_view(&out), want))
                fail_msg("%s in pieces of %zu, %zu: \"%.*s\", not \"%s\"", text, first, step,
                         STR_ARG(buf_view(&out)), want);
        }
    buf_deinit(&out);
    redact_values_free(&v);
}

#define V(name, value)        \
    {                         \
        STR(name), STR(value) \
    }
#define GIVES(list, text, want) gives(list, sizeof(list) / sizeof *(list), text, want)

static void one_value(void **state)
{
    (void)state;
    static const struct redact_value list[] = {V("KEY", "abcdabce")};
    GIVES(list, "abcdabce", "[redacted:KEY]");
    GIVES(list, "x abcdabce y", "x [redacted:KEY] y");
    GIVES(list, "abcdabcdabce", "abcd[redacted:KEY]");
    GIVES(list, "abcdabceabcdabce", "[redacted:KEY][redacted:KEY]");
    GIVES(list, "abcdabcf", "abcdabcf");
    GIVES(list, "nothing at all", "nothing at all");
    GIVES(list, "ends with abc", "ends with abc");
}

static void values_that_contain_each_other(void **state)
{
    (void)state;
    static const struct redact_value list[] = {V("SHORT", "bcdefghi"), V("LONG", "abcdefghij"),
                                               V("TAIL", "ghijklmno")};
    GIVES(list, "abcdefghij.", "[redacted:LONG].");
    GIVES(list, "abcdefghi.", "a[redacted:SHORT].");
    GIVES(list, "xbcdefghij", "x[redacted:SHORT]j");
    GIVES(list, "abcdefghijklmno!",
          "[redacted:LONG]!"); /* overlapping: one mark, nothing is left of either */
    GIVES(list, "bcdefghijklmno!", "[redacted:SHORT]!");
    GIVES(list, "abcdefghiabcdefghij", "a[redacted:SHORT][redacted:LONG]");
    static const struct redact_value same[] = {V("A", "12345678"), V("B", "12345678"), V("C", "1234567")};
    GIVES(same, "12345678 1234567", "[redacted:A] 1234567"); /* of seven bytes: not looked for */
    static const struct redact_value within[] = {V("IN", "aaaaaaaa"), V("OUT", "aaaaaaaabbbbaaaaaaaacccc")};
    GIVES(within, "aaaaaaaabbbbaaaaaaaacccc", "[redacted:OUT]");
    GIVES(within, "aaaaaaaabbbbaaaaaaaaccc.", "[redacted:IN]bbbb[redacted:IN]ccc.");
    GIVES(within, "aaaaaaaaaaaa", "[redacted:IN]");
}

static void at_the_end(void **state)
{
    (void)state;
    static const struct redact_value list[] = {V("K", "0123456789abcdef")};
    GIVES(list, "0123456789", "[redacted:K]"); /* more than half of it */
    GIVES(list, "01234567", "01234567");
    GIVES(list, "x0123456", "x0123456");
}

static void lines_and_bytes(void **state)
{
    (void)state;
    static const struct redact_value list[] = {V("PEM", "-----BEGIN\nAAAA\nBBBB\n-----END"),
                                               V("U", "\xc3\xa4\xc3\xb6\xc3\xbc\xff\x01")};
    GIVES(list, "key:\n-----BEGIN\nAAAA\nBBBB\n-----END\n", "key:\n[redacted:PEM]\n");
    GIVES(list, "-----BEGIN\nAAAA\nCCCC", "-----BEGIN\nAAAA\nCCCC");
    GIVES(list, "\xc3\xa4\xc3\xa4\xc3\xb6\xc3\xbc\xff\x01", "\xc3\xa4[redacted:U]");
}

static void nothing_to_look_for(void **state)
{
    (void)state;
    static const struct redact_value list[] = {V("SHORT", "short")};
    struct redact_values *v = redact_values_new(list, 0);
    assert_true(redact_values_none(v));
    redact_values_free(&v);
    v = redact_values_new(list, 1);
    assert_true(redact_values_none(v));
    redact_values_free(&v);
    GIVES(list, "short stays", "short stays");
}

/* ---- against the rule, read plainly ---- */

static size_t most_of(const struct redact_value *list, size_t n, struct str text, size_t *from)
{
    for (size_t d = text.n; d >= 8; d--) /* the longest end that is the beginning of a value */
        for (size_t i = 0, best = SIZE_MAX; i < n; i++) {
            bool is = list[i].value.n >= d && memcmp(list[i].value.p, text.p + text.n - d, d) == 0;
            if (is)
                best = list[i].value.n < best ? list[i].value.n : best;
            if (i + 1 == n && best != SIZE_MAX) {
                *from = text.n - d;
                return d > best / 2 ? d : 0;
            }
        }
    return 0;
}

static void plainly(const struct redact_value *list, size_t n, struct str text, struct buf *out)
{

    size_t from = 0, most = most_of(list, n, text, &from);
    size_t cover = 0;
    buf_clear(out);
    for (size_t at = 0; at < text.n; at++) {
        size_t best = 0;
        for (size_t i = 0; i < n; i++)
            if (list[i].value.n >= 8 && list[i].value.n <= text.n - at && list[i].value.n > best &&
                memcmp(text.p + at, list[i].value.p, list[i].value.n) == 0)
                best = list[i].value.n;
        if (most > best && at == from)
            best = most;
        if (best > 0 && at >= cover) { /* a mark of its own */
            buf_cstr_append(out, "<#>");
        }
        if (at + best > cover)
            cover = at + best;
        if (at >= cover)
            buf_byte(out, text.p[at]);
    }
}

/* Marks without names, so that the two can be compared. */
static void nameless(struct str s, struct buf *out)
{
    buf_clear(out);
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '[') {
            buf_cstr_append(out, "<#>");
            while (s.p[i] != ']')
                i++;
        } else {
            buf_byte(out, s.p[i]);
        }
    }
}

static size_t dice(uint32_t *seed, size_t n)
{
    *seed = *seed * 1103515245 + 12345;
    return (*seed >> 16) % n;
}

static void as_the_rule_says(void **state)
{
    (void)state;
    struct buf want, got, plain;
    uint32_t seed = 12345;
    buf_init(&want, MAX);
    buf_init(&got, MAX);
    buf_init(&plain, MAX);
    for (int round = 0; round < 3000; round++) {
        char values[5][40], text[200];
        struct redact_value list[5];
        size_t n = 1 + dice(&seed, 5), len = dice(&seed, 200), letters = 1 + dice(&seed, 3);
        for (size_t i = 0; i < n; i++) {
            size_t m = 6 + dice(&seed, 30);
            for (size_t k = 0; k < m; k++)
                values[i][k] = (char)('a' + dice(&seed, letters));
            if (i > 0 && dice(&seed, 2) == 0) /* often one is of another's bytes */
                memcpy(values[i], list[0].value.p, m < list[0].value.n ? m : list[0].value.n);
            list[i] = (struct redact_value){STR("N"), str_make(values[i], m)};
        }
        for (size_t k = 0; k < len; k++)
            text[k] = (char)('a' + dice(&seed, letters + 1));
        for (int k = 0; k < 3 && len > 40; k++) {
            const struct redact_value *x = &list[dice(&seed, n)];
            memcpy(text + dice(&seed, len - 39), x->value.p, x->value.n);
        }
        struct redact_values *v = redact_values_new(list, n);
        run(v, str_make(text, len), 1 + dice(&seed, 50), 1 + dice(&seed, 50), &got);
        redact_values_free(&v);
        nameless(buf_view(&got), &plain);
        plainly(list, n, str_make(text, len), &want);
        if (!str_eq(buf_view(&plain), buf_view(&want)))
            fail_msg("round %d: \"%.*s\" gives \"%.*s\", not \"%.*s\"", round, (int)len, text,
                     STR_ARG(buf_view(&plain)), STR_ARG(buf_view(&want)));
    }
    buf_deinit(&want);
    buf_deinit(&got);
    buf_deinit(&plain);
}

/* Held back: never more than the longest value less one byte, and nothing when nothing can have begun. */
struct held {
    size_t out;
};

static void count(void *arg, struct str piece)
{
    ((struct held *)arg)->out += piece.n;
}

static void little_is_held_back(void **state)
{
    (void)state;
    enum { LONG = 32 * 1024 };
    char *value = malloc(LONG);
    for (size_t i = 0; i < LONG; i++)
        value[i] = (char)('a' + i * 7 % 26);
    const struct redact_value list[] = {{STR("LONG"), str_make(value, LONG)}};
    struct redact_values *v = redact_values_new(list, 1);
    struct held held = {0};
    struct redactor *r = redactor_new(v, count, &held);
    redactor_feed(r, STR("Nothing of it begins here.\n"));
    assert_int_equal(held.out, 27);
    redactor_feed(r, str_make(value, LONG - 1));
    assert_int_equal(held.out, 27);
    redactor_feed(r, STR("#"));
    assert_int_equal(held.out, 27 + LONG);
    assert_false(redactor_hit(r));
    for (size_t i = 0; i < LONG; i++)
        redactor_feed(r, str_make(value + i, 1));
    assert_int_equal(held.out, 27 + LONG + strlen("[redacted:LONG]"));
    assert_true(redactor_hit(r));
    redactor_free(&r);
    redact_values_free(&v);
    free(value);
}

static int init(void **state)
{
    (void)state;
    return crypto_init(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_value),           cmocka_unit_test(values_that_contain_each_other),
        cmocka_unit_test(at_the_end),          cmocka_unit_test(lines_and_bytes),
        cmocka_unit_test(nothing_to_look_for), cmocka_unit_test(as_the_rule_says),
        cmocka_unit_test(little_is_held_back),
    };
    return cmocka_run_group_tests(tests, init, NULL);
}
