/* Names of templates: their form, and what an operator's list allows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "model/template.h"

static void names_have_a_form(void **state)
{
    (void)state;
    static const char *const good[] = {"base",           "a", "A.b_c-1", "team/name", "name:tag",
                                       "team/name:v1.2", "7"};
    static const char *const bad[] = {"",      "/",     ":",     "a/",  "/a",   "a:",  ":a",
                                      "a/b/c", "a:b:c", "a:b/c", "a b", " a",   "-a",  ".a",
                                      "_a",    "..",    "a/..",  "a\n", "a%2f", "a\"", "\xc3\xa9"};
    char text[TEMPLATE_BYTES + 1];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(template_valid(str_of(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(template_valid(str_of(bad[i])));
    assert_false(template_valid(str_make("a\0b", 3)));
    memset(text, 'a', sizeof text);
    assert_true(template_valid(str_make(text, TEMPLATE_BYTES - 1)));
    assert_false(template_valid(str_make(text, TEMPLATE_BYTES)));
}

static void a_list_says_which_may_be_named(void **state)
{
    (void)state;
    static const struct {
        const char *list, *name;
        bool allowed;
    } table[] = {
        {"*", "any", true},
        {"*", "team/any:v1", true},
        {"none", "none", false},
        {"none", "any", false},
        {"a", "a", true},
        {"a", "a:v1", true},
        {"a", "b", false},
        {"a", "A", false},
        {"a", "ab", false},
        {"ab", "a", false},
        {"a", "team/a", false},
        {"team/a", "a", false},
        {"team/a", "team/a:v2", true},
        {"a:v1", "a:v1", true},
        {"a:v1", "a:v2", false},
        {"a:v1", "a", false},
        {"a, b ,c", "b", true},
        {"a,b,c", "c:x", true},
        {"a,b,c", "d", false},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        assert_int_equal(template_list_check(table[i].list, NULL), 0);
        if (template_allowed(table[i].list, str_of(table[i].name)) != table[i].allowed)
            fail_msg("%s of %s", table[i].name, table[i].list);
    }
}

static void a_list_that_cannot_be_read_is_told(void **state)
{
    (void)state;
    static const char *const bad[] = {"a b", "a,,b", "*,a", "a,*", "/a", "a;b", ","};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = ERR_INIT;
        assert_int_equal(template_list_check(bad[i], &err), -1);
        assert_int_equal(err.code, ERR_CONFIG);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_have_a_form),
        cmocka_unit_test(a_list_says_which_may_be_named),
        cmocka_unit_test(a_list_that_cannot_be_read_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
