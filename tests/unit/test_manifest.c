/* agent.json: what it may say, what is said of its faults, and that it is written down as it was read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json/json.h"
#include "model/agent_tree.h"
#include "model/invocation.h"
#include "model/manifest.h"

static const struct agent_tree js = {.index_js = true};

/* ---- defaults ---- */

static void defaults_come_from_the_files(void **state)
{
    (void)state;
    static const struct {
        struct agent_tree tree;
        const char *text, *runtime, *entry, *install;
    } table[] = {
        {{.index_js = true}, "", "node", "index.js", ""},
        {{.agent_js = true}, "", "node", "agent.js", ""},
        {{.index_js = true, .package_json = true},
         "",
         "node",
         "index.js",
         "npm install --no-audit --no-fund"},
        {{.main_py = true}, "", "python", "main.py", ""},
        {{.agent_py = true, .requirements_txt = true},
         "",
         "python",
         "agent.py",
         "python3 -m pip install --user --break-system-packages -r requirements.txt"},
        {{.run_sh = true}, "", "command", "sh run.sh", ""},
        {{.package_json = true, .index_js = true, .package_main = "src/a.js"},
         "",
         "node",
         "src/a.js",
         "npm install --no-audit --no-fund"},
        {{.package_json = true, .agent_js = true, .package_main = "index.js"},
         "",
         "node",
         "agent.js",
         "npm install --no-audit --no-fund"},
        {{.package_json = true, .start_script = true},
         "",
         "command",
         "npm start --silent",
         "npm install --no-audit --no-fund"},
        {{.pyproject_toml = true, .main_py = true},
         "",
         "python",
         "main.py",
         "python3 -m pip install --user --break-system-packages ."},
        {{.executable = "answer", .executables = 1}, "", "command", "exec ./answer", ""},
        {{.executable = "agent", .executables = 3}, "", "command", "exec ./agent", ""},
        {{.executable = "answer", .executables = 1, .main_py = true}, "", "python", "main.py", ""},
        {{.index_js = true, .main_py = true}, "", "node", "index.js", ""},
        {{.index_js = true, .main_py = true}, "{\"runtime\":\"python\"}", "python", "main.py", ""},
        {{0}, "{\"runtime\":\"node\",\"entry\":\"src/x.js\"}", "node", "src/x.js", ""},
        {{.index_js = true, .package_json = true}, "{\"install\":\"\"}", "node", "index.js", ""},
        {{.index_js = true}, "{\"install\":\"make\"}", "node", "index.js", "make"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct manifest m;
        struct err err = ERR_INIT;
        if (manifest_parse(str_of(table[i].text), &table[i].tree, &m, &err) != 0)
            fail_msg("row %zu: %s", i, err.msg);
        assert_string_equal(m.runtime, table[i].runtime);
        assert_string_equal(m.entry, table[i].entry);
        assert_string_equal(m.install, table[i].install);
        assert_int_equal(m.timeout_ms, 0);
        assert_int_equal(m.max_attempts, 0);
        assert_int_equal(manifest_check(&m, NULL), 0);
    }
    const struct agent_tree nothing = {0};
    struct manifest m;
    assert_int_equal(manifest_parse(STR(""), &nothing, &m, NULL), -1);
    assert_int_equal(manifest_parse(STR("{\"runtime\":\"node\"}"), &nothing, &m, NULL), -1);
}

static void files_tell(void **state)
{
    (void)state;
    static const struct {
        const char *text, *main;
        bool start;
    } packages[] = {
        {"{\"main\":\"./lib/x.js\"}", "lib/x.js", false},
        {"{\"bin\":\"cli.js\",\"scripts\":{\"start\":\"node y\"}}", "cli.js", true},
        {"{\"bin\":{\"a\":\"./bin/a.js\",\"b\":\"c\"}}", "bin/a.js", false},
        {"{\"main\":7,\"bin\":{},\"scripts\":{\"start\":\"\"}}", "", false},
        {"{\"main\":\"a\\nb\"}", "", false},
        {"[]", "", false},
        {"{", "", false},
        {"", "", false},
    };
    for (size_t i = 0; i < sizeof packages / sizeof *packages; i++) {
        struct agent_tree t = {0};
        agent_tree_package(&t, str_of(packages[i].text));
        assert_string_equal(t.package_main, packages[i].main);
        assert_int_equal(t.start_script, packages[i].start);
    }
    struct agent_tree t = {0};
    agent_tree_note(&t, STR("a b; reboot"), true);
    assert_int_equal(t.executables, 0);
    agent_tree_note(&t, STR("first"), true);
    agent_tree_note(&t, STR("readme"), false);
    agent_tree_note(&t, STR("second"), true);
    assert_string_equal(t.executable, "first");
    struct manifest m;
    assert_int_equal(manifest_parse(STR(""), &t, &m, NULL), -1); /* which of the two? */
    agent_tree_note(&t, STR("agent"), true);
    assert_int_equal(manifest_parse(STR(""), &t, &m, NULL), 0);
    assert_string_equal(m.entry, "exec ./agent");
}

/* ---- everything, read and written down ---- */

static const char whole[] =
    "{\"$schema\":\"x\",\"name\":\"x\",\"description\":\"d\",\"runtime\":\"python\",\"entry\":\"a.py\","
    "\"install\":\"make\",\"check\":\"make check\",\"env\":{\"A\":\"1\",\"_B2\":\"=\\n\\\"\\u00e9\"},"
    "\"secrets\":[\"KEY\",\"KEY_2\"],\"redact_output\":true,\"timeout_s\":3600,\"memory_mb\":512,\"cpus\":2,"
    "\"warm_pool\":{\"min\":1,\"max\":3},\"egress\":\"deny\",\"output_max_bytes\":100,"
    "\"retry\":{\"max_attempts\":3,\"on\":[\"failed\"]},\"artifacts\":\"out/files/"
    "\",\"usage\":\"stream-json\"}";

static void check_whole(const struct manifest *m)
{
    const char *env[MANIFEST_ENV_MAX];
    assert_string_equal(m->name, "x");
    assert_string_equal(m->description, "d");
    assert_string_equal(m->runtime, "python");
    assert_string_equal(m->entry, "a.py");
    assert_string_equal(m->install, "make");
    assert_string_equal(m->check, "make check");
    assert_int_equal(manifest_env(m, env, MANIFEST_ENV_MAX), 2);
    assert_string_equal(env[0], "A=1");
    assert_string_equal(env[1], "_B2==\n\"\xc3\xa9");
    assert_int_equal(manifest_env(m, env, 1), 1);
    assert_int_equal(m->secret_count, 2);
    assert_string_equal(m->secrets[1], "KEY_2");
    assert_true(m->redact_output);
    assert_int_equal(m->timeout_ms, 3600000);
    assert_int_equal(m->memory_mb, 512);
    assert_int_equal(m->cpus, 2);
    assert_true(m->warm_pool.stated && !m->warm_pool.automatic);
    assert_int_equal(m->warm_pool.min, 1);
    assert_int_equal(m->warm_pool.max, 3);
    assert_int_equal(m->egress, EGRESS_DENY);
    assert_int_equal(m->output_max_bytes, 100);
    assert_int_equal(m->max_attempts, 3);
    assert_int_equal(m->retry_on, INV_RETRY_FAILED);
    assert_string_equal(m->artifacts, "out/files");
    assert_int_equal(m->usage, USAGE_STREAM_JSON);
}

/* Written down, read again, and written down the same. */
static void round_trip(const struct manifest *m, struct manifest *again)
{
    struct buf first, second;
    struct err err = ERR_INIT;
    buf_init(&first, MANIFEST_JSON_BYTES);
    buf_init(&second, MANIFEST_JSON_BYTES);
    struct json_writer w1 = json_writer(&first), w2 = json_writer(&second);
    manifest_write(m, &w1);
    if (manifest_read(buf_view(&first), again, &err) != 0)
        fail_msg("%s", err.msg);
    manifest_write(again, &w2);
    assert_false(first.failed);
    assert_true(str_eq(buf_view(&first), buf_view(&second)));
    buf_deinit(&first);
    buf_deinit(&second);
}

static void everything_is_kept(void **state)
{
    (void)state;
    struct manifest *m = malloc(2 * sizeof *m);
    struct err err = ERR_INIT;
    if (manifest_parse(str_of(whole), &js, &m[0], &err) != 0)
        fail_msg("%s", err.msg);
    check_whole(&m[0]);
    round_trip(&m[0], &m[1]);
    check_whole(&m[1]);
    free(m);
}

static void short_forms(void **state)
{
    (void)state;
    struct manifest m, again;
    assert_int_equal(manifest_parse(STR("{\"warm_pool\":\"auto\",\"retry\":{}}"), &js, &m, NULL), 0);
    assert_true(m.warm_pool.automatic);
    assert_int_equal(m.max_attempts, 1);
    assert_int_equal(m.retry_on, INV_RETRY_FAILED | INV_RETRY_TIMED_OUT);
    round_trip(&m, &again);
    assert_true(again.warm_pool.automatic);
    assert_int_equal(manifest_parse(STR("{\"warm_pool\":5,\"usage\":\"file\"}"), &js, &m, NULL), 0);
    assert_int_equal(m.warm_pool.min, 5);
    assert_int_equal(m.warm_pool.max, 5);
    assert_int_equal(m.usage, USAGE_FILE);
    round_trip(&m, &again);
    assert_int_equal(again.warm_pool.max, 5);
}

/* What makes the longest form: values of characters that are escaped, up to the limit. */
static void the_longest_form_fits(void **state)
{
    (void)state;
    struct manifest m = {.runtime = "node", .entry = "x"};
    m.env_count = 1;
    m.env_bytes = sizeof m.env;
    memset(m.env, 1, sizeof m.env);
    memcpy(m.env, "A=", 2);
    m.env[sizeof m.env - 1] = '\0';
    char *texts[] = {m.description, m.entry, m.install, m.check};
    size_t bytes[] = {sizeof m.description, sizeof m.entry, sizeof m.install, sizeof m.check};
    for (size_t i = 0; i < 4; i++) {
        memset(texts[i], 1, bytes[i] - 1);
        texts[i][bytes[i] - 1] = '\0';
    }
    struct manifest again;
    round_trip(&m, &again);
    assert_memory_equal(m.env, again.env, sizeof m.env);
}

/* ---- faults ---- */

static void faults_name_line_and_key(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } table[] = {
        {"{\n  \"runtime\": \"node\",\n  \"timeout\": 5\n}",
         "line 3: unknown key \"timeout\"; did you mean \"timeout_s\"?"},
        {"{\"env\": {\"A\": \"b\"},\n\n\n\"retyr\": {}}",
         "line 4: unknown key \"retyr\"; did you mean \"retry\"?"},
        {"{\n\"retry\": {\n\"max_atempts\": 2}}",
         "line 3: unknown key \"retry.max_atempts\"; did you mean \"retry.max_attempts\"?"},
        {"{\"zzzzzzzz\": 1}", "line 1: unknown key \"zzzzzzzz\""},
        {"{\n\"env\": {\n\"A\": \"}\\\"{\",\n\"B\":\n\n7}}", "line 4: \"env.B\" must be a string"},
        {"{\"secrets\": [\n\"A\",\n\"b\"]}", "line 3: \"secrets\""},
        {"{\"timeout_s\":\n\"60\"}", "line 1: \"timeout_s\" must be a whole number from 1 to 3600"},
        {"{\"retry\": {\"on\": [\"failed\",\n\"broken\"]}}", "line 2: \"retry.on\""},
        {"{\"env\": {\"SANDPIPER_X\": \"\"}}", "is set by the system"},
        {"{\"secrets\": [\"A\", \"A\"]}", "twice"},
        {"{\"env\": {\"A\": \"\"}, \"secrets\": [\"A\"]}", "stands in \"env\""},
        {"{\"name\": \"a\",", "line 1 column"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct manifest m;
        struct err err = ERR_INIT;
        assert_int_equal(manifest_parse(str_of(table[i].text), &js, &m, &err), -1);
        assert_int_equal(err.code, ERR_BAD_MANIFEST);
        if (strncmp(err.msg, "agent.json: ", 12) != 0 || strstr(err.msg, table[i].says) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", err.msg, table[i].says);
    }
}

static void bad_values(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "[]",
        "\"x\"",
        "{",
        "{\"name\":\"Upper\"}",
        "{\"name\":\"../etc\"}",
        "{\"name\":\"\"}",
        "{\"name\":7}",
        "{\"name\":null}",
        "{\"runtime\":\"ruby\"}",
        "{\"runtime\":\"node\\n\"}",
        "{\"runtime\":\"nodenodenodenodenode\"}",
        "{\"entry\":\"a\\nb\"}",
        "{\"entry\":[\"a\"]}",
        "{\"entry\":\"a\\u0000b\"}",
        "{\"install\":{\"cmd\":\"x\"}}",
        "{\"check\":true}",
        "{\"timeout_s\":0}",
        "{\"timeout_s\":3601}",
        "{\"timeout_s\":1.5}",
        "{\"timeout_s\":9223372036854775807}",
        "{\"name\":\"a\",\"name\":\"b\"}",
        "{\"env\":[]}",
        "{\"env\":{\"a\":\"\"}}",
        "{\"env\":{\"1A\":\"\"}}",
        "{\"env\":{\"A-B\":\"\"}}",
        "{\"env\":{\"\":\"\"}}",
        "{\"env\":{\"TRACEPARENT\":\"\"}}",
        "{\"secrets\":\"A\"}",
        "{\"secrets\":[1]}",
        "{\"secrets\":[\"\"]}",
        "{\"redact_output\":\"true\"}",
        "{\"memory_mb\":127}",
        "{\"memory_mb\":65537}",
        "{\"cpus\":0}",
        "{\"cpus\":0.5}",
        "{\"warm_pool\":-1}",
        "{\"warm_pool\":1001}",
        "{\"warm_pool\":\"yes\"}",
        "{\"warm_pool\":{\"min\":2,\"max\":1}}",
        "{\"warm_pool\":{\"min\":2}}",
        "{\"warm_pool\":{\"min\":0,\"max\":1,\"now\":1}}",
        "{\"warm_pool\":null}",
        "{\"egress\":\"none\"}",
        "{\"egress\":false}",
        "{\"output_max_bytes\":0}",
        "{\"output_max_bytes\":10485761}",
        "{\"retry\":3}",
        "{\"retry\":{\"max_attempts\":21}}",
        "{\"retry\":{\"on\":\"failed\"}}",
        "{\"artifacts\":\"/out\"}",
        "{\"artifacts\":\"..\"}",
        "{\"artifacts\":\"a/../b\"}",
        "{\"artifacts\":\"a//b\"}",
        "{\"artifacts\":\"./a\"}",
        "{\"artifacts\":\"\"}",
        "{\"artifacts\":\"/\"}",
        "{\"usage\":\"stream\"}",
        "{\"usage\":true}",
    };
    struct manifest m;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = ERR_INIT;
        if (manifest_parse(str_of(bad[i]), &js, &m, &err) == 0)
            fail_msg("accepted: %s", bad[i]);
        assert_int_equal(err.code, ERR_BAD_MANIFEST);
        assert_true(err.msg[0] != '\0');
        assert_int_equal(manifest_parse(str_of(bad[i]), &js, &m, NULL), -1);
    }
}

static void counts_and_lengths_end(void **state)
{
    (void)state;
    struct buf text;
    struct manifest m;
    buf_init(&text, MANIFEST_BYTES);
    for (int n = MANIFEST_ENV_MAX; n <= MANIFEST_ENV_MAX + 1; n++) {
        buf_clear(&text);
        buf_cstr_append(&text, "{\"env\":{\"X\":\"\"");
        for (int i = 1; i < n; i++)
            buf_printf(&text, ",\"V%d\":\"v\"", i);
        buf_cstr_append(&text, "}}");
        assert_int_equal(manifest_parse(buf_view(&text), &js, &m, NULL), n > MANIFEST_ENV_MAX ? -1 : 0);
    }
    for (int n = MANIFEST_ENV_BYTES - 3; n <= MANIFEST_ENV_BYTES - 2; n++) {
        buf_clear(&text);
        buf_printf(&text, "{\"env\":{\"A\":\"%0*d\"}}", n, 0);
        assert_int_equal(manifest_parse(buf_view(&text), &js, &m, NULL), n > MANIFEST_ENV_BYTES - 3 ? -1 : 0);
    }
    for (int n = AGENT_TEXT_BYTES - 1; n <= AGENT_TEXT_BYTES; n++) {
        buf_clear(&text);
        buf_printf(&text, "{\"entry\":\"%0*d\"}", n, 0);
        assert_int_equal(manifest_parse(buf_view(&text), &js, &m, NULL), n < AGENT_TEXT_BYTES ? 0 : -1);
    }
    buf_deinit(&text);
}

/* ---- what cannot be done is refused ---- */

static void nothing_is_ignored(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "{\"memory_mb\":512}",
        "{\"cpus\":1}",
    };
    static const char *const kept[] = {
        "{\"egress\":\"deny\"}",
        "{\"output_max_bytes\":5}",
        "{\"env\":{\"A\":\"1\"}}",
        "{\"retry\":{}}",
        "{\"warm_pool\":\"auto\"}",
        "{\"check\":\"true\"}",
        "{\"secrets\":[],\"redact_output\":false}",
        "{\"timeout_s\":1}",
    };
    struct manifest m;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct err err = ERR_INIT;
        assert_int_equal(manifest_parse(str_of(refused[i]), &js, &m, &err), 0);
        assert_int_equal(manifest_check(&m, &err), -1);
        assert_int_equal(err.code, ERR_UNSUPPORTED);
    }
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        assert_int_equal(manifest_parse(str_of(kept[i]), &js, &m, NULL), 0);
        assert_int_equal(manifest_check(&m, NULL), 0);
    }
}

/* ---- the published schema has the parser's keys ---- */

static void the_schema_has_the_same_keys(void **state)
{
    (void)state;
    static char text[MANIFEST_BYTES];
    FILE *f = fopen(SCHEMA_FILE, "re");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text, f), keys = 0;
    fclose(f);
    struct json *doc = json_parse(str_make(text, n), NULL);
    const struct json_value *properties = json_get(json_root(doc), "properties");
    for (; manifest_keys[keys] != NULL; keys++)
        if (json_get(properties, manifest_keys[keys]) == NULL)
            fail_msg("the schema lacks %s", manifest_keys[keys]);
    assert_int_equal(json_count(properties), keys);
    json_free(&doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_come_from_the_files),
        cmocka_unit_test(files_tell),
        cmocka_unit_test(everything_is_kept),
        cmocka_unit_test(short_forms),
        cmocka_unit_test(the_longest_form_fits),
        cmocka_unit_test(faults_name_line_and_key),
        cmocka_unit_test(bad_values),
        cmocka_unit_test(counts_and_lengths_end),
        cmocka_unit_test(nothing_is_ignored),
        cmocka_unit_test(the_schema_has_the_same_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
