/* postgres: types, errors, order, loss and recovery, deadlines, detaching; against a private real server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "pg_fixture.h"
#include "postgres/pg.h"

static struct pg_fixture server;
static struct loop *loop;

/* What one callback brought. */
struct answer {
    int fired;
    int order; /* which it was among all */
    int rows;
    int64_t affected, value;
    struct err err;
    char sqlstate[6];
    struct pg *pg;
    int *waiting; /* stops the loop at zero */
    pg_done_fn *also;
};

static int order;

static void on_done(void *arg, const struct pg_result *r, const struct err *err)
{
    struct answer *a = arg;
    a->fired++;
    a->order = ++order;
    if (err != NULL)
        a->err = *err;
    if (a->pg != NULL)
        str_copy(str_of(pg_sqlstate(a->pg)), a->sqlstate, sizeof a->sqlstate);
    if (r != NULL) {
        a->rows = pg_rows(r);
        a->affected = pg_affected(r);
        if (a->also != NULL)
            a->also(a, r, err);
    }
    if (a->waiting != NULL && --*a->waiting == 0)
        loop_stop(loop);
}

static void read_int8(void *arg, const struct pg_result *r, const struct err *err)
{
    (void)err;
    struct answer *a = arg;
    if (pg_rows(r) > 0)
        a->value = pg_get_int8(r, 0, 0);
}

static void too_late(void *arg)
{
    (void)arg;
    fail_msg("the test waited too long");
}

/* Runs the loop until something stops it. */
static void run(void)
{
    struct loop_timer *guard = loop_timer_new(loop, too_late, NULL);
    loop_timer_start(guard, 20000);
    loop_run(loop);
    loop_timer_free(&guard);
}

struct watch {
    int ups, downs;
    bool stop_on_up, stop_on_down;
    struct pg **query_on_up;
    struct answer *first;
};

static void on_state(void *arg, bool connected)
{
    struct watch *w = arg;
    connected ? w->ups++ : w->downs++;
    if (connected && w->query_on_up != NULL)
        assert_non_null(pg_query(*w->query_on_up, "SELECT 0::int8", NULL, 5000, on_done, w->first, NULL));
    if ((connected && w->stop_on_up) || (!connected && w->stop_on_down))
        loop_stop(loop);
}

static struct pg *open_with(struct watch *w, int max_inflight)
{
    struct pg_options o = {.url = server.url,
                           .application = "test",
                           .max_inflight = max_inflight,
                           .on_state = on_state,
                           .arg = w};
    struct pg *pg = pg_open(loop, &o, NULL);
    assert_non_null(pg);
    w->stop_on_up = true;
    run();
    w->stop_on_up = false;
    assert_true(pg_connected(pg));
    return pg;
}

static void ask(struct pg *pg, struct answer *a, const char *sql, const struct pg_params *p)
{
    int waiting = 1;
    *a = (struct answer){.pg = pg, .waiting = &waiting, .also = a->also};
    assert_non_null(pg_query(pg, sql, p, 10000, on_done, a, NULL));
    run();
    a->waiting = NULL;
    assert_int_equal(a->fired, 1);
}

static void script(struct pg *pg, struct answer *a, const char *sql)
{
    int waiting = 1;
    *a = (struct answer){.pg = pg, .waiting = &waiting};
    assert_non_null(pg_script(pg, str_of(sql), 10000, on_done, a, NULL));
    run();
    a->waiting = NULL;
    assert_int_equal(a->fired, 1);
}

static void check_types(void *arg, const struct pg_result *r, const struct err *err)
{
    (void)arg, (void)err;
    struct uuid id = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};
    assert_true(pg_get_bool(r, 0, 0));
    assert_int_equal(pg_get_int2(r, 0, 1), -32768);
    assert_int_equal(pg_get_int4(r, 0, 2), -5);
    assert_true(pg_get_int8(r, 0, 3) == INT64_MIN);
    assert_true(pg_get_float8(r, 0, 4) > 2.49 && pg_get_float8(r, 0, 4) < 2.51);
    assert_true(str_eq(pg_get_str(r, 0, 5), STR("h\xc3\xa9")));
    assert_true(str_eq(pg_get_str(r, 0, 6), STR("\0\xff\1")));
    assert_true(uuid_eq(pg_get_uuid(r, 0, 7), id));
    assert_true(pg_get_time(r, 0, 8).us == 1700000000123456);
    assert_true(pg_is_null(r, 0, 9));
    assert_int_equal(pg_get_str(r, 0, 9).n, 0);
    assert_true(str_eq(pg_get_str(r, 0, 10), STR("2023-11-14 22:13:20.123456")));
    assert_true(str_eq(pg_get_str(r, 0, 11), STR("{\"a\": 1}")));
    assert_int_equal(pg_get_str(r, 0, 12).n, 0);
    assert_false(pg_is_null(r, 0, 12));
}

static void types_round_trip(void **state)
{
    (void)state;
    struct watch w = {0};
    struct pg *pg = open_with(&w, 0);
    struct pg_params *p = pg_params_new(1 << 16);
    pg_put_bool(p, true);
    pg_put_int2(p, -32768);
    pg_put_int4(p, -5);
    pg_put_int8(p, INT64_MIN);
    pg_put_float8(p, 2.5);
    pg_put_text(p, STR("h\xc3\xa9"));
    pg_put_bytea(p, STR("\0\xff\1"));
    pg_put_uuid(p, (struct uuid){{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}});
    pg_put_time(p, (wall_t){.us = 1700000000123456});
    pg_put_null(p, PG_TEXT);
    pg_put_text(p, STR(""));
    struct answer a = {.also = check_types};
    ask(pg, &a,
        "SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, ($9 at time zone 'utc')::text, '{\"a\":1}'::jsonb, "
        "$11",
        p);
    assert_int_equal(a.err.code, ERR_NONE);
    assert_int_equal(a.rows, 1);
    pg_params_free(&p);
    pg_close(&pg);
    assert_null(pg);
}

static void check_arrays(void *arg, const struct pg_result *r, const struct err *err)
{
    (void)arg, (void)err;
    assert_int_equal(pg_get_int8(r, 0, 0), 1);
    assert_true(str_eq(pg_get_str(r, 0, 1), STR("one")));
    assert_true(pg_is_null(r, 1, 1));
    assert_true(str_eq(pg_get_str(r, 1, 2), STR("\0")));
    assert_true(pg_get_bool(r, 1, 3));
    assert_int_equal(pg_get_int4(r, 0, 4), 0);
}

static void arrays_unnest(void **state)
{
    (void)state;
    struct watch w = {0};
    struct pg *pg = open_with(&w, 0);
    struct pg_params *p = pg_params_new(1 << 16);
    pg_array_begin(p, PG_INT8);
    pg_put_int8(p, 1);
    pg_put_int8(p, 2);
    pg_array_end(p);
    pg_array_begin(p, PG_TEXT);
    pg_put_text(p, STR("one"));
    pg_put_null(p, PG_TEXT);
    pg_array_end(p);
    pg_array_begin(p, PG_BYTEA);
    pg_put_bytea(p, STR(""));
    pg_put_bytea(p, STR("\0"));
    pg_array_end(p);
    pg_array_begin(p, PG_BOOL);
    pg_put_bool(p, false);
    pg_put_bool(p, true);
    pg_array_end(p);
    pg_array_begin(p, PG_UUID);
    pg_array_end(p);
    struct answer a = {.also = check_arrays};
    ask(pg, &a, "SELECT i, t, b, f, cardinality($5) FROM unnest($1, $2, $3, $4) AS x(i, t, b, f) ORDER BY i",
        p);
    assert_string_equal(a.err.msg, "");
    assert_int_equal(a.rows, 2);
    pg_params_free(&p);
    pg_close(&pg);
}

static void params_are_capped(void **state)
{
    (void)state;
    struct watch w = {0};
    struct pg *pg = open_with(&w, 0);
    struct pg_params *p = pg_params_new(16);
    struct err err;
    pg_put_text(p, STR("more than sixteen bytes"));
    assert_null(pg_query(pg, "SELECT $1", p, 1000, on_done, NULL, &err));
    assert_int_equal(err.code, ERR_LIMIT);
    pg_params_clear(p);
    pg_put_int8(p, 77);
    struct answer a = {.also = read_int8};
    ask(pg, &a, "SELECT $1", p);
    assert_int_equal(a.value, 77);
    pg_params_free(&p);
    pg_close(&pg);
}

static void errors_are_classed(void **state)
{
    (void)state;
    struct watch w = {0};
    struct pg *pg = open_with(&w, 0);
    struct answer a = {0};
    ask(pg, &a, "SELECT 1/0", NULL);
    assert_int_equal(a.err.code, ERR_PG_DATA);
    assert_string_equal(a.sqlstate, "22012");
    struct pg_params *p = pg_params_new(64);
    pg_put_text(p, STR("\xff"));
    ask(pg, &a, "SELECT $1", p);
    assert_string_equal(a.sqlstate, "22021");
    pg_params_free(&p);
    script(pg, &a, "CREATE TABLE u (id int8 PRIMARY KEY); INSERT INTO u VALUES (1)");
    assert_int_equal(a.err.code, ERR_NONE);
    ask(pg, &a, "INSERT INTO u VALUES (1)", NULL);
    assert_int_equal(a.err.code, ERR_PG_DATA);
    assert_string_equal(a.sqlstate, "23505");
    ask(pg, &a, "INSERT INTO u SELECT generate_series(2, 4)", NULL);
    assert_int_equal(a.affected, 3);
    for (int i = 0; i < 2; i++) { /* a failed Parse is tried anew */
        ask(pg, &a, "SELECT nonsense FROM nowhere", NULL);
        assert_int_equal(a.err.code, ERR_PG);
        assert_string_equal(a.sqlstate, "42P01");
    }
    assert_string_equal(pg_sqlstate(pg), "");
    assert_int_equal(w.downs, 0);
    pg_close(&pg);
}

static void a_failing_commit_is_an_error(void **state)
{
    (void)state;
    struct watch w = {0};
    struct pg *pg = open_with(&w, 0);
    struct answer a = {0};
    script(pg, &a,
           "CREATE TABLE d (id int8 PRIMARY KEY, ref int8 REFERENCES d (id) DEFERRABLE INITIALLY DEFERRED)");
    ask(pg, &a, "INSERT INTO d VALUES (1, 99)", NULL);
    assert_int_equal(a.err.code, ERR_PG_DATA);
    assert_string_equal(a.sqlstate, "23503");
    ask(pg, &a, "INSERT INTO d VALUES (1, 1)", NULL);
    assert_int_equal(a.err.code, ERR_NONE);
    pg_close(&pg);
}

enum { MANY = 500 };

static void pipelined_in_order(void **state)
{
    (void)state;
    struct watch w = {0};
    struct pg *pg = open_with(&w, 8);
    static struct answer answers[MANY];
    int waiting = MANY, base = order;
    struct pg_params *p = pg_params_new(64);
    for (int i = 0; i < MANY; i++) {
        answers[i] = (struct answer){.waiting = &waiting, .also = read_int8};
        pg_params_clear(p);
        pg_put_int8(p, i % 7 == 3 ? 0 : i + 1);
        assert_non_null(pg_query(pg, "SELECT $1 * ($1 / $1)", p, 10000, on_done, &answers[i], NULL));
        assert_int_equal(answers[i].fired, 0);
    }
    assert_int_equal(pg_queue_length(pg), MANY);
    run();
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(answers[i].fired, 1);
        assert_int_equal(answers[i].order, base + i + 1);
        assert_int_equal(answers[i].err.code, i % 7 == 3 ? ERR_PG_DATA : ERR_NONE);
        assert_int_equal(answers[i].value, i % 7 == 3 ? 0 : i + 1);
    }
    assert_int_equal(pg_queue_length(pg), 0);
    pg_params_free(&p);
    pg_close(&pg);
}

static void scripts_between_statements(void **state)
{
    (void)state;
    struct watch w = {0};
    struct pg *pg = open_with(&w, 8);
    struct answer a = {.also = read_int8}, b = a, c = a, d = a, e = a;
    int waiting = 5, base = order;
    a.waiting = b.waiting = c.waiting = d.waiting = e.waiting = &waiting;
    pg_query(pg, "SELECT 1::int8", NULL, 5000, on_done, &a, NULL);
    pg_script(pg, STR("CREATE TABLE s (i int8); INSERT INTO s VALUES (41); UPDATE s SET i = i + 1"), 5000,
              on_done, &b, NULL);
    pg_query(pg, "SELECT i FROM s", NULL, 5000, on_done, &c, NULL);
    pg_script(pg, STR("INSERT INTO s VALUES (1); SELECT 1/0; INSERT INTO s VALUES (2)"), 5000, on_done, &d,
              NULL);
    pg_query(pg, "SELECT count(*) FROM s", NULL, 5000, on_done, &e, NULL);
    run();
    assert_int_equal(b.order, base + 2);
    assert_int_equal(b.err.code, ERR_NONE);
    assert_int_equal(c.value, 42);
    assert_int_equal(d.err.code, ERR_PG_DATA);
    assert_int_equal(e.value, 1);
    script(pg, &d, "BEGIN; SELECT 1/0");
    assert_int_equal(d.err.code, ERR_PG_DATA);
    ask(pg, &e, "SELECT 1::int8", NULL); /* on a new connection, outside the broken transaction */
    assert_int_equal(e.err.code, ERR_NONE);
    pg_close(&pg);
}

static void settings_of_the_session(void **state)
{
    (void)state;
    struct watch w = {0};
    struct pg *pg = open_with(&w, 0);
    struct answer a = {.also = read_int8};
    ask(pg, &a,
        "SELECT count(*) FROM pg_settings WHERE (name, setting) IN (('statement_timeout', '30000'), "
        "('lock_timeout', '10000'), "
        "('idle_in_transaction_session_timeout', '30000'), ('client_encoding', 'UTF8'), ('application_name', "
        "'test'))",
        NULL);
    assert_int_equal(a.value, 5);
    pg_close(&pg);
}

/* The form of a prepared statement's result changes under it: one failure, then it is prepared anew. */
static void a_changed_plan(void **state)
{
    (void)state;
    struct watch w = {0};
    struct pg *pg = open_with(&w, 0);
    static const char sql[] = "SELECT * FROM plan";
    struct answer a = {0};
    script(pg, &a, "CREATE TABLE plan (i int8)");
    ask(pg, &a, sql, NULL);
    assert_int_equal(a.err.code, ERR_NONE);
    script(pg, &a, "ALTER TABLE plan ADD COLUMN t text");
    ask(pg, &a, sql, NULL);
    assert_string_equal(a.sqlstate, "0A000");
    ask(pg, &a, sql, NULL);
    assert_int_equal(a.err.code, ERR_NONE);
    pg_close(&pg);
}

static void a_terminated_backend(void **state)
{
    (void)state;
    struct watch w = {0}, other_w = {0};
    struct pg *pg = open_with(&w, 1), *other = open_with(&other_w, 1);
    struct answer sent = {0}, queued = {.also = read_int8}, a = {0};
    int waiting = 2;
    sent.waiting = queued.waiting = &waiting;
    struct pg_params *p = pg_params_new(64);
    pg_put_int4(p, pg_backend_pid(pg));
    pg_query(pg, "SELECT pg_sleep(30)", NULL, 15000, on_done, &sent, NULL);
    pg_query(pg, "SELECT 3::int8", NULL, 15000, on_done, &queued, NULL);
    pg_query(other, "SELECT pg_terminate_backend($1)", p, 5000, on_done, &a, NULL);
    run();
    assert_int_equal(sent.err.code, ERR_OUTCOME_UNKNOWN);
    assert_int_equal(queued.value, 3);
    assert_int_equal(w.downs, 1);
    assert_int_equal(w.ups, 2);
    pg_params_free(&p);
    pg_close(&pg);
    pg_close(&other);
}

static void a_killed_server(void **state)
{
    (void)state;
    struct watch w = {0};
    struct pg *pg = open_with(&w, 2);
    struct answer sent[2] = {{0}}, queued = {.also = read_int8}, first = {.also = read_int8};
    int waiting = 3;
    for (int i = 0; i < 2; i++) {
        sent[i].waiting = &waiting;
        pg_query(pg, "SELECT pg_sleep(30)", NULL, 20000, on_done, &sent[i], NULL);
    }
    queued.waiting = &waiting;
    pg_query(pg, "SELECT 7::int8", NULL, 15000, on_done, &queued, NULL);
    w.stop_on_down = true;
    pg_fixture_stop(&server, SIGQUIT);
    run();
    assert_int_equal(sent[0].err.code, ERR_OUTCOME_UNKNOWN);
    assert_int_equal(sent[1].err.code, ERR_OUTCOME_UNKNOWN);
    assert_int_equal(queued.fired, 0);
    assert_false(pg_connected(pg));
    assert_int_equal(pg_backend_pid(pg), 0);
    w.query_on_up = &pg;
    w.first = &first;
    assert_true(pg_fixture_start(&server));
    run();
    assert_int_equal(queued.err.code, ERR_NONE);
    assert_int_equal(queued.value, 7);
    assert_int_equal(first.fired, 1);
    assert_true(first.order < queued.order); /* what on_state asked went ahead */
    assert_int_equal(w.downs, 1);
    assert_int_equal(w.ups, 2);
    assert_true(pg_backend_pid(pg) > 0);
    pg_close(&pg);
}

static void deadlines(void **state)
{
    (void)state;
    struct watch w = {0};
    struct pg *pg = open_with(&w, 1);
    struct answer stuck = {0}, short_queued = {0}, long_queued = {.also = read_int8};
    int waiting = 3;
    stuck.waiting = short_queued.waiting = long_queued.waiting = &waiting;
    mono_t t = mono_now();
    pg_query(pg, "SELECT pg_sleep(30)", NULL, 200, on_done, &stuck, NULL);
    pg_query(pg, "SELECT 1", NULL, 50, on_done, &short_queued, NULL);
    pg_query(pg, "SELECT 5::int8", NULL, 10000, on_done, &long_queued, NULL);
    run();
    assert_int_equal(short_queued.err.code, ERR_TIMEOUT);
    assert_int_equal(stuck.err.code, ERR_OUTCOME_UNKNOWN);
    assert_int_equal(long_queued.err.code, ERR_NONE);
    assert_int_equal(long_queued.value, 5);
    assert_true(short_queued.order < stuck.order && stuck.order < long_queued.order);
    assert_true(mono_ms_between(t, mono_now()) < 5000);
    pg_close(&pg);
}

static void detaching(void **state)
{
    (void)state;
    struct watch w = {0};
    struct pg *pg = open_with(&w, 1);
    struct answer a = {0}, b = {0}, c = {0};
    int waiting = 1;
    c.waiting = &waiting;
    struct pg_request *ra = pg_query(pg, "SELECT pg_sleep(0.05)", NULL, 5000, on_done, &a, NULL);
    struct pg_request *rb = pg_query(pg, "SELECT 2", NULL, 5000, on_done, &b, NULL);
    pg_query(pg, "SELECT 3", NULL, 5000, on_done, &c, NULL);
    pg_cancel(&ra);
    pg_cancel(&rb);
    pg_cancel(&rb);
    assert_null(ra);
    assert_int_equal(pg_queue_length(pg), 2);
    run();
    assert_int_equal(a.fired + b.fired, 0);
    assert_int_equal(c.fired, 1);
    pg_close(&pg);
}

static void close_inside(void *arg, const struct pg_result *r, const struct err *err)
{
    (void)r, (void)err;
    pg_close(arg);
    loop_stop(loop);
}

static void closing(void **state)
{
    (void)state;
    struct watch w = {0};
    struct answer never = {0};
    struct pg *pg = open_with(&w, 2);
    pg_query(pg, "SELECT 1", NULL, 5000, close_inside, &pg, NULL); /* closes from its own callback */
    for (int i = 0; i < 5; i++)
        pg_query(pg, "SELECT 2", NULL, 5000, on_done, &never, NULL);
    run();
    assert_null(pg);
    assert_int_equal(never.fired, 0);
    pg_close(&pg);
    pg_close(NULL);
}

static void refusals(void **state)
{
    (void)state;
    struct err err;
    struct pg_options bad = {.url = "postgresql://user:hidden@host:port:port/%zz"};
    assert_null(pg_open(loop, &bad, &err));
    assert_int_equal(err.code, ERR_CONFIG);
    assert_null(strstr(err.msg, "hidden"));
    struct pg_options nowhere = {.url = "postgresql://test@/postgres?host=/nonexistent", .max_queued = 1};
    struct pg *pg = pg_open(loop, &nowhere, &err);
    struct answer a = {0};
    int waiting = 1;
    a.waiting = &waiting;
    assert_non_null(pg_query(pg, "SELECT 1", NULL, 300, on_done, &a, &err));
    assert_null(pg_query(pg, "SELECT 1", NULL, 300, on_done, &a, &err));
    assert_int_equal(err.code, ERR_OVERLOADED);
    run();
    assert_int_equal(a.err.code, ERR_TIMEOUT);
    assert_non_null(strstr(a.err.msg, "/nonexistent")); /* says why */
    pg_close(&pg);
}

static void large_values(void **state)
{
    (void)state;
    struct watch w = {0};
    struct pg *pg = open_with(&w, 4);
    size_t n = 8 << 20;
    char *big = calloc(1, n);
    struct pg_params *p = pg_params_new(n + 100);
    pg_put_bytea(p, str_make(big, n));
    static struct answer answers[6];
    int waiting = 6;
    for (int i = 0; i < 6; i++) { /* more than the sockets hold, both ways */
        answers[i] = (struct answer){.waiting = &waiting};
        assert_non_null(pg_query(pg, "SELECT $1 || $1", p, 20000, on_done, &answers[i], NULL));
    }
    run();
    for (int i = 0; i < 6; i++)
        assert_int_equal(answers[i].rows, 1);
    free(big);
    pg_params_free(&p);
    pg_close(&pg);
}

/* ---- loads ---- */

struct source {
    struct answer a; /* first: the request's arg */
    int copy;        /* the one being given */
    int given, rows, fail_at;
    char piece[9000];
};

/* Rows "n\tpadding", many a piece; more than the sockets hold. */
static int give_rows(void *arg, int copy, struct str *piece_out)
{
    struct source *s = arg;
    size_t n = 0;
    if (copy != s->copy) {
        s->copy = copy;
        s->given = 0;
    }
    if (s->fail_at > 0 && s->given >= s->fail_at)
        return -1;
    while (s->given < s->rows && n < sizeof s->piece - 600)
        n += (size_t)snprintf(s->piece + n, sizeof s->piece - n, "%d\t%0500d\n", s->given++, 0);
    *piece_out = str_make(s->piece, n);
    return n > 0;
}

static const char load_sql[] =
    "INSERT INTO loaded VALUES (-1, ''); COPY loaded FROM STDIN; COPY loaded FROM STDIN;";

static struct answer load(struct pg *pg, struct source *s, const char *sql)
{
    int waiting = 1;
    s->a = (struct answer){.waiting = &waiting};
    assert_non_null(pg_load(pg, str_of(sql), give_rows, 20000, on_done, s, NULL));
    run();
    return s->a;
}

static int64_t count_loaded(struct pg *pg)
{
    struct answer a = {.also = read_int8};
    ask(pg, &a, "SELECT count(*) FROM loaded", NULL);
    return a.value;
}

static void loads(void **state)
{
    (void)state;
    struct watch w = {0};
    struct pg *pg = open_with(&w, 4);
    static struct source s;
    struct answer a = {0};
    int waiting = 1;
    a.waiting = &waiting;
    pg_script(pg, STR("DROP TABLE IF EXISTS loaded; CREATE TABLE loaded (n int CHECK (n < 50000), t text)"),
              5000, on_done, &a, NULL);
    run();
    s = (struct source){.rows = 20000};
    assert_int_equal(load(pg, &s, load_sql).err.code, ERR_NONE);
    assert_int_equal(count_loaded(pg), 40001);
    s = (struct source){.rows = 20000, .fail_at = 15000}; /* given up: nothing of it stays */
    assert_int_equal(load(pg, &s, load_sql).err.code, ERR_PG);
    assert_int_equal(count_loaded(pg), 40001);
    s = (struct source){.rows = 60000}; /* refused by the server on the way */
    assert_int_equal(load(pg, &s, load_sql).err.code, ERR_PG_DATA);
    assert_int_equal(count_loaded(pg), 40001);
    s = (struct source){.rows = 0};
    assert_int_equal(load(pg, &s, load_sql).err.code, ERR_NONE);
    assert_int_equal(count_loaded(pg), 40002);
    pg_close(&pg);
}

static int setup(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    loop = loop_new();
    return loop != NULL && pg_fixture_init(&server) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    pg_fixture_deinit(&server);
    loop_free(&loop);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_round_trip),
        cmocka_unit_test(arrays_unnest),
        cmocka_unit_test(params_are_capped),
        cmocka_unit_test(errors_are_classed),
        cmocka_unit_test(a_failing_commit_is_an_error),
        cmocka_unit_test(pipelined_in_order),
        cmocka_unit_test(scripts_between_statements),
        cmocka_unit_test(large_values),
        cmocka_unit_test(loads),
        cmocka_unit_test(deadlines),
        cmocka_unit_test(detaching),
        cmocka_unit_test(closing),
        cmocka_unit_test(refusals),
        cmocka_unit_test(settings_of_the_session),
        cmocka_unit_test(a_changed_plan),
        cmocka_unit_test(a_terminated_backend),
        cmocka_unit_test(a_killed_server),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
