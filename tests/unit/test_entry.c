/* store/entry and store/nonce: packing, strict unpacking, nonces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "store/entry.h"
#include "store/nonce.h"

static struct entry sample(struct str prompt, bool prompt_inline)
{
    return (struct entry){.kind = ENTRY_INVOCATION,
                          .id = uuid_new(),
                          .tenant = 77,
                          .agent = uuid_new(),
                          .version = 3,
                          .attempt = 20,
                          .max_attempts = 19,
                          .retry_on = 3,
                          .reruns = 2,
                          .blames = 1,
                          .own = 4,
                          .priority = INV_LOW,
                          .timeout_ms = 3600000,
                          .queue_deadline = {.us = 1795251234567891},
                          .ready = {.us = 1795251234560000},
                          .trace = {.present = prompt_inline,
                                    .trace_id = {prompt_inline, 2, 3},
                                    .parent_id = {[7] = prompt_inline},
                                    .flags = prompt_inline},
                          .files = {.b = {[3] = prompt_inline}},
                          .prompt_bytes = prompt_inline ? (uint32_t)prompt.n : 4u * 1024 * 1024,
                          .prompt_inline = prompt_inline,
                          .prompt = prompt_inline ? prompt : str_of(NULL)};
}

static void same(const struct entry *a, const struct entry *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_true(uuid_eq(a->id, b->id) && uuid_eq(a->agent, b->agent));
    assert_int_equal(a->tenant, b->tenant);
    assert_int_equal(a->version, b->version);
    assert_int_equal(a->attempt, b->attempt);
    assert_int_equal(a->max_attempts, b->max_attempts);
    assert_int_equal(a->retry_on, b->retry_on);
    assert_int_equal(a->reruns, b->reruns);
    assert_int_equal(a->blames, b->blames);
    assert_int_equal(a->own, b->own);
    assert_int_equal(a->priority, b->priority);
    assert_int_equal(a->timeout_ms, b->timeout_ms);
    assert_int_equal(a->queue_deadline.us, b->queue_deadline.us);
    assert_int_equal(a->ready.us, b->ready.us);
    assert_int_equal(a->trace.present, b->trace.present);
    if (a->trace.present)
        assert_memory_equal(&a->trace, &b->trace, sizeof a->trace);
    assert_true(uuid_eq(a->files, b->files));
    assert_int_equal(a->prompt_bytes, b->prompt_bytes);
    assert_int_equal(a->prompt_inline, b->prompt_inline);
    assert_true(str_eq(a->prompt, b->prompt));
}

static void round_trip(void **state)
{
    (void)state;
    char big[INV_ENTRY_PROMPT_BYTES];
    memset(big, '\xff', sizeof big);
    const struct entry all[] = {sample(STR("hello\0\n"), true), sample(STR(""), true),
                                sample(str_make(big, sizeof big), true), sample(STR(""), false)};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct buf b;
        struct entry back;
        buf_init(&b, ENTRY_MAX_BYTES);
        assert_true(entry_encode(&all[i], &b));
        assert_true(entry_decode(buf_view(&b), &back));
        same(&all[i], &back);
        buf_deinit(&b);
    }
    struct entry build = sample(STR(""), false), back;
    struct buf b;
    build.kind = ENTRY_BUILD;
    build.prompt_bytes = 0;
    buf_init(&b, ENTRY_MAX_BYTES);
    assert_true(entry_encode(&build, &b));
    assert_true(entry_decode(buf_view(&b), &back));
    same(&build, &back);
    buf_deinit(&b);
}

/* Every prefix is refused, in memory of exactly its size; so is one byte more. */
static void exact_length(void **state)
{
    (void)state;
    for (int with = 0; with < 2; with++) {
        struct entry e = sample(STR("prompt"), with == 1), back;
        struct buf b;
        buf_init(&b, ENTRY_MAX_BYTES);
        assert_true(entry_encode(&e, &b));
        for (size_t n = 0; n < b.len; n++) {
            char *part = malloc(n + 1);
            memcpy(part, b.data, n);
            char *exact = realloc(part, n > 0 ? n : 1);
            assert_false(entry_decode(str_make(exact, n), &back));
            free(exact);
        }
        buf_byte(&b, '\0');
        assert_false(entry_decode(buf_view(&b), &back));
        buf_deinit(&b);
    }
}

static void refuse(struct entry e)
{
    struct buf b;
    struct entry back;
    buf_init(&b, ENTRY_MAX_BYTES);
    assert_true(entry_encode(&e, &b));
    assert_false(entry_decode(buf_view(&b), &back));
    buf_deinit(&b);
}

static void implausible(void **state)
{
    (void)state;
    struct entry e = sample(STR("x"), true);
#define WITH(change)          \
    do {                      \
        struct entry bad = e; \
        bad.change;           \
        refuse(bad);          \
    } while (0)
    WITH(kind = (enum entry_kind)0);
    WITH(kind = (enum entry_kind)3);
    WITH(priority = (enum inv_priority)3);
    WITH(attempt = 0);
    WITH(attempt = -1);
    WITH(version = 0);
    WITH(timeout_ms = 0);
    WITH(timeout_ms = -1);
    WITH(prompt_bytes = 2);
    WITH(prompt_bytes = 0);
    WITH(prompt_bytes = UINT32_MAX);
    struct entry far = sample(STR(""), false), back;
    far.prompt_bytes = (uint32_t)INV_PROMPT_MAX_BYTES + 1; /* would be allocated by its reader */
    refuse(far);
    char big[INV_ENTRY_PROMPT_BYTES + 1] = {0};
    struct buf b;
    struct entry large = sample(str_make(big, sizeof big), true);
    buf_init(&b, 2 * ENTRY_MAX_BYTES);
    assert_true(entry_encode(&large, &b));
    assert_false(entry_decode(buf_view(&b), &back)); /* its reader has no more room */
    b.data[0] = 0;
    assert_false(entry_decode(buf_view(&b), &back));
    buf_deinit(&b);
}

static void no_room(void **state)
{
    (void)state;
    struct entry e = sample(STR("prompt"), true);
    struct buf b;
    buf_init(&b, 40);
    assert_false(entry_encode(&e, &b));
    buf_deinit(&b);
}

static void nonces(void **state)
{
    (void)state;
    struct uuid id = uuid_new(), seen[64];
    for (int attempt = 1; attempt <= 63; attempt++) {
        int back = -1;
        seen[attempt] = nonce_make(id, attempt);
        assert_true(uuid_eq(nonce_read(seen[attempt], &back), id));
        assert_int_equal(back, attempt);
        for (int other = 1; other < attempt; other++)
            assert_false(uuid_eq(seen[attempt], seen[other]));
    }
    static const int none[] = {0, 64, 65, 1000, -1};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        int back = -1;
        assert_true(uuid_eq(nonce_read(nonce_make(id, none[i]), &back), id));
        assert_int_equal(back, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip), cmocka_unit_test(exact_length), cmocka_unit_test(implausible),
        cmocka_unit_test(no_room),    cmocka_unit_test(nonces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
