/* Ignore files: each pattern against git's own answer (`git check-ignore`), where there is git. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ignore.h"

static const struct {
    const char *pattern, *path;
    bool directory, ignored;
} table[] = {
    {"a", "a", false, true},
    {"a", "b/a", false, true},
    {"a", "b/a", true, true},
    {"a", "ab", false, false},
    {"a/", "a", false, false},
    {"a/", "a", true, true},
    {"a/", "b/a", true, true},
    {"/a", "a", false, true},
    {"/a", "b/a", false, false},
    {"a/b", "a/b", false, true},
    {"a/b", "c/a/b", false, false},
    {"a/b/", "a/b", true, true},
    {"*.log", "x.log", false, true},
    {"*.log", "b/x.log", false, true},
    {"*", ".hidden", false, true},
    {"b/*", "b/c", false, true},
    {"*.log", ".log", false, true},
    {"/*.log", "b/x.log", false, false},
    {"b/*.log", "b/x.log", false, true},
    {"*/x", "b/x", false, true},
    {"*/x", "b/c/x", false, false},
    {"**/x", "x", false, true},
    {"**/x", "b/c/x", false, true},
    {"b/**", "b/x", false, true},
    {"b/**", "b/c/x", false, true},
    {"b/**/x", "b/x", false, true},
    {"b/**/x", "b/c/d/x", false, true},
    {"b/**/x", "c/b/x", false, false},
    {"a**b", "axxb", false, true},
    {"?", "a", false, true},
    {"?", "ab", false, false},
    {"[ab]", "b", false, true},
    {"[!ab]", "b", false, false},
    {"[a-c].txt", "b.txt", false, true},
    {"\\#x", "#x", false, true},
    {"#x", "#x", false, false},
    {"\\!x", "!x", false, true},
    {"x ", "x", false, true},
    {"x\\ ", "x ", false, true},
    {"", "x", false, false},
    {"/", "x", true, false},
    {"A", "a", false, false},
};

static void patterns_mean_what_git_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (ignore_pattern(table[i].pattern, table[i].path, table[i].directory) != table[i].ignored)
            fail_msg("\"%s\" and \"%s\"", table[i].pattern, table[i].path);
}

static void run(const char *command)
{
    if (system(command) != 0)
        fail_msg("%s", command);
}

/* The table itself, against git. */
static void the_table_is_gits(void **state)
{
    (void)state;
    char dir[] = "/tmp/sp-ignore-XXXXXX", command[512];
    if (system("command -v git >/dev/null 2>&1") != 0)
        skip();
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chdir(dir), 0);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        run("rm -rf t && git init -q t");
        FILE *f = fopen("t/.gitignore", "we");
        assert_non_null(f);
        fprintf(f, "%s\n", table[i].pattern);
        fclose(f);
        snprintf(command, sizeof command, "cd t && mkdir -p \"$(dirname '%s')\" && %s '%s'", table[i].path,
                 table[i].directory ? "mkdir" : "touch", table[i].path);
        run(command);
        snprintf(command, sizeof command, "cd t && git check-ignore -q '%s'", table[i].path);
        if ((system(command) == 0) != table[i].ignored)
            fail_msg("git says otherwise of \"%s\" and \"%s\"", table[i].pattern, table[i].path);
    }
    run("rm -rf t");
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_mean_what_git_says),
        cmocka_unit_test(the_table_is_gits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
