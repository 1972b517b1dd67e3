/* store on PostgreSQL: migrations, group commit, idempotency keys, settling; against a private real server.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "pg_fixture.h"
#include "store/migrate.h"
#include "store/records.h"
#include "store/settle.h"
#include "store/submit.h"
#include "store/sweep.h"

enum { ROWS = 64, TENANT = 1 };

static struct pg_fixture server;
static struct loop *loop;
static char url[256]; /* commits are written before they are told, as in a real installation */
static struct uuid agent, api_key;

static void too_late(void *arg)
{
    (void)arg;
    fail_msg("the test waited too long");
}

/* Runs the loop until something stops it. */
static void run(void)
{
    struct loop_timer *guard = loop_timer_new(loop, too_late, NULL);
    loop_timer_start(guard, 30000);
    loop_run(loop);
    loop_timer_free(&guard);
}

static void on_state(void *arg, bool connected)
{
    (void)arg;
    if (connected)
        loop_stop(loop);
}

static struct pg *open_pg(int inflight)
{
    struct pg *pg = pg_open(
        loop, &(struct pg_options){.url = url, .application = "test", .max_inflight = inflight}, NULL);
    assert_non_null(pg);
    return pg;
}

/* ---- plain questions, on a connection of the test's own ---- */

static struct pg *ctl;

struct answer {
    bool fired;
    int64_t value;
    struct err err;
};

static void on_answer(void *arg, const struct pg_result *r, const struct err *err)
{
    struct answer *a = arg;
    a->fired = true;
    if (err != NULL)
        a->err = *err;
    else if (pg_rows(r) > 0 && !pg_is_null(r, 0, 0))
        a->value = pg_get_int8(r, 0, 0);
    loop_stop(loop);
}

static int64_t ask(const char *sql)
{
    struct answer a = {.value = -1};
    for (int i = 0; i < 20; i++) { /* the server may have been away */
        a = (struct answer){.value = -1};
        assert_non_null(pg_query(ctl, sql, NULL, 20000, on_answer, &a, NULL));
        while (!a.fired) /* others stop the loop, too */
            run();
        if (a.err.code != ERR_OUTCOME_UNKNOWN)
            break;
    }
    if (a.err.code != ERR_NONE)
        fail_msg("%s: %s", sql, a.err.msg);
    return a.value;
}

static void script(const char *sql)
{
    struct answer a = {.value = -1};
    assert_non_null(pg_script(ctl, str_of(sql), 20000, on_answer, &a, NULL));
    while (!a.fired)
        run();
    if (a.err.code != ERR_NONE)
        fail_msg("%s: %s", sql, a.err.msg);
}

static void empty(void)
{
    script("TRUNCATE invocations, results, attempts, usage, usage_deltas, idempotency, blobs");
}

/* ---- migrations ---- */

struct migration_end {
    int ended, steps, *left;
    struct err err;
};

static void on_step(void *arg, const struct migration *m)
{
    (void)m;
    ((struct migration_end *)arg)->steps++;
}

static void on_migrated(void *arg, const struct err *err)
{
    struct migration_end *e = arg;
    e->ended++;
    if (err != NULL)
        e->err = *err;
    if (--*e->left == 0)
        loop_stop(loop);
}

static void migrate(struct migration_end *ends, int n)
{
    int left = n;
    for (int i = 0; i < n; i++) {
        ends[i] = (struct migration_end){.left = &left};
        assert_int_equal(migrate_run(loop, url, on_step, on_migrated, &ends[i], NULL), 0);
    }
    run();
    for (int i = 0; i < n; i++) {
        assert_int_equal(ends[i].ended, 1);
        if (ends[i].err.code != ERR_NONE)
            fail_msg("%s", ends[i].err.msg);
    }
}

struct schema {
    int found, wanted;
    struct uuid deployment;
};

static void on_schema(void *arg, int found, int wanted, struct uuid deployment, const struct err *err)
{
    assert_null(err);
    *(struct schema *)arg = (struct schema){.found = found, .wanted = wanted, .deployment = deployment};
    loop_stop(loop);
}

static struct schema schema(void)
{
    struct schema s = {0};
    assert_int_equal(schema_check(ctl, 5000, on_schema, &s, NULL), 0);
    run();
    return s;
}

/* Runs first: an empty database, two at once; then again. */
static void migrations_twice_and_at_once(void **state)
{
    (void)state;
    struct schema s = schema();
    assert_int_equal(s.found, 0);
    struct migration_end ends[3];
    migrate(ends, 3);
    assert_int_equal(ends[0].steps + ends[1].steps + ends[2].steps, migration_count);
    s = schema();
    assert_int_equal(s.found, s.wanted);
    assert_false(uuid_is_zero(s.deployment));
    struct uuid before = s.deployment;
    migrate(ends, 1);
    assert_int_equal(ends[0].steps, 0);
    s = schema();
    assert_true(uuid_eq(s.deployment, before));
    assert_int_equal(ask("SELECT count(*) FROM schema_migrations"), migration_count);
    assert_int_equal(ask("SELECT count(*) FROM deployment"), 1);
    assert_int_equal(ask("SELECT sandpiper_partitions(14)::int8"), 0);
    assert_true(ask("SELECT count(*) FROM pg_inherits WHERE inhparent = 'invocations'::regclass") >= 16);
}

/* ---- submitting ---- */

struct job {
    struct submission sub;
    int done;
    struct err err;
};

static int left; /* the loop stops at zero */

static void on_submitted(void *arg, struct submission *s, const struct err *err)
{
    (void)arg;
    struct job *j = (struct job *)s;
    j->done++;
    if (err != NULL)
        j->err = *err;
    if (--left == 0)
        loop_stop(loop);
}

struct store {
    struct pg *small, *large, *keyed;
    struct submitter *s;
};

static struct store open_store(void)
{
    struct store st = {.small = open_pg(2), .large = open_pg(2), .keyed = open_pg(16)};
    st.s = submitter_new(loop, st.small, st.large, st.keyed, on_submitted, NULL, 64 << 20);
    assert_non_null(st.s);
    return st;
}

static void close_store(struct store *st)
{
    submitter_free(&st->s);
    pg_close(&st->small);
    pg_close(&st->large);
    pg_close(&st->keyed);
}

static void fill(struct job *j, struct str prompt)
{
    *j = (struct job){.sub = {.tenant = TENANT,
                              .api_key = api_key,
                              .agent = agent,
                              .version = 1,
                              .priority = INV_NORMAL,
                              .timeout_ms = 1000,
                              .queue_timeout_ms = 60000,
                              .max_attempts = 1,
                              .prompt = prompt,
                              .metadata = STR("{\"a\":1}")}};
}

static void put(struct store *st, struct job *j, int64_t deadline_ms)
{
    struct err err;
    if (submit_put(st->s, &j->sub, deadline_ms, &err) != 0)
        fail_msg("%s", err.msg);
    left++;
}

static void all_done(void)
{
    while (left > 0)
        run();
}

/* What PostgreSQL refuses. */
static void poison(struct job *j, int kind)
{
    switch (kind) {
    case 0:
        j->sub.metadata = STR("{\"a\":\"\xff\"}");
        break;
    case 1:
        j->sub.metadata = STR("a\0b");
        break;
    default: /* a partition that does not exist: class 23 */
        memset(j->sub.row.key.b, 0xEE, 6);
    }
}

static void one_poison_row(size_t at, int kind)
{
    static struct job jobs[ROWS];
    struct store st = open_store();
    for (size_t i = 0; i < ROWS; i++)
        fill(&jobs[i], STR("p"));
    for (size_t i = 0; i < ROWS; i++) {
        if (i == at && kind < 2)
            poison(&jobs[i], kind);
        put(&st, &jobs[i], 15000);
        if (i == at && kind == 2)
            poison(&jobs[i], kind);
    }
    run();
    for (size_t i = 0; i < ROWS; i++) {
        assert_int_equal(jobs[i].done, 1);
        if (jobs[i].err.code != (i == at ? ERR_PG_DATA : ERR_NONE))
            fail_msg("row %zu of poison %d at %zu: %s", i, kind, at, jobs[i].err.msg);
    }
    assert_int_equal(ask("SELECT count(*) FROM invocations"), ROWS - 1);
    close_store(&st);
    empty();
}

static void a_poison_row_fails_alone(void **state)
{
    (void)state;
    static const size_t places[] = {0, 1, 31, 32, 62, 63};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        for (int kind = 0; kind < 3; kind++)
            one_poison_row(places[i], kind);
}

static void many_poison_rows(void **state)
{
    (void)state;
    static struct job jobs[ROWS];
    struct store st = open_store();
    for (size_t i = 0; i < ROWS; i++) {
        fill(&jobs[i], STR("p"));
        if (i % 3 == 0)
            poison(&jobs[i], (int)(i % 2));
        put(&st, &jobs[i], 15000);
    }
    run();
    for (size_t i = 0; i < ROWS; i++)
        assert_int_equal(jobs[i].err.code, i % 3 == 0 ? ERR_PG_DATA : ERR_NONE);
    assert_int_equal(ask("SELECT count(*) FROM invocations"), ROWS - 22);
    close_store(&st);
    empty();
}

static void large_and_small_prompts(void **state)
{
    (void)state;
    static const size_t sizes[] = {0,      1,          65536,      65537,          262144,
                                   262145, 524288 - 1, 524288 + 1, 4 * 1024 * 1024};
    enum { N = sizeof sizes / sizeof *sizes };
    static struct job jobs[N];
    struct store st = open_store();
    char *big = malloc(4 * 1024 * 1024);
    memset(big, '\xfe', 4 * 1024 * 1024);
    for (size_t i = 0; i < N; i++) {
        fill(&jobs[i], str_make(big, sizes[i]));
        put(&st, &jobs[i], 15000);
    }
    run();
    for (size_t i = 0; i < N; i++)
        assert_int_equal(jobs[i].err.code, ERR_NONE);
    assert_int_equal(
        ask("SELECT count(*) FROM invocations i WHERE i.prompt_bytes = coalesce(length(i.prompt), "
            "(SELECT sum(length(b.data)) FROM blobs b WHERE b.id = i.id AND b.kind = 1))"),
        N);
    assert_int_equal(ask("SELECT max(length(data))::int8 FROM blobs"), INV_CHUNK_BYTES);
    free(big);
    close_store(&st);
    empty();
}

/* A trigger that waits for the test's lock: a group is then surely in flight. */
static void block_commits(void)
{
    script("CREATE OR REPLACE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
           "PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$; "
           "CREATE TRIGGER wait_for_test AFTER INSERT ON invocations "
           "FOR EACH STATEMENT EXECUTE FUNCTION wait_for_test(); "
           "CREATE TRIGGER wait_for_test AFTER INSERT ON results "
           "FOR EACH STATEMENT EXECUTE FUNCTION wait_for_test()");
    ask("SELECT 1::int8 FROM pg_advisory_lock(42)");
}

static void unblock_commits(void)
{
    ask("SELECT 1::int8 FROM pg_advisory_unlock(42)");
    script("DROP TRIGGER wait_for_test ON invocations; DROP TRIGGER wait_for_test ON results");
}

static void until_blocked(int64_t n)
{
    for (int i = 0; i < 1000; i++) {
        if (ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted") >=
            n)
            return;
        usleep(5000);
    }
    fail_msg("nothing waits for the lock");
}

static void terminated_backends(void **state)
{
    (void)state;
    static struct job jobs[ROWS];
    struct store st = open_store();
    block_commits();
    for (size_t i = 0; i < ROWS; i++) {
        fill(&jobs[i], STR("p"));
        put(&st, &jobs[i], 15000);
    }
    for (int round = 0; round < 3; round++) {
        until_blocked(1);
        ask("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'test' "
            "AND pid <> pg_backend_pid() AND wait_event = 'advisory'");
    }
    until_blocked(1);
    assert_int_equal(left, ROWS); /* nobody was told anything yet */
    ask("SELECT 1::int8 FROM pg_advisory_unlock(42)");
    all_done();
    for (size_t i = 0; i < ROWS; i++)
        assert_int_equal(jobs[i].err.code, ERR_NONE);
    assert_int_equal(ask("SELECT count(*) FROM invocations"), ROWS);
    ask("SELECT 1::int8 FROM pg_advisory_lock(42)");
    unblock_commits();
    close_store(&st);
    empty();
}

/* The reply to a COMMIT is lost: the connection is given up while the statement goes on and commits. */
static void lost_replies(void **state)
{
    (void)state;
    static struct job jobs[ROWS];
    struct store st = open_store();
    block_commits();
    for (size_t i = 0; i < ROWS; i++) {
        fill(&jobs[i], STR("p"));
        put(&st, &jobs[i], i == 5 ? 600 : 15000); /* the hasty one gives up, the others go on */
    }
    until_blocked(1);
    for (int i = 0; i < 200 && jobs[5].done == 0; i++)
        ask("SELECT 1::int8 FROM pg_sleep(0.02)");
    assert_int_equal(jobs[5].err.code, ERR_OUTCOME_UNKNOWN);
    assert_int_equal(left, ROWS - 1);
    ask("SELECT 1::int8 FROM pg_advisory_unlock(42)");
    all_done();
    for (size_t i = 0; i < ROWS; i++)
        if (i != 5)
            assert_int_equal(jobs[i].err.code, ERR_NONE);
    assert_int_equal(ask("SELECT count(*) FROM invocations"), ROWS); /* "unknown" was honest: it is there */
    ask("SELECT 1::int8 FROM pg_advisory_lock(42)");
    unblock_commits();
    close_store(&st);
    empty();
}

/* A server that is stopped waits for those who are just connecting, and they are in this process. */
static void all_connected(struct store *st)
{
    while (!pg_connected(st->small) || !pg_connected(st->large) || !pg_connected(st->keyed))
        ask("SELECT 1::int8");
}

static void a_crash_in_between(void **state)
{
    (void)state;
    enum { N = 2000 };
    static struct job jobs[N];
    struct store st = open_store();
    for (size_t i = 0; i < N; i++)
        fill(&jobs[i], STR("p"));
    for (size_t i = 0; i < N; i++)
        put(&st, &jobs[i], 25000);
    for (int crash = 0; crash < 2; crash++) {
        all_connected(&st); /* some turns of the loop; groups are on the wire */
        pg_fixture_stop(&server, SIGQUIT);
        assert_true(pg_fixture_start(&server));
    }
    all_done();
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(jobs[i].done, 1);
        assert_int_equal(jobs[i].err.code, ERR_NONE);
    }
    pg_close(&ctl);
    ctl = open_pg(1);
    assert_int_equal(ask("SELECT count(*) FROM invocations"), N);
    close_store(&st);
    empty();
}

static void database_away(void **state)
{
    (void)state;
    struct job j;
    struct store st = open_store();
    all_connected(&st);
    pg_fixture_stop(&server, SIGQUIT);
    fill(&j, STR("p"));
    put(&st, &j, 500);
    run();
    assert_true(j.err.code == ERR_UNAVAILABLE || j.err.code == ERR_OUTCOME_UNKNOWN);
    assert_true(pg_fixture_start(&server));
    close_store(&st);
    pg_close(&ctl);
    ctl = open_pg(1);
    empty();
}

static void too_much_waits(void **state)
{
    (void)state;
    struct store st = open_store();
    submitter_free(&st.s);
    st.s = submitter_new(loop, st.small, st.large, st.keyed, on_submitted, NULL, 10000);
    static struct job jobs[ROWS];
    struct err err;
    int refused = 0;
    char *prompt = calloc(1, 1000);
    for (size_t i = 0; i < ROWS; i++) {
        fill(&jobs[i], str_make(prompt, 1000));
        if (i % 2 == 1)
            jobs[i].sub.idempotency_key = STR("one key for all");
        if (submit_put(st.s, &jobs[i].sub, 10000, &err) == 0)
            left++;
        else
            refused++;
        if (refused > 0 && err.code != ERR_OVERLOADED)
            fail_msg("%s", err.msg);
    }
    assert_in_range(refused, ROWS - 20, ROWS - 2); /* keyed ones count, too */
    run();
    fill(&jobs[0], str_make(prompt, 1000));
    put(&st, &jobs[0], 10000); /* room again */
    run();
    assert_int_equal(jobs[0].err.code, ERR_NONE);
    free(prompt);
    close_store(&st);
    empty();
}

/* ---- keys ---- */

static void keyed(struct job *j, const char *key, const char *body)
{
    fill(j, str_of(body));
    j->sub.idempotency_key = str_of(key);
    memset(j->sub.fingerprint, body[0], sizeof j->sub.fingerprint);
}

static void equal_keys_at_once(void **state)
{
    (void)state;
    enum { N = 40 };
    static struct job jobs[N];
    struct store st = open_store(), other = open_store();
    for (size_t i = 0; i < N; i++) {
        keyed(&jobs[i], "k", i % 5 == 4 ? "other" : "same");
        put(i % 2 == 0 ? &st : &other, &jobs[i], 15000);
    }
    run();
    int fresh = 0, replayed = 0, mismatch = 0;
    struct uuid owner = {0};
    for (size_t i = 0; i < N; i++) {
        if (jobs[i].err.code == ERR_IDEMPOTENCY_MISMATCH) {
            mismatch++;
            continue;
        }
        assert_int_equal(jobs[i].err.code, ERR_NONE);
        *(jobs[i].sub.replayed ? &replayed : &fresh) += 1;
        if (uuid_is_zero(owner))
            owner = jobs[i].sub.row.key;
        assert_true(uuid_eq(owner, jobs[i].sub.row.key));
    }
    assert_int_equal(fresh, 1);
    assert_int_equal(fresh + replayed + mismatch, N);
    assert_true(mismatch == 8 ||
                mismatch == 32); /* whoever came first decides which body the key stands for */
    assert_int_equal(ask("SELECT count(*) FROM invocations"), 1);
    assert_int_equal(ask("SELECT count(*) FROM idempotency"), 1);
    close_store(&st);
    close_store(&other);
    empty();
}

static void keys_are_a_tenants_own(void **state)
{
    (void)state;
    struct job a, b;
    struct store st = open_store();
    keyed(&a, "k", "x");
    keyed(&b, "k", "y");
    b.sub.tenant = TENANT + 1;
    put(&st, &a, 10000);
    put(&st, &b, 10000);
    run();
    assert_int_equal(a.err.code, ERR_NONE);
    assert_int_equal(b.err.code, ERR_NONE);
    assert_int_equal(ask("SELECT count(*) FROM invocations"), 2);
    close_store(&st);
    empty();
}

static void expired_keys_are_taken_over(void **state)
{
    (void)state;
    struct job a, b, c;
    struct store st = open_store();
    keyed(&a, "k", "x");
    put(&st, &a, 10000);
    run();
    script("UPDATE idempotency SET expires_at = now() - interval '1 second'");
    keyed(&b, "k", "y");
    put(&st, &b, 10000);
    run();
    assert_int_equal(b.err.code, ERR_NONE);
    assert_false(b.sub.replayed);
    assert_false(uuid_eq(a.sub.row.key, b.sub.row.key));
    keyed(&c, "k", "y");
    put(&st, &c, 10000);
    run();
    assert_true(c.sub.replayed && uuid_eq(c.sub.row.key, b.sub.row.key));
    assert_int_equal(ask("SELECT count(*) FROM invocations"), 2);
    assert_int_equal(ask("SELECT count(*) FROM idempotency"), 1);
    close_store(&st);
    empty();
}

static void keyed_poison_and_lost_reply(void **state)
{
    (void)state;
    struct job bad, good;
    struct store st = open_store();
    keyed(&bad, "k", "x");
    poison(&bad, 0);
    put(&st, &bad, 10000);
    run();
    assert_int_equal(bad.err.code, ERR_PG_DATA);
    assert_int_equal(ask("SELECT count(*) FROM idempotency"), 0); /* the key is free again */
    block_commits();
    keyed(&good, "k", "x");
    put(&st, &good, 15000);
    until_blocked(1);
    ask("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'test' "
        "AND pid <> pg_backend_pid() AND wait_event = 'advisory'");
    until_blocked(1);
    ask("SELECT 1::int8 FROM pg_advisory_unlock(42)");
    all_done();
    assert_int_equal(good.err.code, ERR_NONE);
    assert_false(good.sub.replayed);
    assert_int_equal(ask("SELECT count(*) FROM invocations"), 1);
    ask("SELECT 1::int8 FROM pg_advisory_lock(42)");
    unblock_commits();
    close_store(&st);
    empty();
}

/* ---- settling ---- */

struct end {
    struct outcome o;
    int done;
    struct err err;
};

static void on_settled(void *arg, struct outcome *o, const struct err *err)
{
    (void)arg;
    struct end *e = (struct end *)o;
    e->done++;
    if (err != NULL)
        e->err = *err;
    if (--left == 0)
        loop_stop(loop);
}

static struct end end_of(struct uuid id, int attempt, struct uuid boot)
{
    return (struct end){.o = {.row.key = id,
                              .tenant = TENANT,
                              .agent = agent,
                              .attempt = (int16_t)attempt,
                              .boot = boot,
                              .what = OUTCOME_RESULT,
                              .state = INV_SUCCEEDED,
                              .has_exit_code = true,
                              .output = STR("out"),
                              .output_bytes = 3,
                              .finished_at = wall_now(),
                              .has_usage = true,
                              .sandbox = STR("sbx"),
                              .run_ms = 7,
                              .cpu_ms = -1,
                              .peak_memory_bytes = -1}};
}

static void settle(struct settler *s, struct end *e)
{
    e->done = 0;
    e->err = ERR_INIT;
    struct err err;
    if (settle_put(s, &e->o, 15000, &err) != 0)
        fail_msg("%s", err.msg);
    left++;
}

static void first_writer_wins(void **state)
{
    (void)state;
    struct pg *pa = open_pg(1), *pb = open_pg(1);
    struct settler *a = settler_new(loop, pa, pa, on_settled, NULL, 1 << 20);
    struct settler *b = settler_new(loop, pb, pb, on_settled, NULL, 1 << 20);
    struct uuid boot_a = uuid_new(), boot_b = uuid_new(), id = uuid_new();
    struct end first = end_of(id, 1, boot_a), late = end_of(id, 2, boot_b);
    late.o.state = INV_FAILED;
    settle(a, &first);
    run();
    assert_true(first.o.won);
    settle(b, &late);
    run();
    assert_int_equal(late.err.code, ERR_NONE);
    assert_false(late.o.won);
    assert_int_equal(ask("SELECT count(*) FROM results WHERE status = 1 AND attempt = 1"), 1);
    assert_int_equal(ask("SELECT count(*) FROM results"), 1);
    assert_int_equal(ask("SELECT count(*) FROM usage"), 2); /* the loser's, too */
    settle(a, &first); /* again, after a lost reply: still the winner, nothing doubled */
    run();
    assert_true(first.o.won);
    settle(b, &late);
    run();
    assert_false(late.o.won);
    assert_int_equal(ask("SELECT count(*) FROM usage"), 2);
    struct end usage = end_of(id, 3, boot_b);
    usage.o.what = OUTCOME_USAGE_ONLY;
    settle(b, &usage);
    run();
    assert_false(usage.o.won);
    assert_int_equal(ask("SELECT count(*) FROM usage"), 3);
    struct uuid raced = uuid_new();
    struct end x = end_of(raced, 1, boot_a), y = end_of(raced, 1, boot_b);
    settle(a, &x);
    settle(b, &y);
    run();
    assert_int_equal(x.o.won + y.o.won, 1);
    settler_free(&a);
    settler_free(&b);
    pg_close(&pa);
    pg_close(&pb);
    empty();
}

/* Two attempts of one invocation from one process, in one group: one wins. */
static void two_attempts_in_one_group(void **state)
{
    (void)state;
    struct pg *pg = open_pg(1);
    struct settler *s = settler_new(loop, pg, pg, on_settled, NULL, 1 << 20);
    struct uuid boot = uuid_new(), id = uuid_new();
    struct end one = end_of(id, 1, boot), two = end_of(id, 2, boot), usage = end_of(id, 3, boot);
    usage.o.what = OUTCOME_USAGE_ONLY;
    settle(s, &usage);
    settle(s, &one);
    settle(s, &two);
    run();
    assert_int_equal(one.o.won + two.o.won, 1);
    assert_false(usage.o.won);
    assert_int_equal(ask("SELECT count(*) FROM results"), 1);
    assert_int_equal(ask("SELECT attempt::int8 FROM results"), one.o.won ? 1 : 2);
    assert_int_equal(ask("SELECT count(*) FROM usage"), 3);
    settler_free(&s);
    pg_close(&pg);
    empty();
}

/* Sums are of what was really inserted: neither a repeat, after a lost reply, nor a loser's result adds to
 * them. */
static void sums_count_what_is_new(void **state)
{
    (void)state;
    struct pg *pg = open_pg(1);
    struct settler *s = settler_new(loop, pg, pg, on_settled, NULL, 1 << 20);
    struct uuid boot = uuid_new(), id = uuid_new();
    char text[UUID_TEXT_BYTES], sql[512];
    uuid_format(id, text);
    snprintf(sql, sizeof sql,
             "INSERT INTO invocations (id, tenant, agent, version, api_key, priority, timeout_ms, "
             "queue_timeout_ms, "
             "max_attempts, retry_on, prompt_bytes) VALUES ('%s', %d, gen_random_uuid(), 1, "
             "gen_random_uuid(), 1, 1, "
             "1, 1, 0, 0) RETURNING 1::int8",
             text, TENANT);
    ask(sql);
    struct end one = end_of(id, 1, boot), two = end_of(id, 2, boot), usage = end_of(id, 3, boot);
    two.o.state = INV_FAILED;
    usage.o.what = OUTCOME_USAGE_ONLY;
    usage.o.cost = (struct inv_cost){.has_input = true, .input_tokens = 5, .has_cost = true, .cost_usd = 0.1};
    for (int again = 0; again < 3; again++) {
        settle(s, &one);
        run();
        settle(s, &one);
        settle(s, &two);
        settle(s, &usage);
        run();
    }
    assert_int_equal(ask("SELECT sum(succeeded)::int8 FROM usage_deltas"), 1);
    assert_int_equal(ask("SELECT sum(failed)::int8 FROM usage_deltas"), 0);
    assert_int_equal(ask("SELECT sum(attempts)::int8 FROM usage_deltas"), 3);
    assert_int_equal(ask("SELECT sum(run_ms)::int8 FROM usage_deltas"), 21);
    assert_int_equal(ask("SELECT sum(input_tokens)::int8 FROM usage_deltas"), 5);
    assert_int_equal(ask("SELECT count(*) FROM usage_deltas WHERE cost_usd IN (0, 0.1)"), 2);
    assert_int_equal(ask("SELECT count(*) FROM usage_deltas"), 2); /* one for each group that had news */
    settler_free(&s);
    pg_close(&pg);
    empty();
}

static struct end retry_of(struct uuid id, int attempt, struct uuid boot)
{
    struct end e = end_of(id, attempt, boot);
    e.o.what = OUTCOME_RETRY;
    e.o.not_before = wall_now();
    e.o.reason = STR("failed");
    return e;
}

static void a_retry_is_allocated_once(void **state)
{
    (void)state;
    struct pg *pa = open_pg(1), *pb = open_pg(1);
    struct settler *a = settler_new(loop, pa, pa, on_settled, NULL, 1 << 20);
    struct settler *b = settler_new(loop, pb, pb, on_settled, NULL, 1 << 20);
    struct uuid boot_a = uuid_new(), boot_b = uuid_new(), id = uuid_new();
    struct end x = retry_of(id, 1, boot_a), y = retry_of(id, 1, boot_b);
    settle(a, &x);
    settle(b, &y);
    run();
    assert_int_equal(x.o.won + y.o.won, 1);
    assert_int_equal(ask("SELECT count(*) FROM attempts WHERE attempt = 2"), 1);
    assert_int_equal(ask("SELECT count(*) FROM attempts"), 1);
    struct end done = end_of(id, 2, boot_a), late = retry_of(id, 2, boot_b);
    settle(a, &done);
    run();
    assert_true(done.o.won);
    settle(b, &late); /* ended: nothing is allocated any more */
    run();
    assert_false(late.o.won);
    assert_int_equal(ask("SELECT count(*) FROM attempts"), 1);
    settler_free(&a);
    settler_free(&b);
    pg_close(&pa);
    pg_close(&pb);
    empty();
}

static void settling_through_losses(void **state)
{
    (void)state;
    static struct end ends[ROWS];
    struct pg *pg = open_pg(1);
    struct settler *s = settler_new(loop, pg, pg, on_settled, NULL, 1 << 20);
    struct uuid boot = uuid_new();
    block_commits();
    for (int i = 0; i < ROWS; i++) {
        ends[i] = end_of(uuid_new(), 1, boot);
        if (i == 20)
            ends[i].o.signal = STR("\xc3("); /* refused */
        settle(s, &ends[i]);
    }
    for (int round = 0; round < 2; round++) {
        until_blocked(1);
        ask("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'test' "
            "AND pid <> pg_backend_pid() AND wait_event = 'advisory'");
    }
    until_blocked(1);
    ask("SELECT 1::int8 FROM pg_advisory_unlock(42)");
    all_done();
    for (int i = 0; i < ROWS; i++) {
        assert_int_equal(ends[i].err.code, i == 20 ? ERR_PG_DATA : ERR_NONE);
        assert_int_equal(ends[i].o.won, i != 20);
    }
    assert_int_equal(ask("SELECT count(*) FROM results"), ROWS - 1);
    assert_int_equal(ask("SELECT count(*) FROM usage"), ROWS - 1);
    ask("SELECT 1::int8 FROM pg_advisory_lock(42)");
    unblock_commits();
    settler_free(&s);
    pg_close(&pg);
    empty();
}

/* ---- sweeps ---- */

static struct sweep_row swept;
static size_t swept_n;

static void on_swept(void *arg, const struct sweep_row *rows, size_t n, const struct err *err)
{
    (void)arg;
    assert_null(err);
    swept_n = n;
    if (n > 0)
        swept = rows[0];
    loop_stop(loop);
}

/* Attempts that we lost are not the caller's. */
static void sweeps_count_the_callers_attempts(void **state)
{
    (void)state;
    struct job j;
    struct store st = open_store();
    fill(&j, STR("p"));
    put(&st, &j, 10000);
    run();
    struct uuid boot = uuid_new(), id = j.sub.row.key;
    struct pg *pg = open_pg(1);
    struct settler *s = settler_new(loop, pg, pg, on_settled, NULL, 1 << 20);
    static const struct str reasons[] = {STR("failed"), STR("executor_lost"), STR("provider_failed"),
                                         STR("run_timeout")};
    for (int i = 0; i < 4; i++) {
        struct end e = retry_of(id, i + 1, boot);
        e.o.reason = reasons[i];
        settle(s, &e);
        run();
        assert_true(e.o.won);
    }
    assert_int_equal(sweep_ids(ctl, &id, 1, 5000, on_swept, NULL), 0);
    run();
    assert_int_equal(swept_n, 1);
    assert_int_equal(swept.job.attempt, 5);
    assert_int_equal(swept.job.own, 2);
    assert_false(swept.ended);
    settler_free(&s);
    pg_close(&pg);
    close_store(&st);
    empty();
}

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    loop = loop_new();
    agent = uuid_new();
    api_key = uuid_new();
    if (loop == NULL || !pg_fixture_init(&server))
        return -1;
    snprintf(url, sizeof url, "%s&options=-c%%20synchronous_commit%%3Don", server.url);
    ctl = pg_open(loop, &(struct pg_options){.url = url, .max_inflight = 1, .on_state = on_state}, NULL);
    run();
    return ctl != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    pg_close(&ctl);
    pg_fixture_deinit(&server);
    loop_free(&loop);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(migrations_twice_and_at_once),
        cmocka_unit_test(a_poison_row_fails_alone),
        cmocka_unit_test(many_poison_rows),
        cmocka_unit_test(large_and_small_prompts),
        cmocka_unit_test(terminated_backends),
        cmocka_unit_test(lost_replies),
        cmocka_unit_test(a_crash_in_between),
        cmocka_unit_test(database_away),
        cmocka_unit_test(too_much_waits),
        cmocka_unit_test(equal_keys_at_once),
        cmocka_unit_test(keys_are_a_tenants_own),
        cmocka_unit_test(expired_keys_are_taken_over),
        cmocka_unit_test(keyed_poison_and_lost_reply),
        cmocka_unit_test(first_writer_wins),
        cmocka_unit_test(two_attempts_in_one_group),
        cmocka_unit_test(sums_count_what_is_new),
        cmocka_unit_test(a_retry_is_allocated_once),
        cmocka_unit_test(settling_through_losses),
        cmocka_unit_test(sweeps_count_the_callers_attempts),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
