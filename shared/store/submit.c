/* Accepting invocations. */
#include "store/submit.h"

#include <stdlib.h>

#include "base/failpoint.h"

struct submitter {
    struct loop *loop;
    struct writer *writer;
    struct pg *keyed;
    struct pg_params *params;
    submit_done_fn *done;
    void *arg;
    size_t keyed_bytes, max_bytes; /* of keyed submissions under way; what each kind may take */
};

#define INVOCATION_COLUMNS                                                                                  \
    "id, tenant, agent, version, api_key, priority, timeout_ms, queue_timeout_ms, max_attempts, retry_on, " \
    "prompt, "                                                                                              \
    "prompt_bytes, metadata, traceparent"
#define INVOCATION_ARRAYS                                                                         \
    "unnest($1::uuid[], $2::int4[], $3::uuid[], $4::int4[], $5::uuid[], $6::int2[], $7::int4[], " \
    "$8::int8[], "                                                                                \
    "$9::int2[], $10::int2[], $11::bytea[], $12::int4[], $13::text[], $14::text[]"

static const char sql_small[] = "INSERT INTO invocations (" INVOCATION_COLUMNS
                                ") SELECT * FROM " INVOCATION_ARRAYS ") ON CONFLICT (id) DO NOTHING";

/* Large prompts (given, or copied from the invocation that is repeated), hooks and later starts in the same
 * statement, so that they and the row are one commit. Plain submissions go by the statement above and pay for
 * none of them. */
#define CHUNKS_GIVEN                                                                                     \
    "b AS (INSERT INTO blobs (id, kind, attempt, chunk, data) "                                          \
    "SELECT id, 1, 0, chunk, data FROM unnest($15::uuid[], $16::int4[], $17::bytea[]) AS c (id, chunk, " \
    "data)"
/* The bounds of the copied ones' ids let the executor leave all partitions alone but theirs. */
#define CHUNKS_COPIED                                                                                     \
    " UNION ALL SELECT c.id, 1, 0, o.chunk, o.data FROM unnest($28::uuid[], $29::uuid[]) AS c (id, old) " \
    "JOIN LATERAL (SELECT chunk, data FROM blobs WHERE id = c.old AND kind = 1 AND attempt = 0 AND "      \
    "id BETWEEN $30 AND $31 OFFSET 0) o ON true"
#define CHUNKS_END " ON CONFLICT DO NOTHING), "
#define HOOK_ARRAYS "unnest($18::uuid[], $19::int4[], $20::text[], $21::int8[], $22::text[], $23::bytea[])"
/* Attempt 1 has a row only when it is to begin later: dispatchers look for due rows. */
#define START_INSERT                                                                                   \
    "s AS (INSERT INTO attempts (id, attempt, tenant, not_before, reason, reruns, blames) "            \
    "SELECT id, 1::int2, tenant, not_before, 'not_before', 0::int2, 0::int2 FROM unnest($24::uuid[], " \
    "$25::int4[], $26::timestamptz[]) AS s (id, tenant, not_before)"
/* Environments, sealed. */
#define ENV_INSERT                                                   \
    "v AS (INSERT INTO invocation_env (id, tenant, key_id, sealed) " \
    "SELECT * FROM unnest($32::uuid[], $33::int4[], $34::text[], $35::bytea[])"
static const char sql_large[] =
    "WITH " CHUNKS_GIVEN CHUNKS_COPIED CHUNKS_END "h AS (INSERT INTO webhook_hooks (" WEBHOOK_HOOK_COLUMNS
    ") SELECT * FROM " HOOK_ARRAYS " ON CONFLICT DO NOTHING), " START_INSERT
    " ON CONFLICT DO NOTHING), " ENV_INSERT " ON CONFLICT DO NOTHING) "
    "INSERT INTO invocations (" INVOCATION_COLUMNS ", retry_of, env, files) SELECT * FROM " INVOCATION_ARRAYS
    ", $27::uuid[], $36::bool[], $37::uuid[]) ON CONFLICT (id) DO NOTHING";

static const struct submission *sub_of(const struct writer_row *row)
{
    return (const struct submission *)row; /* row is the first member */
}

int32_t submission_prompt_bytes(const struct submission *s)
{
    return s->prompt_copied > 0 ? s->prompt_copied : (int32_t)s->prompt.n;
}

static bool prompt_inline(const struct submission *s)
{
    return submission_prompt_bytes(s) <= INV_INLINE_BYTES;
}

static void put_chunks(struct pg_params *p, struct writer_row *const *rows, size_t n)
{
    for (int column = 0; column < 3; column++) {
        pg_array_begin(p, column == 0 ? PG_UUID : column == 1 ? PG_INT4 : PG_BYTEA);
        for (size_t i = 0; i < n; i++) {
            const struct submission *s = sub_of(rows[i]);
            if (prompt_inline(s))
                continue;
            int32_t chunk = 0;
            for (size_t at = 0; at < s->prompt.n; at += INV_CHUNK_BYTES, chunk++) {
                size_t left = s->prompt.n - at;
                if (column == 0)
                    pg_put_uuid(p, s->row.key);
                else if (column == 1)
                    pg_put_int4(p, chunk);
                else
                    pg_put_bytea(p,
                                 str_make(s->prompt.p + at, left < INV_CHUNK_BYTES ? left : INV_CHUNK_BYTES));
            }
        }
        pg_array_end(p);
    }
}

static void put_prompt(struct pg_params *p, const struct submission *s)
{
    if (prompt_inline(s))
        pg_put_bytea(p, s->prompt);
    else
        pg_put_null(p, PG_BYTEA);
}

static void put_metadata(struct pg_params *p, const struct submission *s)
{
    if (s->metadata.n > 0)
        pg_put_text(p, s->metadata);
    else
        pg_put_null(p, PG_TEXT);
}

/* One array over the rows for which `when` holds. */
#define COLUMN_OF(type, when, put)                        \
    do {                                                  \
        pg_array_begin(p, type);                          \
        for (size_t i = 0; i < n; i++) {                  \
            const struct submission *s = sub_of(rows[i]); \
            if (when)                                     \
                put;                                      \
        }                                                 \
        pg_array_end(p);                                  \
    } while (0)
#define COLUMN(type, put) COLUMN_OF(type, true, put)
#define HOOK(type, put) COLUMN_OF(type, s->hook != NULL, put)
#define START(type, put) COLUMN_OF(type, s->not_before.us != 0, put)

static void put_hooks(struct pg_params *p, struct writer_row *const *rows, size_t n)
{
    HOOK(PG_UUID, pg_put_uuid(p, s->row.key));
    HOOK(PG_INT4, pg_put_int4(p, s->tenant));
    HOOK(PG_TEXT, pg_put_text(p, s->hook->url));
    HOOK(PG_INT8, pg_put_int8(p, s->hook->lane));
    HOOK(PG_TEXT, pg_put_text(p, str_of(s->hook->secret.key_id)));
    HOOK(PG_BYTEA, pg_put_bytea(p, webhook_sealed_view(&s->hook->secret)));
}

static void put_starts(struct pg_params *p, struct writer_row *const *rows, size_t n)
{
    START(PG_UUID, pg_put_uuid(p, s->row.key));
    START(PG_INT4, pg_put_int4(p, s->tenant));
    START(PG_TIMESTAMPTZ, pg_put_time(p, s->not_before));
}

static void put_retries(struct pg_params *p, struct writer_row *const *rows, size_t n)
{
    COLUMN(PG_UUID, pg_put_uuid_or_null(p, s->retry_of));
    COLUMN_OF(PG_UUID, s->prompt_copied > 0, pg_put_uuid(p, s->row.key));
    COLUMN_OF(PG_UUID, s->prompt_copied > 0, pg_put_uuid(p, s->retry_of));
    struct uuid low = {0}, high = {0};
    for (size_t i = 0; i < n; i++) {
        const struct submission *s = sub_of(rows[i]);
        if (s->prompt_copied > 0 && (uuid_is_zero(low) || uuid_cmp(s->retry_of, low) < 0))
            low = s->retry_of;
        if (s->prompt_copied > 0 && uuid_cmp(s->retry_of, high) > 0)
            high = s->retry_of;
    }
    pg_put_uuid(p, low);
    pg_put_uuid(p, high);
}

#define ENV(type, put) COLUMN_OF(type, s->env.n > 0, put)

static void put_environments(struct pg_params *p, struct writer_row *const *rows, size_t n)
{
    ENV(PG_UUID, pg_put_uuid(p, s->row.key));
    ENV(PG_INT4, pg_put_int4(p, s->tenant));
    ENV(PG_TEXT, pg_put_text(p, s->env_key));
    ENV(PG_BYTEA, pg_put_bytea(p, s->env));
    COLUMN(PG_BOOL, s->env.n > 0 ? pg_put_bool(p, true) : pg_put_null(p, PG_BOOL));
}

static void put_trace(struct pg_params *p, const struct submission *s)
{
    char text[TRACEPARENT_TEXT_BYTES];
    traceparent_format(&s->trace, text);
    if (s->trace.present)
        pg_put_text(p, str_of(text));
    else
        pg_put_null(p, PG_TEXT);
}

static void encode(struct pg_params *p, struct writer_row *const *rows, size_t n, bool large)
{
    COLUMN(PG_UUID, pg_put_uuid(p, s->row.key));
    COLUMN(PG_INT4, pg_put_int4(p, s->tenant));
    COLUMN(PG_UUID, pg_put_uuid(p, s->agent));
    COLUMN(PG_INT4, pg_put_int4(p, s->version));
    COLUMN(PG_UUID, pg_put_uuid(p, s->api_key));
    COLUMN(PG_INT2, pg_put_int2(p, (int16_t)s->priority));
    COLUMN(PG_INT4, pg_put_int4(p, s->timeout_ms));
    COLUMN(PG_INT8, pg_put_int8(p, s->queue_timeout_ms));
    COLUMN(PG_INT2, pg_put_int2(p, s->max_attempts));
    COLUMN(PG_INT2, pg_put_int2(p, s->retry_on));
    COLUMN(PG_BYTEA, put_prompt(p, s));
    COLUMN(PG_INT4, pg_put_int4(p, submission_prompt_bytes(s)));
    COLUMN(PG_TEXT, put_metadata(p, s));
    COLUMN(PG_TEXT, put_trace(p, s));
    if (!large)
        return;
    put_chunks(p, rows, n);
    put_hooks(p, rows, n);
    put_starts(p, rows, n);
    put_retries(p, rows, n);
    put_environments(p, rows, n);
    COLUMN(PG_UUID, pg_put_uuid_or_null(p, s->files));
}

static void group_done(void *arg, struct writer_row *row, const struct err *err)
{
    struct submitter *s = arg;
    s->done(s->arg, (struct submission *)row, err);
}

static const struct writer_ops ops = {
    .sql = sql_small, .sql_large = sql_large, .encode = encode, .done = group_done};

struct submitter *submitter_new(struct loop *loop, struct pg *small, struct pg *large, struct pg *keyed,
                                submit_done_fn *done, void *arg, size_t max_bytes)
{
    struct submitter *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    *s = (struct submitter){.loop = loop, .keyed = keyed, .done = done, .arg = arg, .max_bytes = max_bytes};
    s->writer = writer_new(loop, small, large, &ops, s, max_bytes);
    s->params = pg_params_new(2 * INV_PROMPT_MAX_BYTES);
    if (s->writer == NULL || s->params == NULL)
        submitter_free(&s);
    return s;
}

void submitter_free(struct submitter **s)
{
    if (s == NULL || *s == NULL)
        return;
    writer_free(&(*s)->writer);
    pg_params_free(&(*s)->params);
    free(*s);
    *s = NULL;
}

/* ---- idempotent submissions: claim the key, insert, and read back who has it, in one statement ----
 *
 * A key past its expiry is taken over. When the key is somebody's, the first part returns no row and nothing
 * is inserted; the second statement, queued right behind on the same connection, reads the owner. Sending
 * both again after a lost reply is harmless: the read finds our own id. */

#define ONLY_OURS " WHERE EXISTS (SELECT FROM k)"
static const char sql_keyed[] =
    "WITH k AS (INSERT INTO idempotency AS o (tenant, key, fingerprint, invocation, expires_at) "
    "SELECT t, $38, $39, i, now() + interval '24 hours' FROM unnest($1::uuid[], $2::int4[]) AS x (i, t) "
    "ON CONFLICT (tenant, key) DO UPDATE SET fingerprint = excluded.fingerprint, invocation = "
    "excluded.invocation, "
    "expires_at = excluded.expires_at WHERE o.expires_at < now() RETURNING invocation), " CHUNKS_GIVEN
        ONLY_OURS CHUNKS_COPIED ONLY_OURS CHUNKS_END "h AS (INSERT INTO webhook_hooks (" WEBHOOK_HOOK_COLUMNS
    ") SELECT * FROM " HOOK_ARRAYS ONLY_OURS " ON CONFLICT DO NOTHING), " START_INSERT ONLY_OURS
    " ON CONFLICT DO NOTHING), " ENV_INSERT ONLY_OURS
    " ON CONFLICT DO NOTHING) INSERT INTO invocations (" INVOCATION_COLUMNS
    ", retry_of, env, files) SELECT * FROM " INVOCATION_ARRAYS
    ", $27::uuid[], $36::bool[], $37::uuid[])" ONLY_OURS " ON CONFLICT (id) DO NOTHING";

static const char sql_key_owner[] =
    "SELECT invocation, fingerprint FROM idempotency WHERE tenant = $1 AND key = $2";

struct keyed {
    struct submitter *s;
    struct submission *sub;
    struct loop_timer *again;
    bool sent;
};

static void keyed_try(void *arg);

static void keyed_end(struct keyed *k, const struct err *err)
{
    struct submitter *s = k->s;
    struct submission *sub = k->sub;
    s->keyed_bytes -= sub->row.bytes;
    loop_timer_free(&k->again);
    free(k);
    s->done(s->arg, sub, err);
}

/* Down or not known: again in a moment, until the deadline. */
static void keyed_retry(struct keyed *k)
{
    if (mono_before(loop_now(k->s->loop), k->sub->row.deadline)) {
        loop_timer_start(k->again, 100);
        return;
    }
    struct err err;
    if (k->sent)
        err_set(&err, ERR_OUTCOME_UNKNOWN, "the database did not confirm the commit in time");
    else
        err_set(&err, ERR_UNAVAILABLE, "the database is not available");
    keyed_end(k, &err);
}

static void keyed_owner(void *arg, const struct pg_result *r, const struct err *err)
{
    struct keyed *k = arg;
    if (err != NULL || pg_rows(r) == 0) { /* no row: the insert before it failed */
        keyed_retry(k);
        return;
    }
    struct uuid owner = pg_get_uuid(r, 0, 0);
    struct str print = str_make((const char *)k->sub->fingerprint, sizeof k->sub->fingerprint);
    if (uuid_eq(owner, k->sub->row.key)) {
        keyed_end(k, NULL);
        return;
    }
    struct err mismatch;
    bool same = str_eq(pg_get_str(r, 0, 1), print);
    k->sub->row.key = owner;
    k->sub->replayed = same;
    if (!same)
        err_set(&mismatch, ERR_IDEMPOTENCY_MISMATCH, "the Idempotency-Key was used with another request");
    keyed_end(k, same ? NULL : &mismatch);
}

static void keyed_inserted(void *arg, const struct pg_result *r, const struct err *err)
{
    (void)r;
    struct keyed *k = arg;
    k->sent = k->sent || err == NULL || err->code != ERR_TIMEOUT;
    if (err != NULL && err->code == ERR_PG_DATA) {
        keyed_end(k, err);
        return;
    }
    if (err != NULL) {
        keyed_retry(k);
        return;
    }
    FAILPOINT(gateway_key_done);
    pg_params_clear(k->s->params);
    pg_put_int4(k->s->params, k->sub->tenant);
    pg_put_text(k->s->params, k->sub->idempotency_key);
    if (pg_query(k->s->keyed, sql_key_owner, k->s->params, 2000, keyed_owner, k, NULL) == NULL)
        keyed_retry(k);
}

static void keyed_try(void *arg)
{
    struct keyed *k = arg;
    struct pg_params *p = k->s->params;
    struct writer_row *row = &k->sub->row;
    pg_params_clear(p);
    encode(p, &row, 1, true);
    pg_put_text(p, k->sub->idempotency_key);
    pg_put_bytea(p, str_make((const char *)k->sub->fingerprint, sizeof k->sub->fingerprint));
    FAILPOINT(gateway_key_begin);
    if (pg_query(k->s->keyed, sql_keyed, p, 5000, keyed_inserted, k, NULL) == NULL)
        keyed_retry(k);
}

static int keyed_put(struct submitter *s, struct submission *sub, struct err *err)
{
    if (s->keyed_bytes > 0 && s->keyed_bytes + sub->row.bytes > s->max_bytes)
        return err_set(err, ERR_OVERLOADED, "too much waits to be written (%zu bytes)", s->keyed_bytes);
    struct keyed *k = calloc(1, sizeof *k);
    if (k != NULL)
        *k = (struct keyed){.s = s, .sub = sub, .again = loop_timer_new(s->loop, keyed_try, k)};
    if (k == NULL || k->again == NULL) {
        free(k);
        return err_set(err, ERR_NO_MEMORY, "no memory for a submission");
    }
    s->keyed_bytes += sub->row.bytes;
    loop_timer_start(k->again, 0);
    return 0;
}

int submit_put(struct submitter *s, struct submission *sub, int64_t deadline_ms, struct err *err)
{
    sub->row.key = uuid_new();
    sub->row.deadline = mono_add_ms(loop_now(s->loop), deadline_ms);
    sub->row.bytes = (size_t)submission_prompt_bytes(sub) + sub->metadata.n + 160 +
                     (sub->hook != NULL ? sub->hook->url.n + 200 : 0) + sub->env.n;
    sub->row.is_large = sub->hook != NULL || sub->env.n > 0 || sub->not_before.us != 0 ||
                        !uuid_is_zero(sub->retry_of) || !uuid_is_zero(sub->files);
    sub->replayed = false;
    if (sub->idempotency_key.n > 0)
        return keyed_put(s, sub, err);
    return writer_put(s->writer, &sub->row, err);
}
