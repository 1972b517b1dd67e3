/* webhooks: the specification's signatures, sealing, events and filters, the schedule, ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "crypto/crypto.h"
#include "crypto/seal.h"
#include "crypto/webhook_sign.h"
#include "model/webhook.h"

/* The vector that the specification's libraries share in their tests. */
#define VECTOR_SECRET "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#define VECTOR_ID "msg_p5jXN8AQM9LWM0D4loKWxJek"
#define VECTOR_BODY "{\"test\": 2432232314}"
#define VECTOR_SIGNATURE "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
enum { VECTOR_AT = 1614265330 };

static void the_specifications_vector(void **state)
{
    (void)state;
    struct webhook_secret s;
    struct buf out;
    buf_init(&out, 256);
    assert_true(webhook_secret_read(STR(VECTOR_SECRET), &s));
    assert_true(webhook_sign(&s, STR(VECTOR_ID), VECTOR_AT, STR(VECTOR_BODY), &out));
    assert_string_equal(buf_cstr(&out), VECTOR_SIGNATURE);
    assert_true(webhook_verify(&s, STR(VECTOR_ID), VECTOR_AT, STR(VECTOR_BODY), STR(VECTOR_SIGNATURE)));
    assert_true(webhook_verify(&s, STR(VECTOR_ID), VECTOR_AT, STR(VECTOR_BODY),
                               STR("v1,AAAA v1a,x " VECTOR_SIGNATURE)));
    assert_false(webhook_verify(&s, STR(VECTOR_ID), VECTOR_AT + 1, STR(VECTOR_BODY), STR(VECTOR_SIGNATURE)));
    assert_false(webhook_verify(&s, STR(VECTOR_ID "x"), VECTOR_AT, STR(VECTOR_BODY), STR(VECTOR_SIGNATURE)));
    assert_false(webhook_verify(&s, STR(VECTOR_ID), VECTOR_AT, STR(VECTOR_BODY " "), STR(VECTOR_SIGNATURE)));
    assert_false(webhook_verify(&s, STR(VECTOR_ID), VECTOR_AT, STR(VECTOR_BODY), STR("")));
    assert_false(webhook_verify(&s, STR(VECTOR_ID), VECTOR_AT, STR(VECTOR_BODY), STR("v1,")));
    buf_deinit(&out);
}

static void secrets_have_one_form(void **state)
{
    (void)state;
    char text[WEBHOOK_SECRET_TEXT_BYTES], other[WEBHOOK_SECRET_TEXT_BYTES];
    struct webhook_secret s;
    webhook_secret_new(text);
    webhook_secret_new(other);
    assert_string_not_equal(text, other);
    assert_true(webhook_secret_read(str_of(text), &s));
    assert_int_equal(s.n, 32);
    static const char *const bad[] = {
        "", "whsec_", "whsec_QUJD", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa w",
        "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        /* 65 bytes */
        "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(webhook_secret_read(str_of(bad[i]), &s));
}

static void what_is_sealed_opens_with_its_key_alone(void **state)
{
    (void)state;
    char public[SEAL_KEY_TEXT_BYTES], private[SEAL_KEY_TEXT_BYTES], other[SEAL_KEY_TEXT_BYTES],
        unused[SEAL_KEY_TEXT_BYTES];
    char both[2 * SEAL_KEY_TEXT_BYTES + 2], plain[64];
    struct err err;
    struct seal_public key;
    struct buf sealed;
    size_t n;
    seal_pair_new(public, private);
    seal_pair_new(unused, other);
    buf_init(&sealed, 256);
    assert_int_equal(seal_public_read(str_of(public), &key, &err), 0);
    assert_true(seal_value(&key, STR("a secret"), &sealed));
    assert_int_equal(sealed.len, 8 + SEAL_OVERHEAD_BYTES);
    snprintf(both, sizeof both, "%s\n%s\n", other, private);
    struct seal_private *k = seal_private_new(str_of(both), &err);
    struct seal_private *wrong = seal_private_new(str_of(other), &err);
    assert_non_null(k);
    assert_non_null(wrong);
    assert_true(seal_private_has(k, str_of(key.id)));
    assert_true(seal_open(k, str_of(key.id), buf_view(&sealed), plain, sizeof plain, &n));
    assert_true(str_eq(str_make(plain, n), STR("a secret")));
    assert_false(seal_open(wrong, str_of(key.id), buf_view(&sealed), plain, sizeof plain, &n));
    assert_false(seal_open(k, str_of(key.id), buf_view(&sealed), plain, 7, &n));
    sealed.data[10] ^= 1;
    assert_false(seal_open(k, str_of(key.id), buf_view(&sealed), plain, sizeof plain, &n));
    assert_false(seal_open(k, str_of(key.id), STR("short"), plain, sizeof plain, &n));
    seal_private_free(&k);
    seal_private_free(&wrong);
    buf_deinit(&sealed);
    assert_int_equal(seal_public_read(str_of(private), &key, &err), -1);
    assert_null(seal_private_new(str_of(public), &err));
    assert_null(seal_private_new(STR(" \n"), &err));
    assert_null(strstr(err.msg, "spkey_A"));
}

static int32_t filter(const char *text, struct err *err)
{
    int32_t bits = -1;
    struct json *doc = json_parse(str_of(text), err);
    assert_non_null(doc);
    int rc = webhook_filter_read(json_root(doc), &bits, err);
    json_free(&doc);
    return rc == 0 ? bits : -1;
}

static void assert_written(int32_t bits, const char *want)
{
    struct buf out;
    buf_init(&out, 1024);
    struct json_writer w = json_writer(&out);
    webhook_filter_write(&w, bits);
    assert_string_equal(buf_cstr(&out), want);
    buf_deinit(&out);
}

static void filters(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(filter("[\"*\"]", &err), WEBHOOK_FILTER_ALL);
    assert_int_equal(filter("[\"invocation.*\"]", &err), 0x7e);
    assert_int_equal(filter("[\"invocation.failed\", \"batch.completed\"]", &err), 1 << 2 | 1 << 7);
    assert_int_equal(filter("[]", &err), -1);
    assert_int_equal(filter("{}", &err), -1);
    assert_int_equal(filter("[1]", &err), -1);
    assert_int_equal(filter("[\"webhook.test\"]", &err), -1);
    assert_int_equal(filter("[\"invocation.canceld\"]", &err), -1);
    assert_non_null(strstr(err.msg, "\"invocation.canceled\""));
    assert_written(WEBHOOK_FILTER_ALL, "[\"*\"]");
    assert_written(0x7e, "[\"invocation.*\"]");
    assert_written(1 << 2 | 1 << 7, "[\"batch.*\",\"invocation.failed\"]");
    for (int e = 1; e < WEBHOOK_EVENTS; e++)
        assert_non_null(webhook_event_name(e));
    assert_null(webhook_event_name(0));
    assert_null(webhook_event_name(WEBHOOK_EVENTS));
}

static enum webhook_verdict judge(int tries, int status, int64_t retry_after, uint32_t random, int64_t *wait)
{
    struct webhook_schedule s;
    assert_int_equal(webhook_schedule_read(STR(WEBHOOK_SCHEDULE_DEFAULT), &s, NULL), 0);
    return webhook_judge(&s,
                         &(struct webhook_attempt_end){.tries = tries,
                                                       .status = status,
                                                       .answered = status != 0,
                                                       .retry_after_sec = retry_after,
                                                       .random = random},
                         wait);
}

static void the_schedule_is_the_specifications(void **state)
{
    (void)state;
    static const int64_t want_s[] = {5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400};
    int64_t least, most;
    for (int i = 0; i < 9; i++) {
        assert_int_equal(judge(i + 1, 500, -1, 0, &least), WEBHOOK_RETRY);
        assert_int_equal(judge(i + 1, 0, -1, UINT32_MAX, &most), WEBHOOK_RETRY);
        assert_int_equal(least, want_s[i] * 900);
        assert_in_range(most, want_s[i] * 1095, want_s[i] * 1100);
    }
    assert_int_equal(judge(10, 500, -1, 0, &least), WEBHOOK_GAVE_UP);
}

static void what_an_answer_means(void **state)
{
    (void)state;
    int64_t wait;
    assert_int_equal(judge(1, 200, -1, 0, &wait), WEBHOOK_DELIVERED);
    assert_int_equal(judge(10, 299, -1, 0, &wait), WEBHOOK_DELIVERED);
    assert_int_equal(judge(1, 301, -1, 0, &wait), WEBHOOK_RETRY);
    assert_int_equal(judge(1, 400, -1, 0, &wait), WEBHOOK_RETRY);
    assert_int_equal(judge(1, 410, -1, 0, &wait), WEBHOOK_GONE);
    assert_int_equal(judge(1, 429, 60, 0, &wait), WEBHOOK_RETRY);
    assert_int_equal(wait, 60000);
    assert_int_equal(judge(2, 503, 1, 0, &wait), WEBHOOK_RETRY);
    assert_int_equal(wait, 270000); /* never sooner than the schedule */
    assert_int_equal(judge(1, 503, INT64_MAX, 0, &wait), WEBHOOK_RETRY);
    assert_int_equal(wait, 24 * 3600 * 1000); /* never later than a day */
}

static void schedules_are_read_strictly(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "5",
                                      "5s,",
                                      "s",
                                      "-1s",
                                      "0s",
                                      "169h",
                                      "5 s",
                                      "1s,2x",
                                      "9999999999s",
                                      "1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s"};
    struct webhook_schedule s;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(webhook_schedule_read(str_of(bad[i]), &s, NULL), -1);
    assert_int_equal(webhook_schedule_read(STR("100ms, 2s,3m,4h"), &s, NULL), 0);
    assert_int_equal(s.count, 4);
    assert_int_equal(s.wait_ms[0], 100);
    assert_int_equal(s.wait_ms[3], 4 * 3600 * 1000);
}

static void ids_lead_back(void **state)
{
    (void)state;
    struct uuid event = uuid_new(), endpoint = uuid_new(), back;
    char id[WEBHOOK_ID_BYTES], same[WEBHOOK_ID_BYTES], other[WEBHOOK_ID_BYTES];
    webhook_id_format(event, endpoint, id);
    webhook_id_format(event, endpoint, same);
    webhook_id_format(event, uuid_new(), other);
    assert_string_equal(id, same);
    assert_string_not_equal(id, other);
    assert_null(strchr(id, '.'));
    assert_true(webhook_id_parse(str_of(id), endpoint, &back));
    assert_true(uuid_eq(back, event));
    assert_false(webhook_id_parse(str_of(other), endpoint, &back));
    assert_false(webhook_id_parse(STR("msg_"), endpoint, &back));
}

int main(void)
{
    struct err err;
    if (crypto_init(&err) != 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_specifications_vector),
        cmocka_unit_test(secrets_have_one_form),
        cmocka_unit_test(what_is_sealed_opens_with_its_key_alone),
        cmocka_unit_test(filters),
        cmocka_unit_test(the_schedule_is_the_specifications),
        cmocka_unit_test(what_an_answer_means),
        cmocka_unit_test(schedules_are_read_strictly),
        cmocka_unit_test(ids_lead_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
