/* gateway/cli/sse: events in pieces, line ends, ids, limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "sse.h"

struct seen {
    struct sse s;
    struct buf log;
};

static void note(void *arg, struct str name, struct str data)
{
    struct seen *x = arg;
    buf_printf(&x->log, "[%.*s|%s|%.*s]", STR_ARG(name), x->s.id, STR_ARG(data));
}

/* In pieces of every size the text gives the same events. */
static void gives(const char *text, const char *want, const char *last_id)
{
    for (size_t step = 1; step <= strlen(text); step++) {
        struct seen x;
        buf_init(&x.log, 4096);
        sse_init(&x.s, 1000, note, &x);
        for (size_t at = 0; at < strlen(text); at += step)
            assert_true(
                sse_feed(&x.s, str_make(text + at, strlen(text) - at < step ? strlen(text) - at : step)));
        assert_string_equal(x.log.len > 0 ? buf_cstr(&x.log) : "", want);
        assert_string_equal(x.s.id, last_id);
        sse_deinit(&x.s);
        buf_deinit(&x.log);
    }
}

static void events(void **state)
{
    (void)state;
    gives("id: 1.0.0\nevent: stdout\ndata: \"x\"\n\n", "[stdout|1.0.0|\"x\"]", "1.0.0");
    gives("id: 1\r\ndata: a\r\n\r\nid: 2\r\ndata: b\r\n\r\n", "[message|1|a][message|2|b]", "2");
    gives("data: a\rdata: b\r\rdata: c\r\r", "[message||a\nb][message||c]", "");
    gives("\xEF\xBB\xBF"
          "data:a\n\n",
          "[message||a]", "");
    gives(": comment\n\nretry: 5\n\ndata\n\ndata:\n\n", "[message||][message||]", "");
    gives("data:  two spaces\nunknown: x\nunknown\n\n", "[message|| two spaces]", "");
}

static void what_is_not_whole_does_not_count(void **state)
{
    (void)state;
    gives("id: 1\ndata: a\n\nid: 2\nevent: e\ndata: b\n", "[message|1|a]", "1");
    struct seen x;
    buf_init(&x.log, 4096);
    sse_init(&x.s, 1000, note, &x);
    assert_true(sse_feed(&x.s, STR("id: 1\ndata: a\n\nid: 2\nevent: e\ndata: b\nda")));
    sse_reset(&x.s);
    assert_string_equal(x.s.id, "1");
    assert_true(sse_feed(&x.s, STR("data: c\n\n")));
    assert_string_equal(buf_cstr(&x.log), "[message|1|a][message|1|c]");
    sse_deinit(&x.s);
    buf_deinit(&x.log);
}

static void limits(void **state)
{
    (void)state;
    char line[2000];
    struct seen x;
    memset(line, 'x', sizeof line);
    buf_init(&x.log, 4096);
    sse_init(&x.s, 1000, note, &x);
    assert_false(sse_feed(&x.s, str_make(line, sizeof line)));
    sse_deinit(&x.s);
    sse_init(&x.s, 1000, note, &x);
    bool ok = true;
    for (int i = 0; ok && i < 100; i++)
        ok = sse_feed(&x.s, STR("data: twenty bytes of it..\n"));
    assert_false(ok);
    sse_deinit(&x.s);
    sse_init(&x.s, 1000, note, &x);
    memcpy(line, "id: ", 4);
    line[300] = '\n';
    assert_false(sse_feed(&x.s, str_make(line, 301)));
    sse_deinit(&x.s);
    buf_deinit(&x.log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events),
        cmocka_unit_test(what_is_not_whole_does_not_count),
        cmocka_unit_test(limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
