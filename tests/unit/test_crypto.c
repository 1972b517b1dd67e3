/* crypto: published vectors, round trips, the decoders' strictness, API keys and secrets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/id.h"
#include "crypto/crypto.h"

static void assert_hex(const uint8_t *p, size_t n, const char *want)
{
    struct buf b;
    buf_init(&b, 256);
    assert_true(crypto_hex(str_make((const char *)p, n), &b));
    assert_string_equal(buf_cstr(&b), want);
    buf_deinit(&b);
}

static void hashes(void **state)
{
    (void)state;
    uint8_t h[SHA256_BYTES];
    crypto_sha256(STR("abc"), h); /* FIPS 180-4 */
    assert_hex(h, sizeof h, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    struct crypto_sha256_state s;
    crypto_sha256_init(&s);
    crypto_sha256_update(&s, STR("a"));
    crypto_sha256_update(&s, STR(""));
    crypto_sha256_update(&s, STR("bc"));
    crypto_sha256_final(&s, h);
    assert_hex(h, sizeof h, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    crypto_hmac_sha256(STR("Jefe"), STR("what do ya want for nothing?"), h); /* RFC 4231, case 2 */
    assert_hex(h, sizeof h, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

static void base64_vectors(void **state)
{
    (void)state;
    static const char *const rows[][2] = {{"", ""},
                                          {"f", "Zg=="},
                                          {"fo", "Zm8="},
                                          {"foo", "Zm9v"}, /* RFC 4648 */
                                          {"foob", "Zm9vYg=="},
                                          {"fooba", "Zm9vYmE="},
                                          {"foobar", "Zm9vYmFy"}};
    struct buf b;
    buf_init(&b, 256);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        buf_clear(&b);
        assert_true(crypto_base64(str_of(rows[i][0]), &b));
        assert_string_equal(buf_cstr(&b), rows[i][1]);
        buf_clear(&b);
        assert_true(crypto_unbase64(str_of(rows[i][1]), &b));
        assert_string_equal(buf_cstr(&b), rows[i][0]);
    }
    buf_clear(&b);
    assert_true(crypto_base64url(STR("\xfb\xff\xfe"), &b));
    assert_true(crypto_base64url(STR("\xfb"), &b));
    assert_string_equal(buf_cstr(&b), "-__--w");
    buf_deinit(&b);
}

static void base64_round_trips(void **state)
{
    (void)state;
    uint8_t data[200];
    random_bytes(data, sizeof data);
    for (size_t n = 0; n <= sizeof data; n++) {
        struct buf text, back;
        buf_init(&text, 4096);
        buf_init(&back, 4096);
        bool is_url = n % 2 == 1;
        struct str s = str_make((char *)data, n);
        assert_true(is_url ? crypto_base64url(s, &text) : crypto_base64(s, &text));
        assert_true(crypto_unbase64(buf_view(&text), &back));
        assert_true(str_eq(s, buf_view(&back)));
        buf_deinit(&text);
        buf_deinit(&back);
    }
}

static void decoders_are_strict(void **state)
{
    (void)state;
    static const char *const bad[] = {"A",     "AAAAA",  "Zg=",      "Zg===",           "=",     "====",
                                      "Z===",  "Zh==",   "Zm9=",     "Zm9v\n",          " Zm9v", "Zm.v",
                                      "Zm9v=", "Zm9v==", "Zg==Zg==", "\x80\x80\x80\x80"};
    struct buf b;
    buf_init(&b, 256);
    buf_str(&b, STR("kept"));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (crypto_unbase64(str_of(bad[i]), &b))
            fail_msg("accepted %s", bad[i]);
        assert_true(str_eq(buf_view(&b), STR("kept")));
    }
    assert_false(crypto_unhex(STR("abc"), &b));
    assert_false(crypto_unhex(STR("zz"), &b));
    assert_true(crypto_unhex(STR("00fF"), &b));
    assert_true(str_eq(buf_view(&b), STR("kept\0\xff")));
    buf_deinit(&b);
    buf_init(&b, 3);
    assert_false(crypto_base64(STR("abc"), &b));
    assert_true(b.failed && b.len == 0);
    buf_deinit(&b);
}

static void api_keys(void **state)
{
    (void)state;
    char a[API_KEY_TEXT_BYTES], b[API_KEY_TEXT_BYTES];
    uint8_t ha[SHA256_BYTES], hb[SHA256_BYTES];
    crypto_api_key_new(a);
    crypto_api_key_new(b);
    assert_int_equal(strlen(a), 46);
    assert_true(crypto_api_key_hash(str_of(a), ha));
    assert_true(crypto_api_key_hash(str_of(b), hb));
    assert_memory_not_equal(ha, hb, sizeof ha);
    crypto_sha256(str_of(a), hb);
    assert_memory_equal(ha, hb, sizeof ha);
    a[10] = '+';
    assert_false(crypto_api_key_hash(str_of(a), ha));
    assert_false(crypto_api_key_hash(STR("sp_"), ha));
    assert_false(crypto_api_key_hash(STR(""), ha));
    b[0] = 'x';
    assert_false(crypto_api_key_hash(str_of(b), ha));
}

static void secrets_and_comparison(void **state)
{
    (void)state;
    for (size_t n = 0; n < 40; n++) {
        char text[40];
        memset(text, 'q', sizeof text);
        struct secret *s = secret_new(str_make(text, n));
        assert_non_null(s);
        assert_true(crypto_equal(secret_reveal(s), str_make(text, n)));
        secret_free(&s);
        assert_null(s);
    }
    secret_free(NULL);
    assert_true(crypto_equal(STR(""), STR("")));
    assert_false(crypto_equal(STR("a"), STR("b")));
    assert_false(crypto_equal(STR("a"), STR("ab")));
    char wiped[4] = "abc";
    crypto_wipe(wiped, sizeof wiped);
    assert_memory_equal(wiped, "\0\0\0\0", 4);
}

static int init(void **state)
{
    (void)state;
    return crypto_init(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes),
        cmocka_unit_test(base64_vectors),
        cmocka_unit_test(base64_round_trips),
        cmocka_unit_test(decoders_are_strict),
        cmocka_unit_test(api_keys),
        cmocka_unit_test(secrets_and_comparison),
    };
    return cmocka_run_group_tests(tests, init, NULL);
}
