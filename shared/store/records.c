/* Reading invocations back.
 *
 * The look-ups are LATERAL subqueries fenced with OFFSET 0: one index probe an id in the one partition that
 * can hold it, whatever the planner believes of the sizes of partitions that it has no statistics for. The
 * bounds $3 and $4 (the least and the greatest id) let the executor drop all other partitions before it
 * prepares them: of a dozen partitions in each of six places, that is most of what a small query costs.
 *
 * An only attempt is told by the result and the usage at hand; more of them need the sub-select. */
#include "store/records.h"

#include <stdlib.h>

#include "store/call.h"
#include "store/record_attempts.h"

#define COLUMNS(prompt)                                                    \
    "i.id, i.tenant, g.slug, i.version, i.priority, i.timeout_ms, " prompt \
    ", i.prompt_bytes, i.metadata, i.batch, i.custom_id, i.traceparent, i.retry_of"
#define RESULT_COLUMNS(output, logs)                                                     \
    "r.status, r.attempt, r.exit_code, r.signal, r.error_code, r.error_message, " output \
    ", r.output_bytes, r.output_truncated, " logs                                        \
    ", r.logs_bytes, r.logs_truncated, r.started_at, r.finished_at, coalesce(r.output_redacted, false)"
#define USAGE_COLUMNS                                                                         \
    "u.queue_ms, u.sandbox_start_ms, u.run_ms, u.sandbox_ms, u.cpu_ms, u.peak_memory_bytes, " \
    "u.sandbox, coalesce(u.boot, r.executor), u.input_tokens, u.output_tokens, u.cost_usd"

#define FROM_INVOCATIONS                                                                       \
    " FROM unnest($1::uuid[], $2::int4[]) AS w (id, tenant) "                                  \
    "JOIN LATERAL (SELECT * FROM invocations i WHERE i.id = w.id AND i.tenant = w.tenant AND " \
    "i.id BETWEEN $3 AND $4 OFFSET 0) i ON true "
#define JOIN_RESULTS                                                                                  \
    "JOIN LATERAL (SELECT * FROM results r WHERE r.id = w.id AND r.id BETWEEN $3 AND $4 OFFSET 0) r " \
    "ON true "
#define JOIN_REST                                                                               \
    "LEFT JOIN LATERAL (SELECT attempt, not_before FROM attempts a WHERE a.id = w.id AND "      \
    "a.id BETWEEN $3 AND $4 ORDER BY attempt DESC LIMIT 1) a ON true "                          \
    "LEFT JOIN LATERAL (SELECT * FROM usage u WHERE u.id = w.id AND u.attempt = r.attempt AND " \
    "u.id BETWEEN $3 AND $4 OFFSET 0) u ON true "                                               \
    "JOIN LATERAL (SELECT name AS slug FROM agents g WHERE g.id = i.agent OFFSET 0) g ON true"

#define CANCELED "EXISTS (SELECT FROM cancels c WHERE c.id = i.id AND c.id BETWEEN $3 AND $4)"
#define FILES                                                                    \
    "CASE WHEN i.files IS NOT NULL THEN sandpiper_files(i.files, 0::int2) END, " \
    "CASE WHEN r.artifacts > 0 THEN sandpiper_files(i.id, r.attempt) END"
#define NO_FILES "NULL::text, NULL::text"
#define SELECT(prompt, canceled, output, logs, files)                                     \
    "SELECT " COLUMNS(prompt) ", " canceled ", a.attempt, a.not_before, " RESULT_COLUMNS( \
        output, logs) ", " USAGE_COLUMNS ", " RECORD_ATTEMPTS_SQL                         \
                      ", coalesce(r.artifacts_truncated, false), " files FROM_INVOCATIONS

static const char sql_records[] =
    SELECT("i.prompt", CANCELED, "r.output", "r.logs", FILES) "LEFT " JOIN_RESULTS JOIN_REST;
static const char sql_brief[] =
    SELECT("NULL::bytea", CANCELED, "NULL::bytea", "NULL::bytea", NO_FILES) "LEFT " JOIN_RESULTS JOIN_REST;
/* For results of batches: what the caller sent is not sent back. */
static const char sql_results[] =
    SELECT("NULL::bytea", "false", "r.output", "NULL::bytea", FILES) JOIN_RESULTS JOIN_REST;
/* Of those that have ended, with small outputs only. */
static const char sql_event[] =
    SELECT("NULL::bytea", "false", "CASE WHEN r.output_bytes <= 8192 THEN r.output END", "NULL::bytea", FILES)
        JOIN_RESULTS JOIN_REST;
/* Of those that have ended: nothing is being canceled any more. */
static const char sql_ended[] =
    SELECT("i.prompt", "false", "r.output", "r.logs", FILES) JOIN_RESULTS JOIN_REST;
static const char sql_which_ended[] =
    "SELECT w.id FROM unnest($1::uuid[], $2::int4[]) AS w (id, tenant) "
    "JOIN LATERAL (SELECT tenant FROM results r WHERE r.id = w.id AND r.id BETWEEN $3 AND $4 OFFSET 0) r "
    "ON r.tenant = w.tenant";

enum column {
    C_ID,
    C_TENANT,
    C_SLUG,
    C_VERSION,
    C_PRIORITY,
    C_TIMEOUT,
    C_PROMPT,
    C_PROMPT_BYTES,
    C_METADATA,
    C_BATCH,
    C_CUSTOM_ID,
    C_TRACEPARENT,
    C_RETRY_OF,
    C_CANCEL,
    C_ATTEMPT,
    C_NOT_BEFORE,
    C_STATUS,
    C_RESULT_ATTEMPT,
    C_EXIT_CODE,
    C_SIGNAL,
    C_ERROR_CODE,
    C_ERROR_MESSAGE,
    C_OUTPUT,
    C_OUTPUT_BYTES,
    C_OUTPUT_TRUNCATED,
    C_LOGS,
    C_LOGS_BYTES,
    C_LOGS_TRUNCATED,
    C_STARTED,
    C_FINISHED,
    C_REDACTED,
    C_QUEUE_MS,
    C_START_MS,
    C_RUN_MS,
    C_SANDBOX_MS,
    C_CPU_MS,
    C_PEAK,
    C_SANDBOX,
    C_EXECUTOR,
    C_INPUT_TOKENS,
    C_OUTPUT_TOKENS,
    C_COST,
    C_ATTEMPTS,
    C_ARTIFACTS_TRUNCATED,
    C_FILES,
    C_ARTIFACTS,
};

static int64_t count_or_minus(const struct pg_result *r, int row, int col)
{
    return pg_is_null(r, row, col) ? -1 : pg_get_int8(r, row, col);
}

static void read_result(const struct pg_result *r, int row, struct record *out)
{
    out->state = (enum inv_state)pg_get_int2(r, row, C_STATUS);
    out->result_attempt = pg_get_int2(r, row, C_RESULT_ATTEMPT);
    out->has_exit_code = !pg_is_null(r, row, C_EXIT_CODE);
    out->exit_code = pg_get_int4(r, row, C_EXIT_CODE);
    out->signal = pg_get_str(r, row, C_SIGNAL);
    out->error_code = pg_get_str(r, row, C_ERROR_CODE);
    out->error_message = pg_get_str(r, row, C_ERROR_MESSAGE);
    out->output = pg_get_str(r, row, C_OUTPUT);
    out->output_inline = !pg_is_null(r, row, C_OUTPUT);
    out->output_bytes = pg_get_int8(r, row, C_OUTPUT_BYTES);
    out->output_truncated = pg_get_bool(r, row, C_OUTPUT_TRUNCATED);
    out->output_redacted = pg_get_bool(r, row, C_REDACTED);
    out->logs = pg_get_str(r, row, C_LOGS);
    out->logs_inline = !pg_is_null(r, row, C_LOGS);
    out->logs_bytes = pg_get_int8(r, row, C_LOGS_BYTES);
    out->logs_truncated = pg_get_bool(r, row, C_LOGS_TRUNCATED);
    out->started_at = pg_get_time(r, row, C_STARTED);
    out->finished_at = pg_get_time(r, row, C_FINISHED);
    out->artifacts = pg_get_str(r, row, C_ARTIFACTS);
    out->artifacts_truncated = pg_get_bool(r, row, C_ARTIFACTS_TRUNCATED);
}

static void read_usage(const struct pg_result *r, int row, struct record *out)
{
    out->has_usage = !pg_is_null(r, row, C_QUEUE_MS);
    out->queue_ms = count_or_minus(r, row, C_QUEUE_MS);
    out->sandbox_start_ms = count_or_minus(r, row, C_START_MS);
    out->run_ms = count_or_minus(r, row, C_RUN_MS);
    out->sandbox_ms = count_or_minus(r, row, C_SANDBOX_MS);
    out->cpu_ms = count_or_minus(r, row, C_CPU_MS);
    out->peak_memory_bytes = count_or_minus(r, row, C_PEAK);
    out->input_tokens = count_or_minus(r, row, C_INPUT_TOKENS);
    out->output_tokens = count_or_minus(r, row, C_OUTPUT_TOKENS);
    out->cost_usd = pg_is_null(r, row, C_COST) ? -1 : pg_get_float8(r, row, C_COST);
    out->sandbox = pg_get_str(r, row, C_SANDBOX);
    out->executor = pg_get_uuid(r, row, C_EXECUTOR);
}

static void read_record(const struct pg_result *r, int row, struct record *out)
{
    *out = (struct record){.id = pg_get_uuid(r, row, C_ID),
                           .tenant = pg_get_int4(r, row, C_TENANT),
                           .agent = pg_get_str(r, row, C_SLUG),
                           .version = pg_get_int4(r, row, C_VERSION),
                           .priority = (enum inv_priority)pg_get_int2(r, row, C_PRIORITY),
                           .timeout_ms = pg_get_int4(r, row, C_TIMEOUT),
                           .prompt = pg_get_str(r, row, C_PROMPT),
                           .prompt_inline = !pg_is_null(r, row, C_PROMPT),
                           .prompt_bytes = pg_get_int4(r, row, C_PROMPT_BYTES),
                           .metadata = pg_get_str(r, row, C_METADATA),
                           .has_batch = !pg_is_null(r, row, C_BATCH),
                           .batch = pg_get_uuid(r, row, C_BATCH),
                           .custom_id = pg_get_str(r, row, C_CUSTOM_ID),
                           .traceparent = pg_get_str(r, row, C_TRACEPARENT),
                           .retry_of = pg_get_uuid(r, row, C_RETRY_OF),
                           .canceling = pg_get_bool(r, row, C_CANCEL),
                           .attempts = pg_get_str(r, row, C_ATTEMPTS),
                           .files = pg_get_str(r, row, C_FILES),
                           .attempt = 1};
    if (!pg_is_null(r, row, C_ATTEMPT)) {
        out->attempt = pg_get_int2(r, row, C_ATTEMPT);
        out->not_before = pg_get_time(r, row, C_NOT_BEFORE);
    }
    if (!pg_is_null(r, row, C_STATUS))
        read_result(r, row, out);
    read_usage(r, row, out);
}

static void reply_records(void *arg, const struct pg_result *result, const struct err *err)
{
    struct store_call *c = arg;
    records_fn *fn = (records_fn *)c->fn;
    size_t n = err == NULL ? (size_t)pg_rows(result) : 0;
    struct record *records = calloc(n + 1, sizeof *records);
    struct err none;
    if (records == NULL && err == NULL) {
        err_set(&none, ERR_NO_MEMORY, "no memory for records");
        err = &none;
    }
    for (size_t i = 0; err == NULL && i < n; i++)
        read_record(result, (int)i, &records[i]);
    fn(c->arg, records, err == NULL ? n : 0, err);
    free(records);
    free(c);
}

static void put_bounds(struct pg_params *p, const struct record_key *keys, size_t n)
{
    struct uuid low = keys[0].id, high = keys[0].id;
    for (size_t i = 1; i < n; i++) {
        if (uuid_cmp(keys[i].id, low) < 0)
            low = keys[i].id;
        if (uuid_cmp(keys[i].id, high) > 0)
            high = keys[i].id;
    }
    pg_put_uuid(p, low);
    pg_put_uuid(p, high);
}

static struct pg_params *key_params(const struct record_key *keys, size_t n)
{
    struct pg_params *p = pg_params_new(n * 64 + 256);
    if (p != NULL) {
        pg_array_begin(p, PG_UUID);
        for (size_t i = 0; i < n; i++)
            pg_put_uuid(p, keys[i].id);
        pg_array_end(p);
        pg_array_begin(p, PG_INT4);
        for (size_t i = 0; i < n; i++)
            pg_put_int4(p, keys[i].tenant);
        pg_array_end(p);
        put_bounds(p, keys, n);
    }
    return p;
}

static int get(struct pg *pg, const char *sql, const struct record_key *keys, size_t n, int64_t deadline_ms,
               records_fn *fn, void *arg, struct err *err)
{
    return store_query(pg, sql, key_params(keys, n), deadline_ms, reply_records, (void (*)(void))fn, arg,
                       err);
}

int records_get(struct pg *pg, const struct record_key *keys, size_t n, int64_t deadline_ms, records_fn *fn,
                void *arg, struct err *err)
{
    return get(pg, sql_records, keys, n, deadline_ms, fn, arg, err);
}

int records_get_brief(struct pg *pg, const struct record_key *keys, size_t n, int64_t deadline_ms,
                      records_fn *fn, void *arg, struct err *err)
{
    return get(pg, sql_brief, keys, n, deadline_ms, fn, arg, err);
}

int records_get_ended(struct pg *pg, const struct record_key *keys, size_t n, int64_t deadline_ms,
                      records_fn *fn, void *arg, struct err *err)
{
    return get(pg, sql_ended, keys, n, deadline_ms, fn, arg, err);
}

static void reply_which(void *arg, const struct pg_result *result, const struct err *err)
{
    struct store_call *c = arg;
    records_which_fn *fn = (records_which_fn *)c->fn;
    size_t n = err == NULL ? (size_t)pg_rows(result) : 0;
    struct uuid *ids = calloc(n + 1, sizeof *ids);
    struct err none;
    if (ids == NULL && err == NULL) {
        err_set(&none, ERR_NO_MEMORY, "no memory for ids");
        err = &none;
    }
    for (size_t i = 0; err == NULL && i < n; i++)
        ids[i] = pg_get_uuid(result, (int)i, 0);
    fn(c->arg, ids, err == NULL ? n : 0, err);
    free(ids);
    free(c);
}

int records_which_ended(struct pg *pg, const struct record_key *keys, size_t n, int64_t deadline_ms,
                        records_which_fn *fn, void *arg, struct err *err)
{
    return store_query(pg, sql_which_ended, key_params(keys, n), deadline_ms, reply_which, (void (*)(void))fn,
                       arg, err);
}

int records_get_results(struct pg *pg, const struct record_key *keys, size_t n, int64_t deadline_ms,
                        records_fn *fn, void *arg, struct err *err)
{
    return get(pg, sql_results, keys, n, deadline_ms, fn, arg, err);
}

int records_get_event(struct pg *pg, const struct record_key *keys, size_t n, int64_t deadline_ms,
                      records_fn *fn, void *arg, struct err *err)
{
    return get(pg, sql_event, keys, n, deadline_ms, fn, arg, err);
}

/* ---- blobs ---- */

static const char sql_blob_get[] =
    "SELECT data FROM blobs WHERE id = $1 AND kind = $2 AND attempt = $3 AND chunk = $4";
static const char sql_blob_put[] =
    "INSERT INTO blobs (id, kind, attempt, chunk, data) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";

static struct pg_params *blob_params(struct uuid id, enum blob_kind kind, int16_t attempt, int32_t chunk,
                                     size_t extra)
{
    struct pg_params *p = pg_params_new(extra + 256);
    if (p != NULL) {
        pg_put_uuid(p, id);
        pg_put_int2(p, (int16_t)kind);
        pg_put_int2(p, attempt);
        pg_put_int4(p, chunk);
    }
    return p;
}

static void reply_chunk(void *arg, const struct pg_result *result, const struct err *err)
{
    struct store_call *c = arg;
    bool found = err == NULL && pg_rows(result) == 1;
    ((blob_chunk_fn *)c->fn)(c->arg, found ? pg_get_str(result, 0, 0) : str_of(NULL), err);
    free(c);
}

int blob_get(struct pg *pg, struct uuid id, enum blob_kind kind, int16_t attempt, int32_t chunk,
             int64_t deadline_ms, blob_chunk_fn *fn, void *arg, struct err *err)
{
    return store_query(pg, sql_blob_get, blob_params(id, kind, attempt, chunk, 0), deadline_ms, reply_chunk,
                       (void (*)(void))fn, arg, err);
}

int blob_put(struct pg *pg, struct uuid id, enum blob_kind kind, int16_t attempt, int32_t chunk,
             struct str data, int64_t deadline_ms, blob_put_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = blob_params(id, kind, attempt, chunk, data.n);
    if (p != NULL)
        pg_put_bytea(p, data);
    return store_query(pg, sql_blob_put, p, deadline_ms, store_reply_done, (void (*)(void))fn, arg, err);
}

/* ---- cancels ---- */

static const char sql_cancel[] =
    "WITH i AS (SELECT id FROM invocations WHERE id = $1 AND tenant = $2), "
    "r AS (SELECT status FROM results WHERE id = $1 AND tenant = $2), "
    "c AS (INSERT INTO cancels (id, tenant) SELECT $1, $2 FROM i WHERE NOT EXISTS (SELECT FROM r) "
    "ON CONFLICT DO NOTHING) "
    "SELECT EXISTS (SELECT FROM i), coalesce((SELECT status FROM r), 0::int2)";

static void reply_cancel_put(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    ((cancel_put_fn *)c->fn)(c->arg, err == NULL && pg_get_bool(r, 0, 0),
                             err == NULL ? (enum inv_state)pg_get_int2(r, 0, 1) : INV_NONE, err);
    free(c);
}

int cancel_put(struct pg *pg, struct uuid id, int32_t tenant, int64_t deadline_ms, cancel_put_fn *fn,
               void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(256);
    if (p != NULL) {
        pg_put_uuid(p, id);
        pg_put_int4(p, tenant);
    }
    return store_query(pg, sql_cancel, p, deadline_ms, reply_cancel_put, (void (*)(void))fn, arg, err);
}
