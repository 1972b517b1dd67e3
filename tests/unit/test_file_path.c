/* model/file_path: names of files that come along or are left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "model/file_path.h"

static bool fits(struct str path)
{
    struct err err = ERR_INIT;
    int rc = file_path_check(path, &err);
    assert_int_equal(err.code, rc == 0 ? ERR_NONE : ERR_BAD_FILE);
    return rc == 0;
}

static void paths(void **state)
{
    (void)state;
    static const char *const good[] = {"a",  "a/b/c",    "...", "a/.hidden", "..a/b..",
                                       "-x", "\xC3\xBC", " ",   "a b"};
    static const char *const bad[] = {"",     "/",     "/a",   "a/",     "a//b", ".",    "..",    "./a",
                                      "a/..", "a/./b", "../a", "a/../b", "a\n",  "\x7F", "a\xFF", "\xC3"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(fits(str_of(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(fits(str_of(bad[i])));
    assert_false(fits(str_make("a\0b", 3)));
}

static void limits(void **state)
{
    (void)state;
    char text[FILE_PATH_MAX + 2];
    memset(text, 'x', sizeof text);
    assert_true(fits(str_make(text, FILE_NAME_MAX)));
    assert_false(fits(str_make(text, FILE_NAME_MAX + 1)));
    for (size_t i = FILE_NAME_MAX; i < sizeof text; i += FILE_NAME_MAX + 1)
        text[i] = '/';
    text[FILE_PATH_MAX - 1] = 'x';
    text[900] = '/';
    assert_true(fits(str_make(text, FILE_PATH_MAX)));
    text[FILE_PATH_MAX] = 'x';
    assert_false(fits(str_make(text, FILE_PATH_MAX + 1)));
}

static void clashes(void **state)
{
    (void)state;
    assert_true(file_paths_clash(STR("a"), STR("a")));
    assert_true(file_paths_clash(STR("a"), STR("a/b")));
    assert_true(file_paths_clash(STR("a/b/c"), STR("a/b")));
    assert_false(file_paths_clash(STR("a"), STR("ab")));
    assert_false(file_paths_clash(STR("a/b"), STR("a/c")));
    assert_false(file_paths_clash(STR("a/b"), STR("a/bc/d")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(paths), cmocka_unit_test(limits),
                                       cmocka_unit_test(clashes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
