/* config: every kind of value, the file's syntax, the order of sources, the error texts, the command line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/config.h"

struct sample {
    char *name, *listen, *url;
    struct secret *token;
    int64_t count, bytes, wait;
    bool on, force;
};

#define ROW(k, kd, f, ...)                                                                        \
    {                                                                                             \
        .key = "SANDPIPER_" k, .kind = kd, .offset = offsetof(struct sample, f), .help = "Help.", \
        __VA_ARGS__                                                                               \
    }
static const struct config_row rows[] = {
    ROW("TEST_NAME", CONFIG_STRING, name, .fallback = "none"),
    ROW("TEST_TOKEN", CONFIG_SECRET, token, .required = false),
    ROW("TEST_COUNT", CONFIG_INT, count, .fallback = "5", .min = 1, .max = 10),
    ROW("TEST_ON", CONFIG_BOOL, on, .fallback = "no"),
    ROW("TEST_BYTES", CONFIG_BYTES, bytes, .fallback = "64k"),
    ROW("TEST_WAIT", CONFIG_MS, wait, .fallback = "5s", .min = 1, .max = 86400000),
    ROW("TEST_LISTEN", CONFIG_LISTEN, listen, .fallback = "127.0.0.1:8080"),
    ROW("TEST_URL", CONFIG_URL, url, .required = true),
};
static const struct config_flag flags[] = {{"--force", offsetof(struct sample, force), "Forces."}};
static const struct config_table table = {"sandpiper-test",           "A test.", rows,
                                          sizeof rows / sizeof *rows, flags,     1};

static struct err err;

static int parse(const char *text, struct sample *out)
{
    *out = (struct sample){0};
    err = ERR_INIT;
    return config_parse_text(&table, str_of(text), out, &err);
}

static void refused(const char *line, const char *because)
{
    struct sample s;
    char text[512];
    snprintf(text, sizeof text, "SANDPIPER_TEST_URL=x://y\n%s\n", line);
    if (parse(text, &s) == 0)
        fail_msg("accepted %s", line);
    assert_int_equal(err.code, ERR_CONFIG);
    if (strstr(err.msg, because) == NULL)
        fail_msg("%s: got \"%s\"", line, err.msg);
    config_unload(&table, &s);
}

static void defaults_and_values(void **state)
{
    (void)state;
    struct sample s;
    assert_int_equal(parse("SANDPIPER_TEST_URL=redis://h:1/2", &s), 0);
    assert_string_equal(s.name, "none");
    assert_null(s.token);
    assert_true(s.count == 5 && s.bytes == 65536 && s.wait == 5000 && !s.on);
    config_unload(&table, &s);
    assert_null(s.name);
    assert_int_equal(
        parse("# comment\r\n\n  SANDPIPER_TEST_URL = x://y  \r\nSANDPIPER_TEST_NAME=a # b\n"
              "SANDPIPER_TEST_TOKEN=\"q\\\"u\\\\o\\te\" # c\nSANDPIPER_TEST_ON=Yes\nSANDPIPER_TEST_BYTES=2G\n"
              "SANDPIPER_TEST_WAIT=2m\nSANDPIPER_TEST_LISTEN=[::1]:0\nSANDPIPER_TEST_COUNT=\n",
              &s),
        0);
    assert_string_equal(s.name, "a # b");
    assert_true(str_eq(secret_reveal(s.token), STR("q\"u\\o\\te")));
    assert_true(s.on && s.bytes == (int64_t)2 << 30 && s.wait == 120000 && s.count == 5);
    assert_string_equal(s.listen, "[::1]:0");
    assert_string_equal(s.url, "x://y");
    config_unload(&table, &s);
}

static void single_quotes_are_as_in_a_shell(void **state)
{
    (void)state;
    struct sample s;
    assert_int_equal(
        parse("SANDPIPER_TEST_URL='x://y?a=\\b\"c' # d\nSANDPIPER_TEST_NAME=it's\nSANDPIPER_TEST_COUNT=''\n",
              &s),
        0);
    assert_string_equal(s.url, "x://y?a=\\b\"c");
    assert_string_equal(s.name, "it's");
    assert_int_equal(s.count, 5);
    config_unload(&table, &s);
}

static void faults_are_named(void **state)
{
    (void)state;
    struct sample s;
    refused("SANDPIPER_TEST_NAM=x",
            "configuration line 2: unknown key SANDPIPER_TEST_NAM; did you mean SANDPIPER_TEST_NAME?");
    refused("NONSENSE=x", "unknown key NONSENSE; --help");
    refused("just words", "line 2: expected KEY=value");
    refused("=x", "expected KEY=value");
    refused("export SANDPIPER_TEST_ON=1", "expected KEY=value");
    refused("SANDPIPER_TEST_NAME=\"open", "quotes");
    refused("SANDPIPER_TEST_NAME=\"a\" b", "quotes");
    refused("SANDPIPER_TEST_NAME='open\"", "quotes");
    refused("SANDPIPER_TEST_NAME='a'b", "quotes");
    refused("SANDPIPER_TEST_NAME=a\nSANDPIPER_TEST_NAME=b", "line 3: SANDPIPER_TEST_NAME is given twice");
    refused("SANDPIPER_TEST_COUNT=11", "SANDPIPER_TEST_COUNT must be from 1 to 10, not 11");
    refused("SANDPIPER_TEST_COUNT=many", "must be a whole number, not \"many\"");
    refused("SANDPIPER_TEST_ON=maybe", "must be true or false");
    refused("SANDPIPER_TEST_BYTES=1t", "must be a size");
    refused("SANDPIPER_TEST_BYTES=9999999999g", "must be a size");
    refused("SANDPIPER_TEST_WAIT=5 s", "must be a time");
    refused("SANDPIPER_TEST_WAIT=25h", "from 1 to");
    refused("SANDPIPER_TEST_LISTEN=localhost:80", "numeric address");
    refused("SANDPIPER_TEST_LISTEN=127.0.0.1:65536", "numeric address");
    refused("SANDPIPER_TEST_LISTEN=::1:80", "numeric address");
    refused("SANDPIPER_TEST_TOKEN_FILE=/nonexistent/x",
            "SANDPIPER_TEST_TOKEN_FILE: cannot use /nonexistent/x: No such file");
    refused("SANDPIPER_TEST_NAME_FILE=/x", "unknown key");
    assert_int_equal(parse("", &s), -1);
    assert_string_equal(err.msg, "SANDPIPER_TEST_URL is required: Help.");
    config_unload(&table, &s);
    assert_int_equal(parse("SANDPIPER_TEST_URL=user:hunter2@host", &s), -1);
    assert_null(strstr(err.msg, "hunter2"));
    config_unload(&table, &s);
}

static enum config_action load(struct sample *s, const char *arg, const char *more)
{
    char *argv[] = {(char *)"sandpiper-test", (char *)arg, (char *)more, NULL};
    *s = (struct sample){0};
    return config_load(&table, arg == NULL ? 1 : more == NULL ? 2 : 3, argv, s);
}

static void sources_in_order(void **state)
{
    (void)state;
    struct sample s;
    char path[] = "/tmp/sp-config-XXXXXX", key[] = "/tmp/sp-secret-XXXXXX";
    static const char text[] =
        "SANDPIPER_TEST_URL=x://file\nSANDPIPER_TEST_NAME=file\nSANDPIPER_TEST_TOKEN=weak\n";
    int fd = mkstemp(path), kd = mkstemp(key);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    assert_int_equal(write(kd, "strong\n", 7), 7);
    close(fd);
    close(kd);
    setenv("SANDPIPER_TEST_NAME", "environment", 1);
    setenv("SANDPIPER_TEST_TOKEN_FILE", key, 1);
    setenv("SANDPIPER_PORT", "1", 1); /* somebody else's */
    assert_int_equal(load(&s, "--config", path), CONFIG_RUN);
    assert_string_equal(s.name, "environment");
    assert_string_equal(s.url, "x://file");
    assert_true(str_eq(secret_reveal(s.token), STR("strong")));
    assert_false(s.force);
    config_unload(&table, &s);
    setenv("SANDPIPER_CONFIG", path, 1);
    unsetenv("SANDPIPER_TEST_TOKEN_FILE");
    setenv("SANDPIPER_TEST_TOKEN", "direct", 1);
    assert_int_equal(load(&s, "--force", NULL), CONFIG_RUN);
    assert_true(s.force);
    assert_true(str_eq(secret_reveal(s.token), STR("direct")));
    assert_null(getenv("SANDPIPER_TEST_TOKEN")); /* children shall not inherit it */
    config_unload(&table, &s);
    setenv("SANDPIPER_TEST_NAMES", "x", 1);
    assert_int_equal(load(&s, NULL, NULL), CONFIG_EXIT_BAD);
    unsetenv("SANDPIPER_TEST_NAMES");
    unsetenv("SANDPIPER_TEST_NAME");
    unsetenv("SANDPIPER_CONFIG");
    unsetenv("SANDPIPER_PORT");
    unlink(path);
    unlink(key);
}

/* What config_load prints to stdout. */
static enum config_action printed(const char *arg, char *text, size_t max)
{
    struct sample s;
    FILE *f = tmpfile();
    fflush(stdout);
    int saved = dup(1);
    dup2(fileno(f), 1);
    enum config_action action = load(&s, arg, NULL);
    fflush(stdout);
    dup2(saved, 1);
    close(saved);
    rewind(f);
    text[fread(text, 1, max - 1, f)] = '\0';
    fclose(f);
    return action;
}

static void the_command_line(void **state)
{
    (void)state;
    char text[8192];
    struct sample s;
    setenv("SANDPIPER_TEST_URL", "postgresql://me:hunter2@host:1/db", 1);
    setenv("SANDPIPER_TEST_TOKEN", "hunter3", 1);
    assert_int_equal(printed("--check-config", text, sizeof text), CONFIG_EXIT_OK);
    assert_string_equal(text, "configuration ok\n");
    assert_int_equal(printed("--print-config", text, sizeof text), CONFIG_EXIT_OK);
    assert_non_null(strstr(text, "SANDPIPER_TEST_URL=postgresql://me:***@host:1/db\n"));
    assert_non_null(strstr(text, "SANDPIPER_TEST_TOKEN=(set)\n"));
    assert_non_null(strstr(text, "SANDPIPER_TEST_WAIT=5s\n"));
    assert_null(strstr(text, "hunter"));
    assert_int_equal(printed("--help", text, sizeof text), CONFIG_EXIT_OK);
    assert_non_null(strstr(text, "SANDPIPER_TEST_COUNT (number, 1 to 10, default 5)"));
    assert_non_null(strstr(text, "--force"));
    assert_int_equal(printed("--version", text, sizeof text), CONFIG_EXIT_OK);
    assert_memory_equal(text, "sandpiper-test ", 15);
    assert_int_equal(load(&s, "--nonsense", NULL), CONFIG_EXIT_BAD);
    assert_int_equal(load(&s, "stray", NULL), CONFIG_EXIT_BAD);
    assert_int_equal(load(&s, "--config", NULL), CONFIG_EXIT_BAD);
    assert_int_equal(load(&s, "--config", "/nonexistent"), CONFIG_EXIT_BAD);
    unsetenv("SANDPIPER_TEST_URL");
    assert_int_equal(printed("--check-config", text, sizeof text), CONFIG_EXIT_BAD);
    assert_string_equal(text, "");
}

static int init(void **state)
{
    (void)state;
    return crypto_init(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_and_values), cmocka_unit_test(single_quotes_are_as_in_a_shell),
        cmocka_unit_test(faults_are_named),    cmocka_unit_test(sources_in_order),
        cmocka_unit_test(the_command_line),
    };
    return cmocka_run_group_tests(tests, init, NULL);
}
