/* The pure parts of sandboxd that read what clients send: frames, the metadata filter, forms. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "connect.h"
#include "filter.h"
#include "http/multipart.h"

/* ---- frames ---- */

static void frames(void **state)
{
    struct buf b;
    struct str payload;
    (void)state;
    buf_init(&b, 4096);
    connect_frame(&b, 0, STR("{}"));
    assert_int_equal(b.len, 7);
    assert_memory_equal(b.data, "\0\0\0\0\2{}", 7);
    assert_true(connect_single(buf_view(&b), &payload));
    assert_true(str_eq(payload, STR("{}")));
    assert_false(connect_single(str_make(b.data, 6), &payload));
    assert_false(connect_single(str_make(b.data, 4), &payload));
    b.data[0] = 1; /* compressed */
    assert_false(connect_single(buf_view(&b), &payload));
    buf_clear(&b);
    connect_end_stream(&b, NULL, NULL);
    assert_memory_equal(b.data, "\2\0\0\0\2{}", 7);
    buf_clear(&b);
    connect_end_stream(&b, "not_found", "a \"b\"");
    assert_int_equal(b.data[0], 2);
    assert_true(str_eq(str_make(b.data + 5, b.len - 5),
                       STR("{\"error\":{\"code\":\"not_found\",\"message\":\"a \\\"b\\\"\"}}")));
    buf_clear(&b);
    size_t head = connect_frame_begin(&b);
    for (int i = 0; i < 300; i++)
        buf_byte(&b, 'x');
    connect_frame_end(&b, head, 0);
    assert_memory_equal(b.data, "\0\0\0\1\x2c", 5);
    buf_deinit(&b);
}

static void timeouts(void **state)
{
    int64_t ms;
    (void)state;
    assert_true(connect_timeout(STR("60000"), &ms));
    assert_int_equal(ms, 60000);
    assert_true(connect_timeout(STR("9999999999"), &ms));
    assert_false(connect_timeout(STR("10000000000"), &ms));
    assert_false(connect_timeout(STR("-1"), &ms));
    assert_false(connect_timeout(STR("1s"), &ms));
    assert_false(connect_timeout(STR(""), &ms));
    assert_int_equal(connect_http_status("resource_exhausted"), 429);
    assert_int_equal(connect_http_status("no such code"), 500);
}

/* ---- the metadata filter ---- */

static void filters(void **state)
{
    struct pairs p, metadata = {0};
    (void)state;
    /* job = "1 2", as the SDK's three layers leave it after the query's own decoding */
    assert_true(filter_parse(STR("job=1%25202&k=a%252Fb"), &p, NULL));
    assert_int_equal(p.count, 2);
    assert_string_equal(pairs_get(&p, STR("job")), "1 2");
    assert_string_equal(pairs_get(&p, STR("k")), "a/b");
    pairs_add(&metadata, STR("job"), STR("1 2"));
    assert_false(filter_match(&p, &metadata));
    pairs_add(&metadata, STR("k"), STR("a/b"));
    pairs_add(&metadata, STR("more"), STR("x"));
    assert_true(filter_match(&p, &metadata));
    pairs_free(&p);
    assert_true(filter_parse(STR(""), &p, NULL));
    assert_true(filter_match(&p, &metadata));
    pairs_free(&p);
    pairs_free(&metadata);
}

static void bad_filters(void **state)
{
    static const char *const bad[] = {"job", "job=1=2", "a=b&c", "a=%zz", "a=%2", "=1=", "a=b%"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct pairs p;
        struct err err = ERR_INIT;
        assert_false(filter_parse(str_of(bad[i]), &p, &err));
        assert_int_equal(err.code, ERR_BAD_QUERY);
        assert_int_equal(p.count, 0);
    }
}

/* ---- forms ---- */

static struct buf seen;

static bool on_part(void *arg, struct str name, struct str filename)
{
    (void)arg;
    return buf_printf(&seen, "<%.*s|%.*s>", STR_ARG(name), STR_ARG(filename));
}

static bool on_data(void *arg, struct str piece)
{
    (void)arg;
    return buf_str(&seen, piece);
}

static bool on_end(void *arg)
{
    (void)arg;
    return buf_str(&seen, STR("</>"));
}

static const struct multipart_events events = {on_part, on_data, on_end};

static bool feed(const char *body, size_t step)
{
    struct multipart *m = multipart_new(STR("B-1"), &events, NULL);
    size_t n = strlen(body);
    bool ok = true;
    buf_clear(&seen);
    for (size_t at = 0; at < n && ok; at += step)
        ok = multipart_feed(m, str_make(body + at, n - at < step ? n - at : step));
    ok = ok && multipart_complete(m);
    multipart_free(&m);
    return ok;
}

static void forms(void **state)
{
    static const char body[] =
        "preamble\r\n--B-1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"/a/b c.txt\"\r\n"
        "Content-Type: text/plain\r\n\r\nline\r\n--B-\r\n\r\n--B-1\r\n"
        "content-disposition: form-data; filename=x; name=file\r\n\r\n\r\n--B-1--\r\nepilogue";
    (void)state;
    buf_init(&seen, 4096);
    for (size_t step = 1; step < sizeof body; step++) {
        assert_true(feed(body, step));
        assert_true(str_eq(buf_view(&seen), STR("<file|/a/b c.txt>line\r\n--B-\r\n</><file|x></>")));
    }
    assert_true(feed("--B-1--", 1));
    assert_false(feed("--B-1\r\n\r\nnever ends", 3));
    assert_false(feed("--B-1xx", 3));
    assert_false(feed("", 3));
    buf_deinit(&seen);
}

static void boundaries(void **state)
{
    struct str b;
    (void)state;
    assert_true(multipart_boundary(STR("multipart/form-data; boundary=----formdata-undici-012"), &b));
    assert_true(str_eq(b, STR("----formdata-undici-012")));
    assert_true(multipart_boundary(STR("Multipart/Form-Data; charset=x; Boundary=\"a b\""), &b));
    assert_true(str_eq(b, STR("a b")));
    assert_false(multipart_boundary(STR("multipart/form-data"), &b));
    assert_false(multipart_boundary(STR("multipart/form-data; boundary="), &b));
    assert_false(multipart_boundary(STR("multipart/form-data; boundary=\"x"), &b));
    assert_false(multipart_boundary(STR("application/octet-stream; boundary=x"), &b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames),      cmocka_unit_test(timeouts), cmocka_unit_test(filters),
        cmocka_unit_test(bad_filters), cmocka_unit_test(forms),    cmocka_unit_test(boundaries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
