/* model: states, the retry rules, deficit round robin, agents. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/agent.h"
#include "model/api_key.h"
#include "model/drr.h"
#include "model/invocation.h"
#include "model/traceparent.h"

/* ---- invocations ---- */

static void state_names(void **state)
{
    (void)state;
    static const struct {
        enum inv_state s;
        const char *name;
        bool ended;
    } all[] = {
        {INV_SCHEDULED, "scheduled", false}, {INV_QUEUED, "queued", false},
        {INV_STARTING, "starting", false},   {INV_RUNNING, "running", false},
        {INV_SUCCEEDED, "succeeded", true},  {INV_FAILED, "failed", true},
        {INV_TIMED_OUT, "timed_out", true},  {INV_CANCELED, "canceled", true},
        {INV_EXPIRED, "expired", true},      {INV_ERROR, "error", true},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_string_equal(inv_state_name(all[i].s), all[i].name);
        assert_int_equal(inv_state_parse(str_of(all[i].name)), all[i].s);
        assert_int_equal(inv_state_ended(all[i].s), all[i].ended);
    }
    assert_string_equal(inv_state_name(INV_NONE), "unknown");
    assert_string_equal(inv_state_name((enum inv_state)99), "unknown");
    assert_int_equal(inv_state_parse(STR("Queued")), INV_NONE);
    assert_int_equal(inv_state_parse(STR("queue")), INV_NONE);
    assert_int_equal(inv_state_parse(STR("")), INV_NONE);
    assert_false(inv_state_ended(INV_NONE));
}

static void priorities(void **state)
{
    (void)state;
    enum inv_priority p = INV_LOW;
    assert_true(inv_priority_parse(STR("high"), &p));
    assert_int_equal(p, INV_HIGH);
    assert_true(inv_priority_parse(STR("normal"), &p));
    assert_int_equal(p, INV_NORMAL);
    assert_false(inv_priority_parse(STR("HIGH"), &p));
    assert_false(inv_priority_parse(STR(""), &p));
    assert_string_equal(inv_priority_name(INV_LOW), "low");
    assert_string_equal(inv_priority_name((enum inv_priority)7), "unknown");
}

/* The rules of DESIGN section 4, "Retries", as a table. */
static void judging(void **state)
{
    (void)state;
    enum { F = INV_RETRY_FAILED, T = INV_RETRY_TIMED_OUT };
    static const struct {
        struct inv_attempt_end end;
        enum inv_verdict verdict;
        int64_t backoff_ms;
    } table[] = {
        /* the program's own outcome: only if the caller asked, and only what he asked for */
        {{.state = INV_SUCCEEDED, .started = true, .attempt = 1, .max_attempts = 9, .retry_on = F | T},
         INV_SETTLE,
         1000},
        {{.state = INV_FAILED, .started = true, .attempt = 1, .max_attempts = 1}, INV_SETTLE, 1000},
        {{.state = INV_FAILED, .started = true, .attempt = 1, .max_attempts = 3}, INV_SETTLE, 1000},
        {{.state = INV_FAILED, .started = true, .attempt = 1, .max_attempts = 3, .retry_on = F},
         INV_RETRY,
         1000},
        {{.state = INV_FAILED, .started = true, .attempt = 2, .own = 1, .max_attempts = 3, .retry_on = F},
         INV_RETRY,
         2000},
        {{.state = INV_FAILED, .started = true, .attempt = 3, .own = 2, .max_attempts = 3, .retry_on = F},
         INV_SETTLE,
         4000},
        {{.state = INV_FAILED, .started = true, .attempt = 1, .max_attempts = 3, .retry_on = T},
         INV_SETTLE,
         1000},
        {{.state = INV_TIMED_OUT, .started = true, .attempt = 1, .max_attempts = 2, .retry_on = T},
         INV_RETRY,
         1000},
        {{.state = INV_TIMED_OUT, .started = true, .attempt = 1, .max_attempts = 2, .retry_on = F},
         INV_SETTLE,
         1000},
        {{.state = INV_CANCELED, .attempt = 1, .max_attempts = 9, .retry_on = F | T}, INV_SETTLE, 1000},
        {{.state = INV_EXPIRED, .attempt = 1, .max_attempts = 9, .retry_on = F | T}, INV_SETTLE, 1000},
        /* attempts lost by our side spend none of the caller's */
        {{.state = INV_FAILED, .started = true, .attempt = 7, .own = 1, .max_attempts = 3, .retry_on = F},
         INV_RETRY,
         60000},
        /* lost after the start: three re-runs, whatever the caller asked for */
        {{.state = INV_ERROR, .ours = true, .started = true, .attempt = 1, .max_attempts = 1},
         INV_RETRY,
         1000},
        {{.state = INV_ERROR, .ours = true, .started = true, .attempt = 3, .reruns = 2}, INV_RETRY, 4000},
        {{.state = INV_ERROR, .ours = true, .started = true, .attempt = 4, .reruns = 3}, INV_SETTLE, 8000},
        /* before the start: until the queue's limit is over */
        {{.state = INV_ERROR, .ours = true, .attempt = 1, .queue_left_ms = 1001}, INV_RETRY, 1000},
        {{.state = INV_ERROR, .ours = true, .attempt = 1, .queue_left_ms = 1000}, INV_SETTLE, 1000},
        {{.state = INV_ERROR, .ours = true, .attempt = 1, .queue_left_ms = -5}, INV_SETTLE, 1000},
        {{.state = INV_ERROR, .ours = true, .attempt = 6, .queue_left_ms = 86400000}, INV_RETRY, 32000},
        {{.state = INV_ERROR, .ours = true, .attempt = 7, .queue_left_ms = 86400000}, INV_RETRY, 60000},
        {{.state = INV_ERROR, .ours = true, .attempt = 32000, .queue_left_ms = 86400000}, INV_RETRY, 60000},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        int64_t backoff = 0;
        enum inv_verdict v = inv_judge(&table[i].end, UINT32_MAX, &backoff); /* the longest wait */
        if (v != table[i].verdict || backoff != table[i].backoff_ms)
            fail_msg("row %zu: verdict %d, backoff %lld", i, (int)v, (long long)backoff);
    }
}

/* Full jitter: every tenth of the range from 0 to the bound has its share, the mean is half of it, and both
 * ends are reached. */
static void backing_off(void **state)
{
    (void)state;
    enum { ROUNDS = 100000, TENTHS = 10 };
    static const struct {
        int attempt;
        int64_t most;
    } table[] = {{1, 1000}, {2, 2000}, {4, 8000}, {6, 32000}, {7, 60000}, {8, 60000}, {1440, 60000}};
    uint64_t seed = 42;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        int tenths[TENTHS] = {0};
        int64_t sum = 0, most = table[i].most;
        for (int r = 0; r < ROUNDS; r++) {
            seed = seed * 6364136223846793005U + 1442695040888963407U;
            int64_t ms = inv_backoff_ms(table[i].attempt, (uint32_t)(seed >> 32));
            assert_in_range(ms, 0, most);
            sum += ms;
            tenths[ms * TENTHS / (most + 1)]++;
        }
        for (int t = 0; t < TENTHS; t++)
            assert_in_range(tenths[t], ROUNDS / TENTHS * 9 / 10, ROUNDS / TENTHS * 11 / 10);
        assert_in_range(sum / ROUNDS, most * 49 / 100, most * 51 / 100);
        assert_int_equal(inv_backoff_ms(table[i].attempt, 0), 0);
        assert_int_equal(inv_backoff_ms(table[i].attempt, UINT32_MAX), most);
    }
}

/* ---- deficit round robin ---- */

static void drr_is_fair(void **state)
{
    (void)state;
    struct drr_tenant t[3] = {{.tenant = 1, .room = 1000, .waiting = 100000},
                              {.tenant = 2, .room = 1000, .waiting = 100000},
                              {.tenant = 3, .room = 1000, .waiting = 5}};
    size_t turn = 0;
    assert_int_equal(drr_share(t, 3, 64, 500, &turn), 500);
    assert_int_equal(t[2].grant, 5);
    assert_in_range(t[0].grant, 183, 311);
    assert_int_equal(t[0].grant + t[1].grant, 495);
    int64_t sum[2] = {t[0].grant, t[1].grant};
    for (int i = 0; i < 100; i++) {
        drr_share(t, 3, 64, 100, &turn);
        sum[0] += t[0].grant;
        sum[1] += t[1].grant;
    }
    assert_true(llabs(sum[0] - sum[1]) <= 64); /* over time nobody is ahead by more than a quantum */
}

/* A budget below one quantum: turns rotate, nobody is passed over. */
static void drr_small_budgets(void **state)
{
    (void)state;
    enum { N = 7 };
    struct drr_tenant t[N];
    int64_t sum[N] = {0};
    size_t turn = 0;
    memset(t, 0, sizeof t);
    for (int i = 0; i < N; i++)
        t[i] = (struct drr_tenant){.tenant = i, .room = 100, .waiting = 1000};
    for (int round = 0; round < 7000; round++) {
        int32_t got = drr_share(t, N, 8, 3, &turn);
        assert_int_equal(got, 3);
        for (int i = 0; i < N; i++)
            sum[i] += t[i].grant;
    }
    for (int i = 0; i < N; i++)
        assert_in_range(sum[i], 2900, 3100);
}

static void drr_bounds(void **state)
{
    (void)state;
    size_t turn = 5;
    assert_int_equal(drr_share(NULL, 0, 64, 100, &turn), 0);
    struct drr_tenant full = {.tenant = 1, .room = 0, .waiting = 9, .deficit = 40};
    assert_int_equal(drr_share(&full, 1, 64, 100, &turn), 0);
    assert_int_equal(full.deficit, 0); /* what a full window cannot use is forfeited */
    struct drr_tenant one = {.tenant = 1, .room = 7, .waiting = INT32_MAX};
    assert_int_equal(drr_share(&one, 1, 3, 100, &turn), 7);
    assert_int_equal(one.grant, 7);
    assert_int_equal(drr_share(&one, 1, 3, 0, &turn), 0);
    assert_int_equal(one.grant, 0);
}

/* ---- agents ---- */

static void slugs(void **state)
{
    (void)state;
    char long_one[66];
    memset(long_one, 'a', sizeof long_one);
    assert_true(agent_slug_valid(STR("a")));
    assert_true(agent_slug_valid(STR("9-lives")));
    assert_true(agent_slug_valid(str_make(long_one, 63)));
    assert_false(agent_slug_valid(str_make(long_one, 64)));
    static const char *const bad[] = {"", "-a", "A", "a_b", "a b", "a/b", "a.b", "\xc3\xa4", "a\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(agent_slug_valid(str_of(bad[i])));
    assert_false(agent_slug_valid(STR("a\0b")));
}

static void refs(void **state)
{
    (void)state;
    struct str slug;
    int32_t version = -1;
    assert_true(agent_ref_parse(STR("word-count"), &slug, &version));
    assert_true(str_eq_c(slug, "word-count"));
    assert_int_equal(version, 0);
    assert_true(agent_ref_parse(STR("a@7"), &slug, &version));
    assert_int_equal(version, 7);
    assert_true(agent_ref_parse(STR("a@2147483647"), &slug, &version));
    assert_int_equal(version, INT32_MAX);
    static const char *const bad[] = {"",     "@",    "@1",           "a@",
                                      "a@0",  "a@-1", "a@x",          "a@1x",
                                      "a@ 1", "a@@1", "a@2147483648", "a@99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(agent_ref_parse(str_of(bad[i]), &slug, &version));
}

/* What the shell makes of the command: a program `node` or `python3` that prints its arguments. */
static void shell_says(const char *entry, const char *runtime)
{
    char command[4096], script[5000], got[2048];
    assert_true(agent_run_command(runtime, entry, command, sizeof command));
    assert_memory_equal(command, "exec ", 5);
    snprintf(script, sizeof script, "printf %%s %s", strchr(command + 5, ' '));
    FILE *p;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], 1);
        close(fds[0]);
        close(fds[1]);
        execl("/bin/sh", "sh", "-c", script, (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    p = fdopen(fds[0], "r");
    size_t n = fread(got, 1, sizeof got - 1, p);
    got[n] = '\0';
    fclose(p);
    assert_string_equal(got, entry);
}

static void run_commands(void **state)
{
    (void)state;
    char out[64];
    assert_true(agent_run_command("node", "index.js", out, sizeof out));
    assert_string_equal(out, "exec node 'index.js'");
    assert_true(agent_run_command("python", "main.py", out, sizeof out));
    assert_string_equal(out, "exec python3 'main.py'");
    assert_true(agent_run_command("command", "sh run.sh | tee x", out, sizeof out));
    assert_string_equal(out, "sh run.sh | tee x"); /* a command is shell text by its nature */
    static const char *const hostile[] = {
        "a b.js", "$(touch x).js", "`id`", "'; rm -rf /; '", "it's", "'",       "''", "a\\'b", "$HOME", "*",
        "\\",     "a;b&c|d>e<f",   "-e",   "\"x\"",          "~",    "\xc3\xa4"};
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++)
        shell_says(hostile[i], i % 2 == 0 ? "node" : "python");
    for (size_t room = 0; room <= sizeof "exec node 'it'\\''s'"; room++) {
        char small[32];
        memset(small, 'Z', sizeof small);
        bool fits = agent_run_command("node", "it's", small, room);
        assert_int_equal(fits, room >= sizeof "exec node 'it'\\''s'");
        assert_int_equal(small[room], 'Z');
    }
    char small[8];
    assert_false(agent_run_command("command", "0123456789", small, sizeof small));
}

static void a_trace_is_carried(void **state)
{
    (void)state;
    static const char text[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    struct traceparent t;
    char again[TRACEPARENT_TEXT_BYTES];
    assert_true(traceparent_parse(STR("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), &t));
    traceparent_format(&t, again);
    assert_string_equal(again, text);
    assert_true(
        traceparent_parse(STR("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-is-new"), &t));
    traceparent_format(&t, again);
    assert_string_equal(again, text);
    static const char *const ignored[] = {"",
                                          "00",
                                          "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
                                          "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
                                          "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.x",
                                          "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                                          "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                                          "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                                          "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                                          "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                                          "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01"};
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) {
        assert_false(traceparent_parse(str_of(ignored[i]), &t));
        assert_false(t.present);
        traceparent_format(&t, again);
        assert_string_equal(again, "");
    }
}

/* ---- API keys ---- */

static void scopes(void **state)
{
    (void)state;
    char text[KEY_SCOPES_TEXT_BYTES];
    assert_int_equal(key_scopes_parse(STR("read")), KEY_READ);
    assert_int_equal(key_scopes_parse(STR("admin, invoke,deploy , read")), KEY_SCOPES_ALL);
    assert_int_equal(key_scopes_parse(STR("invoke,invoke")), KEY_INVOKE);
    static const char *const bad[] = {"", ",", "read,", "Read", "read invoke", "readx", "rea"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(key_scopes_parse(str_of(bad[i])), 0);
    key_scopes_text(KEY_SCOPES_ALL, " or ", text);
    assert_string_equal(text, "read or invoke or deploy or admin");
    key_scopes_text(0, ", ", text);
    assert_string_equal(text, "");
    assert_null(key_scope_name(3));
    assert_true(key_may(KEY_ADMIN, KEY_DEPLOY) && key_may(KEY_READ | KEY_DEPLOY, KEY_DEPLOY | KEY_INVOKE));
    assert_false(key_may(KEY_READ | KEY_INVOKE, KEY_DEPLOY) || key_may(0, KEY_SCOPES_ALL));
}

static void key_names(void **state)
{
    (void)state;
    char longest[KEY_NAME_MAX_BYTES + 2];
    memset(longest, 'x', sizeof longest);
    assert_true(key_name_valid(str_make(longest, KEY_NAME_MAX_BYTES)) &&
                key_name_valid(STR("nächtlich – 1")));
    assert_false(key_name_valid(str_make(longest, KEY_NAME_MAX_BYTES + 1)) || key_name_valid(STR("")));
    assert_false(key_name_valid(STR("a\tb")) || key_name_valid(STR("\x7f")) || key_name_valid(STR("\xff")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_names),
        cmocka_unit_test(priorities),
        cmocka_unit_test(judging),
        cmocka_unit_test(backing_off),
        cmocka_unit_test(drr_is_fair),
        cmocka_unit_test(drr_small_budgets),
        cmocka_unit_test(drr_bounds),
        cmocka_unit_test(slugs),
        cmocka_unit_test(refs),
        cmocka_unit_test(run_commands),
        cmocka_unit_test(a_trace_is_carried),
        cmocka_unit_test(scopes),
        cmocka_unit_test(key_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
