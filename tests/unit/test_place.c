/* crypto/place, model/environment: sealed to a place, and opened there alone; lists of variables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "crypto/crypto.h"
#include "crypto/place.h"
#include "model/environment.h"

struct keys {
    struct seal_public public;
    struct seal_private *private;
};

static void keys_new(struct keys *k)
{
    char public[SEAL_KEY_TEXT_BYTES], private[SEAL_KEY_TEXT_BYTES];
    seal_pair_new(public, private);
    assert_int_equal(seal_public_read(str_of(public), &k->public, NULL), 0);
    k->private = seal_private_new(str_of(private), NULL);
    assert_non_null(k->private);
}

static enum seal_opened open_it(const struct keys *k, const struct seal_place *place, struct str sealed,
                                char out[512], struct str *value)
{
    return seal_open_at(k->private, str_of(k->public.id), place, sealed, out, 512, value);
}

static void only_its_place_opens_it(void **state)
{
    (void)state;
    const struct seal_place place = {.tenant = 7, .agent = STR("word-count"), .name = STR("TOKEN")};
    struct keys k, other;
    struct buf sealed;
    struct str value;
    char out[512];
    keys_new(&k);
    keys_new(&other);
    buf_init(&sealed, 512);
    assert_true(seal_to_place(&k.public, &place, STR("a value"), &sealed));
    assert_int_equal(open_it(&k, &place, buf_view(&sealed), out, &value), SEAL_OPENED);
    assert_true(str_eq_c(value, "a value"));
    const struct seal_place others[] = {
        {.tenant = 8, .agent = STR("word-count"), .name = STR("TOKEN")},
        {.tenant = 7, .agent = STR("word-coun"), .name = STR("TOKEN")},
        {.tenant = 7, .agent = STR("word-count"), .name = STR("TOKEM")},
        {.tenant = 7, .agent = STR("word-count"), .name = STR("TOKEN2")},
        {.tenant = 7, .agent = STR("word-count")},
        {.tenant = 7, .agent = STR("word-count\5TOKE"), .name = STR("N")}, /* as it stands, otherwise cut */
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_int_equal(open_it(&k, &others[i], buf_view(&sealed), out, &value), SEAL_MISPLACED);
        assert_int_equal(value.n, 0);
    }
    assert_int_equal(open_it(&other, &place, buf_view(&sealed), out, &value),
                     SEAL_DAMAGED); /* another key, its id */
    assert_int_equal(
        seal_open_at(other.private, str_of(k.public.id), &place, buf_view(&sealed), out, 512, &value),
        SEAL_NO_KEY);
    assert_int_equal(seal_open_at(NULL, str_of(k.public.id), &place, buf_view(&sealed), out, 512, &value),
                     SEAL_NO_KEY);
    for (size_t i = 0; i < sealed.len; i++) {
        sealed.data[i] ^= 1;
        assert_int_equal(open_it(&k, &place, buf_view(&sealed), out, &value), SEAL_DAMAGED);
        sealed.data[i] ^= 1;
        assert_int_equal(open_it(&k, &place, str_make(sealed.data, i), out, &value), SEAL_DAMAGED);
    }
    buf_deinit(&sealed);
    seal_private_free(&k.private);
    seal_private_free(&other.private);
}

/* Whatever somebody with the public key seals. */
static void what_is_no_place_is_refused(void **state)
{
    (void)state;
    const struct seal_place place = {.tenant = 1, .agent = STR("a"), .name = STR("")};
    static const char *const texts[] = {"", "S", "SPP1", "SPP1\1\0\0", "SPP2\1\0\0\0\1a", "\0\0\0\0"};
    struct keys k;
    struct buf sealed;
    struct str value;
    char out[512];
    keys_new(&k);
    buf_init(&sealed, 512);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        buf_clear(&sealed);
        assert_true(seal_value(&k.public, str_of(texts[i]), &sealed));
        assert_int_equal(open_it(&k, &place, buf_view(&sealed), out, &value), SEAL_MISPLACED);
    }
    char name[300];
    memset(name, 'x', sizeof name);
    const struct seal_place wide = {.tenant = 1, .agent = str_make(name, sizeof name)};
    assert_false(seal_to_place(&k.public, &wide, STR("x"), &sealed));
    buf_deinit(&sealed);
    seal_private_free(&k.private);
}

static void names(void **state)
{
    (void)state;
    static const char *const good[] = {"A",           "_",     "A_1", "API_TOKEN",
                                       "E2B_API_KEY", "PATHS", "LDX", "SANDPIPER"};
    static const char *const bad[] = {"",         "a",     "1A",   "A-B",        "A B",      "A=B",
                                      "\xc3\x84", "PATH",  "HOME", "LD_PRELOAD", "LD_",      "SANDPIPER_KEY",
                                      "IFS",      "ENV",   "USER", "LOGNAME",    "BASH_ENV", "TRACEPARENT",
                                      "PWD",      "SHELL", "Ab"};
    char name[66];
    memset(name, 'X', sizeof name);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_int_equal(env_name_check(str_of(good[i]), NULL), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(env_name_check(str_of(bad[i]), NULL), -1);
    assert_int_equal(env_name_check(str_make(name, 64), NULL), 0);
    assert_int_equal(env_name_check(str_make(name, 65), NULL), -1);
}

static void lists(void **state)
{
    (void)state;
    struct buf b;
    struct str rest, name, value;
    buf_init(&b, 1024);
    assert_true(env_pack(STR("ONE"), STR("first value"), &b) && env_pack(STR("EMPTY"), STR(""), &b));
    rest = buf_view(&b);
    assert_int_equal(env_unpack(&rest, &name, &value), 1);
    assert_true(str_eq_c(name, "ONE") && str_eq_c(value, "first value"));
    assert_int_equal(env_unpack(&rest, &name, &value), 1);
    assert_true(str_eq_c(name, "EMPTY") && value.n == 0);
    assert_int_equal(env_unpack(&rest, &name, &value), 0);
    for (size_t cut = 1; cut < b.len; cut++) { /* cut anywhere: the second is whole or refused */
        rest = str_make(b.data, cut);
        int got;
        while ((got = env_unpack(&rest, &name, &value)) > 0)
            ;
        assert_int_equal(got, cut == 19 ? 0 : -1);
    }
    b.data[1] = 'o'; /* a name that is none */
    rest = buf_view(&b);
    assert_int_equal(env_unpack(&rest, &name, &value), -1);
    b.data[1] = 'O';
    b.data[10] = '\0'; /* a value that no variable can hold */
    rest = buf_view(&b);
    assert_int_equal(env_unpack(&rest, &name, &value), -1);
    buf_deinit(&b);
}

static int init(void **state)
{
    (void)state;
    return crypto_init(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_its_place_opens_it),
        cmocka_unit_test(what_is_no_place_is_refused),
        cmocka_unit_test(names),
        cmocka_unit_test(lists),
    };
    return cmocka_run_group_tests(tests, init, NULL);
}
