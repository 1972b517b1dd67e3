/* Settling. The statement has three parameter groups (results, usage, attempts); a row may be in two of them.
 * What follows from a result (webhooks) is inserted from the rows that won, `r`; sums of usage from those and
 * from what was new of usage, `u`. */
#include "store/settle.h"

#include <stdlib.h>

#include "store/usage_sql.h"
#include "store/webhook_sql.h"

struct settler {
    struct loop *loop;
    struct writer *writer;
    settle_done_fn *done;
    void *arg;
};

/* What ended of batches: their ids tell themselves from others (base/id.h), so that other invocations cost
 * nothing here. */
#define SQL_BATCH_ENDED                                                                             \
    "e AS (INSERT INTO batch_ended (batch, id, status) SELECT i.batch, r.id, r.status "             \
    "FROM unnest($39::uuid[]) AS m (id) JOIN r ON r.id = m.id "                                     \
    "JOIN LATERAL (SELECT batch FROM invocations i WHERE i.id = m.id AND i.id BETWEEN $37 AND $38 " \
    "AND i.batch IS NOT NULL OFFSET 0) i ON true), "

#define SQL_SUMS USAGE_DELTAS_SQL(USAGE_OF_ENDS, "$37", "$38")

static const char sql[] =
    "WITH d AS (SELECT * FROM unnest($1::uuid[], $2::int4[], $3::int2[], $4::uuid[], $5::int2[], $6::int4[], "
    "$7::text[], $8::text[], $9::text[], $10::bytea[], $11::int8[], $12::bool[], $13::bytea[], $14::int8[], "
    "$15::bool[], $16::timestamptz[], $17::timestamptz[], $40::uuid[], $44::bool[], $45::int2[], "
    "$46::bool[]) AS d (id, tenant, "
    "attempt, boot, "
    "status, "
    "exit_code, "
    "signal, error_code, error_message, output, output_bytes, output_truncated, logs, logs_bytes, "
    "logs_truncated, "
    "started_at, finished_at, executor, output_redacted, artifacts, artifacts_truncated)), "
    "r AS (INSERT INTO results (id, tenant, attempt, boot, status, exit_code, signal, error_code, "
    "error_message, "
    "output, output_bytes, output_truncated, logs, logs_bytes, logs_truncated, started_at, finished_at, "
    "executor, output_redacted, artifacts, artifacts_truncated, counted) "
    "SELECT *, true FROM d ON CONFLICT (id) DO NOTHING RETURNING id, attempt, tenant, status, "
    "finished_at), " SQL_BATCH_ENDED WEBHOOK_OUTBOX_SQL(
        "$37", "$38") "u AS (INSERT INTO usage (id, attempt, tenant, agent, boot, sandbox, queue_ms, "
                      "sandbox_start_ms, run_ms, "
                      "sandbox_ms, cpu_ms, peak_memory_bytes, started_at, input_tokens, output_tokens, "
                      "cost_usd, ended_at) SELECT * FROM unnest($18::uuid[], "
                      "$19::int2[], "
                      "$20::int4[], "
                      "$21::uuid[], $22::uuid[], $23::text[], $24::int8[], $25::int8[], $26::int8[], "
                      "$27::int8[], $28::int8[], "
                      "$29::int8[], $41::timestamptz[], $47::int8[], $48::int8[], $49::float8[], "
                      "$50::timestamptz[]) ON CONFLICT "
                      "(id, attempt) DO NOTHING RETURNING id, attempt, tenant, ended_at, sandbox_ms, run_ms, "
                      "cpu_ms, "
                      "input_tokens, output_tokens, cost_usd), " SQL_SUMS
                      "n AS (SELECT * FROM unnest($30::uuid[], $31::int2[], $32::int4[], "
                      "$33::timestamptz[], "
                      "$34::text[], "
                      "$35::int2[], "
                      "$36::int2[], $42::uuid[], $43::timestamptz[]) AS n (id, attempt, tenant, "
                      "not_before, "
                      "reason, reruns, blames, executor, ended_at)), "
                      "a AS (INSERT INTO attempts (id, attempt, tenant, not_before, reason, "
                      "reruns, blames, "
                      "executor, ended_at) "
                      "SELECT * FROM n WHERE NOT EXISTS (SELECT FROM results x WHERE x.id = n.id "
                      "AND x.id "
                      "BETWEEN $37 AND $38) "
                      "ON CONFLICT (id, attempt) DO NOTHING RETURNING id, attempt) "
                      "SELECT d.id, d.attempt, r.id IS NOT NULL OR EXISTS (SELECT FROM results x "
                      "WHERE x.id = "
                      "d.id AND "
                      "x.attempt = d.attempt AND x.boot = d.boot AND x.id BETWEEN $37 AND $38), "
                      "EXISTS (SELECT "
                      "FROM w) "
                      "FROM d LEFT JOIN r ON r.id = d.id AND r.attempt = d.attempt "
                      "UNION ALL SELECT n.id, (n.attempt - 1)::int2, a.id IS NOT NULL, false "
                      "FROM n LEFT JOIN a ON a.id = n.id AND a.attempt = n.attempt";

static struct outcome *outcome_of(struct writer_row *row)
{
    return (struct outcome *)row; /* row is the first member */
}

static void put_text_or_null(struct pg_params *p, struct str s)
{
    if (s.n > 0)
        pg_put_text(p, s);
    else
        pg_put_null(p, PG_TEXT);
}

static void put_time_or_null(struct pg_params *p, wall_t t)
{
    if (t.us != 0)
        pg_put_time(p, t);
    else
        pg_put_null(p, PG_TIMESTAMPTZ);
}

static void put_count_or_null(struct pg_params *p, int64_t v)
{
    if (v >= 0)
        pg_put_int8(p, v);
    else
        pg_put_null(p, PG_INT8);
}

static void put_bytes_unless(struct pg_params *p, bool elsewhere, struct str s)
{
    if (elsewhere)
        pg_put_null(p, PG_BYTEA);
    else
        pg_put_bytea(p, s);
}

static void put_executor(struct pg_params *p, const struct outcome *o, bool wanted)
{
    if (wanted && !uuid_is_zero(o->executor))
        pg_put_uuid(p, o->executor);
    else
        pg_put_null(p, PG_UUID);
}

static void put_cost(struct pg_params *p, const struct outcome *o)
{
    if (o->cost.has_cost)
        pg_put_float8(p, o->cost.cost_usd);
    else
        pg_put_null(p, PG_FLOAT8);
}

static void put_exit_code(struct pg_params *p, const struct outcome *o)
{
    if (o->has_exit_code)
        pg_put_int4(p, o->exit_code);
    else
        pg_put_null(p, PG_INT4);
}

/* One array over the rows for which `when` holds. */
#define COLUMN(type, when, put)                            \
    do {                                                   \
        pg_array_begin(p, type);                           \
        for (size_t i = 0; i < n; i++) {                   \
            const struct outcome *o = outcome_of(rows[i]); \
            if (when)                                      \
                put;                                       \
        }                                                  \
        pg_array_end(p);                                   \
    } while (0)

static void encode_results(struct pg_params *p, struct writer_row *const *rows, size_t n)
{
#define RESULT(type, put) COLUMN(type, o->what == OUTCOME_RESULT, put)
    RESULT(PG_UUID, pg_put_uuid(p, o->row.key));
    RESULT(PG_INT4, pg_put_int4(p, o->tenant));
    RESULT(PG_INT2, pg_put_int2(p, o->attempt));
    RESULT(PG_UUID, pg_put_uuid(p, o->boot));
    RESULT(PG_INT2, pg_put_int2(p, (int16_t)o->state));
    RESULT(PG_INT4, put_exit_code(p, o));
    RESULT(PG_TEXT, put_text_or_null(p, o->signal));
    RESULT(PG_TEXT, put_text_or_null(p, str_of(o->error != ERR_NONE ? err_code_name(o->error) : NULL)));
    RESULT(PG_TEXT, put_text_or_null(p, o->error_message));
    RESULT(PG_BYTEA, put_bytes_unless(p, o->output_in_blobs, o->output));
    RESULT(PG_INT8, pg_put_int8(p, o->output_bytes));
    RESULT(PG_BOOL, pg_put_bool(p, o->output_truncated));
    RESULT(PG_BYTEA, put_bytes_unless(p, o->logs_in_blobs, o->logs));
    RESULT(PG_INT8, pg_put_int8(p, o->logs_bytes));
    RESULT(PG_BOOL, pg_put_bool(p, o->logs_truncated));
    RESULT(PG_TIMESTAMPTZ, put_time_or_null(p, o->started_at));
    RESULT(PG_TIMESTAMPTZ, pg_put_time(p, o->finished_at));
#undef RESULT
}

static void encode_usage(struct pg_params *p, struct writer_row *const *rows, size_t n)
{
#define USAGE(type, put) COLUMN(type, o->has_usage, put)
    USAGE(PG_UUID, pg_put_uuid(p, o->row.key));
    USAGE(PG_INT2, pg_put_int2(p, o->attempt));
    USAGE(PG_INT4, pg_put_int4(p, o->tenant));
    USAGE(PG_UUID, pg_put_uuid(p, o->agent));
    USAGE(PG_UUID, pg_put_uuid(p, uuid_is_zero(o->executor) ? o->boot : o->executor));
    USAGE(PG_TEXT, pg_put_text(p, o->sandbox));
    USAGE(PG_INT8, pg_put_int8(p, o->queue_ms));
    USAGE(PG_INT8, pg_put_int8(p, o->sandbox_start_ms));
    USAGE(PG_INT8, pg_put_int8(p, o->run_ms));
    USAGE(PG_INT8, pg_put_int8(p, o->sandbox_ms));
    USAGE(PG_INT8, put_count_or_null(p, o->cpu_ms));
    USAGE(PG_INT8, put_count_or_null(p, o->peak_memory_bytes));
#undef USAGE
}

static void encode_attempts(struct pg_params *p, struct writer_row *const *rows, size_t n)
{
#define NEXT(type, put) COLUMN(type, o->what == OUTCOME_RETRY, put)
    NEXT(PG_UUID, pg_put_uuid(p, o->row.key));
    NEXT(PG_INT2, pg_put_int2(p, (int16_t)(o->attempt + 1)));
    NEXT(PG_INT4, pg_put_int4(p, o->tenant));
    NEXT(PG_TIMESTAMPTZ, pg_put_time(p, o->not_before));
    NEXT(PG_TEXT, pg_put_text(p, o->reason));
    NEXT(PG_INT2, pg_put_int2(p, o->reruns));
    NEXT(PG_INT2, pg_put_int2(p, o->blames));
#undef NEXT
}

static void encode_cost(struct pg_params *p, struct writer_row *const *rows, size_t n)
{
    COLUMN(PG_INT8, o->has_usage, put_count_or_null(p, o->cost.has_input ? o->cost.input_tokens : -1));
    COLUMN(PG_INT8, o->has_usage, put_count_or_null(p, o->cost.has_output ? o->cost.output_tokens : -1));
    COLUMN(PG_FLOAT8, o->has_usage, put_cost(p, o));
}

static void encode(struct pg_params *p, struct writer_row *const *rows, size_t n, bool large)
{
    (void)large;
    encode_results(p, rows, n);
    encode_usage(p, rows, n);
    encode_attempts(p, rows, n);
    pg_put_uuid(p, rows[0]->key); /* the group is sorted: its bounds, for pruning partitions */
    pg_put_uuid(p, rows[n - 1]->key);
    COLUMN(PG_UUID, o->what == OUTCOME_RESULT && uuid_in_series(o->row.key), pg_put_uuid(p, o->row.key));
    COLUMN(PG_UUID, o->what == OUTCOME_RESULT, put_executor(p, o, !o->has_usage)); /* else its usage has it */
    COLUMN(PG_TIMESTAMPTZ, o->has_usage, put_time_or_null(p, o->started_at));
    COLUMN(PG_UUID, o->what == OUTCOME_RETRY, put_executor(p, o, true));
    COLUMN(PG_TIMESTAMPTZ, o->what == OUTCOME_RETRY, pg_put_time(p, o->finished_at));
    COLUMN(PG_BOOL, o->what == OUTCOME_RESULT,
           o->output_redacted ? pg_put_bool(p, true) : pg_put_null(p, PG_BOOL));
    COLUMN(PG_INT2, o->what == OUTCOME_RESULT, pg_put_int2(p, o->artifacts));
    COLUMN(PG_BOOL, o->what == OUTCOME_RESULT, pg_put_bool(p, o->artifacts_truncated));
    encode_cost(p, rows, n);
    COLUMN(PG_TIMESTAMPTZ, o->has_usage, pg_put_time(p, o->finished_at));
}

/* The answer's rows in any order; the group is sorted by id. */
static void apply(struct writer_row *const *rows, size_t n, const struct pg_result *result)
{
    for (size_t i = 0; i < n; i++)
        outcome_of(rows[i])->won = outcome_of(rows[i])->hooked = false;
    for (int r = 0; r < pg_rows(result); r++) {
        struct uuid id = pg_get_uuid(result, r, 0);
        size_t lo = 0, hi = n;
        while (lo < hi) {
            size_t mid = (lo + hi) / 2;
            if (uuid_cmp(rows[mid]->key, id) < 0)
                lo = mid + 1;
            else
                hi = mid;
        }
        for (size_t i = lo; pg_get_bool(result, r, 2) && i < n && uuid_eq(rows[i]->key, id); i++) {
            struct outcome *o = outcome_of(rows[i]);
            if (o->attempt == pg_get_int2(result, r, 1)) {
                o->hooked = pg_get_bool(result, r, 3);
                o->won = o->what != OUTCOME_USAGE_ONLY;
            }
        }
    }
}

static void group_done(void *arg, struct writer_row *row, const struct err *err)
{
    struct settler *s = arg;
    s->done(s->arg, outcome_of(row), err);
}

static const struct writer_ops ops = {
    .sql = sql, .sql_large = sql, .encode = encode, .apply = apply, .done = group_done};

struct settler *settler_new(struct loop *loop, struct pg *small, struct pg *large, settle_done_fn *done,
                            void *arg, size_t max_bytes)
{
    struct settler *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    *s = (struct settler){.loop = loop, .done = done, .arg = arg};
    s->writer = writer_new(loop, small, large, &ops, s, max_bytes);
    if (s->writer == NULL)
        settler_free(&s);
    return s;
}

void settler_free(struct settler **s)
{
    if (s == NULL || *s == NULL)
        return;
    writer_free(&(*s)->writer);
    free(*s);
    *s = NULL;
}

int settle_put(struct settler *s, struct outcome *o, int64_t deadline_ms, struct err *err)
{
    o->row.deadline = mono_add_ms(loop_now(s->loop), deadline_ms);
    o->row.bytes = o->output.n + o->logs.n + o->error_message.n + 320;
    return writer_put(s->writer, &o->row, err);
}

size_t settle_waiting(const struct settler *s)
{
    return writer_rows(s->writer);
}

size_t settle_waiting_bytes(const struct settler *s)
{
    return writer_bytes(s->writer);
}
