/* Rows for COPY … (FORMAT binary): a count of columns, then for each its length and its bytes, all big-endian
 * (PostgreSQL's manual, "COPY", "Binary Format"). */
#include "store/batch_copy.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "store/call.h"

const struct str batch_copy_header = {.p = "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0", .n = 19};
const struct str batch_copy_trailer = {.p = "\377\377", .n = 2};

/* Columns that are filled in lead, so that they stand at the same place in every row. */
#define ITEM_COLUMNS                                                                               \
    "id, agent, version, timeout_ms, queue_timeout_ms, priority, max_attempts, retry_on, tenant, " \
    "api_key, batch, prompt_bytes, prompt, metadata, custom_id, traceparent"
#define BATCH_COLUMNS \
    "id, tenant, api_key, priority, max_concurrency, total, first, last, fed, low, metadata, delayed"
enum {
    ITEM_COLUMN_COUNT = 16,
    BATCH_COLUMN_COUNT = 12,
    CHUNK_COLUMN_COUNT = 5,
    HOOK_COLUMN_COUNT = 6,
    START_COLUMN_COUNT = 7,
    KEY_COLUMN_COUNT = 5
};
enum {
    AT_ID = 2 + 4,
    AT_AGENT = AT_ID + 16 + 4,
    AT_VERSION = AT_AGENT + 16 + 4,
    AT_TIMEOUT = AT_VERSION + 4 + 4,
    AT_QUEUE_TIMEOUT = AT_TIMEOUT + 4 + 4,
    AT_PRIORITY = AT_QUEUE_TIMEOUT + 8 + 4,
    AT_MAX_ATTEMPTS = AT_PRIORITY + 2 + 4,
    AT_RETRY_ON = AT_MAX_ATTEMPTS + 2 + 4,
};

#define POSTGRES_EPOCH_US INT64_C(946684800000000)

/* ---- columns ---- */

static void put_count(struct buf *out, int columns)
{
    uint16_t be = htobe16((uint16_t)columns);
    buf_append(out, &be, sizeof be);
}

static void put_column(struct buf *out, const void *bytes, size_t n)
{
    uint32_t be = htobe32((uint32_t)n);
    buf_append(out, &be, sizeof be);
    buf_append(out, bytes, n);
}

static void put_null(struct buf *out)
{
    buf_append(out, "\377\377\377\377", 4);
}

static void put_uuid(struct buf *out, struct uuid id)
{
    put_column(out, id.b, sizeof id.b);
}

static void put_int2(struct buf *out, int16_t v)
{
    uint16_t be = htobe16((uint16_t)v);
    put_column(out, &be, sizeof be);
}

static void put_int4(struct buf *out, int32_t v)
{
    uint32_t be = htobe32((uint32_t)v);
    put_column(out, &be, sizeof be);
}

static void put_int8(struct buf *out, int64_t v)
{
    uint64_t be = htobe64((uint64_t)v);
    put_column(out, &be, sizeof be);
}

static void put_text_or_null(struct buf *out, struct str s)
{
    if (s.n > 0)
        put_column(out, s.p, s.n);
    else
        put_null(out);
}

/* ---- rows ---- */

void batch_item_put(struct buf *out, const struct batch_item *item)
{
    const struct submission *sub = item->sub;
    static const struct uuid later;
    put_count(out, ITEM_COLUMN_COUNT);
    put_uuid(out, later);
    put_uuid(out, later);
    put_int4(out, 0);
    put_int4(out, sub->timeout_ms);
    put_int8(out, sub->queue_timeout_ms);
    put_int2(out, 0);
    put_int2(out, sub->max_attempts);
    put_int2(out, sub->retry_on);
    put_int4(out, item->tenant);
    put_uuid(out, item->api_key);
    put_uuid(out, item->batch);
    put_int4(out, (int32_t)sub->prompt.n);
    if (sub->prompt.n <= INV_INLINE_BYTES)
        put_column(out, sub->prompt.p, sub->prompt.n);
    else
        put_null(out);
    put_text_or_null(out, sub->metadata);
    put_text_or_null(out, item->custom_id);
    put_text_or_null(out, item->trace);
}

void batch_item_fill(char *row, const struct batch_item_late *late)
{
    uint32_t version = htobe32((uint32_t)late->version), timeout = htobe32((uint32_t)late->timeout_ms);
    uint16_t priority = htobe16((uint16_t)late->priority);
    uint16_t attempts = htobe16((uint16_t)late->max_attempts), on = htobe16((uint16_t)late->retry_on), stated;
    int64_t queue_timeout;
    memcpy(row + AT_ID, late->id.b, sizeof late->id.b);
    memcpy(row + AT_AGENT, late->agent.b, sizeof late->agent.b);
    memcpy(row + AT_VERSION, &version, sizeof version);
    memcpy(row + AT_PRIORITY, &priority, sizeof priority);
    if (late->timeout_ms != 0)
        memcpy(row + AT_TIMEOUT, &timeout, sizeof timeout);
    memcpy(&stated, row + AT_MAX_ATTEMPTS, sizeof stated);
    if (stated == 0) {
        memcpy(row + AT_MAX_ATTEMPTS, &attempts, sizeof attempts);
        memcpy(row + AT_RETRY_ON, &on, sizeof on);
    }
    if (late->queue_timeout_ms == 0)
        return;
    memcpy(&queue_timeout, row + AT_QUEUE_TIMEOUT, sizeof queue_timeout);
    queue_timeout = (int64_t)be64toh((uint64_t)queue_timeout) - INV_QUEUE_TIMEOUT_DEFAULT_MS;
    queue_timeout = (int64_t)htobe64((uint64_t)(queue_timeout + late->queue_timeout_ms));
    memcpy(row + AT_QUEUE_TIMEOUT, &queue_timeout, sizeof queue_timeout);
}

void batch_chunk_put(struct buf *out, int32_t chunk, struct str data)
{
    static const struct uuid later;
    put_count(out, CHUNK_COLUMN_COUNT);
    put_uuid(out, later);
    put_int2(out, 1); /* a prompt */
    put_int2(out, 0);
    put_int4(out, chunk);
    put_column(out, data.p, data.n);
}

void batch_hook_put(struct buf *out, int32_t tenant, const struct webhook_hook *hook)
{
    static const struct uuid later;
    put_count(out, HOOK_COLUMN_COUNT);
    put_uuid(out, later);
    put_int4(out, tenant);
    put_column(out, hook->url.p, hook->url.n);
    put_int8(out, hook->lane);
    put_column(out, hook->secret.key_id, strlen(hook->secret.key_id));
    put_column(out, hook->secret.b, hook->secret.n);
}

/* As submissions write it, see submit.c. */
void batch_start_put(struct buf *out, int32_t tenant, wall_t not_before)
{
    static const struct uuid later;
    put_count(out, START_COLUMN_COUNT);
    put_uuid(out, later);
    put_int2(out, 1);
    put_int4(out, tenant);
    put_int8(out, not_before.us - POSTGRES_EPOCH_US);
    put_column(out, "not_before", 10);
    put_int2(out, 0);
    put_int2(out, 0);
}

void batch_id_fill(char *row, struct uuid id)
{
    memcpy(row + AT_ID, id.b, sizeof id.b);
}

static struct uuid before(struct uuid id)
{
    for (int i = (int)sizeof id.b - 1; i >= 0; i--)
        if (id.b[i]-- != 0)
            break;
    return id;
}

static void put_batch(struct buf *out, const struct batch_new *b)
{
    buf_str(out, batch_copy_header);
    put_count(out, BATCH_COLUMN_COUNT);
    put_uuid(out, b->id);
    put_int4(out, b->tenant);
    put_uuid(out, b->api_key);
    put_int2(out, (int16_t)b->priority);
    put_int4(out, b->max_concurrency);
    put_int4(out, b->total);
    put_uuid(out, b->first);
    put_uuid(out, uuid_of_series(b->first, (uint32_t)b->total - 1));
    put_uuid(out, before(b->first));
    put_uuid(out, b->first);
    put_text_or_null(out, b->metadata);
    put_int4(out, b->delayed);
    buf_str(out, batch_copy_trailer);
}

#define KEY_HOURS INT64_C(24)

static void put_key(struct buf *out, const struct batch_new *b)
{
    buf_str(out, batch_copy_header);
    put_count(out, KEY_COLUMN_COUNT);
    put_int4(out, b->tenant);
    put_column(out, b->idempotency_key.p, b->idempotency_key.n);
    put_column(out, b->fingerprint, sizeof b->fingerprint);
    put_uuid(out, b->id);
    put_int8(out, wall_now().us + KEY_HOURS * 3600 * 1000000 - POSTGRES_EPOCH_US);
    buf_str(out, batch_copy_trailer);
}

/* ---- the transaction: the key first, so that a taken one costs nothing ---- */

#define COPY(table, columns) "COPY " table " (" columns ") FROM STDIN (FORMAT binary);"
static const char copy_key[] = COPY("idempotency", "tenant, key, fingerprint, invocation, expires_at");
static const char copy_rows[] = COPY("batches", BATCH_COLUMNS) COPY("invocations", ITEM_COLUMNS);
static const char copy_chunks[] = COPY("blobs", "id, kind, attempt, chunk, data");
static const char copy_hooks[] = COPY("webhook_hooks", WEBHOOK_HOOK_COLUMNS);
static const char copy_starts[] = COPY("attempts", "id, attempt, tenant, not_before, reason, reruns, blames");

enum { OWN_ROWS_MAX = 64 * 1024, SCRIPT_MAX = 4096 };

struct load {
    struct pg *pg;
    struct buf key, batch;
    bool keyed, gave[2]; /* own rows, already given */
    enum batch_stream streams[BATCH_STREAMS];
    batch_source_fn *source;
    batch_load_fn *fn;
    void *arg;
};

static void load_free(struct load *l)
{
    buf_deinit(&l->key);
    buf_deinit(&l->batch);
    free(l);
}

static int give_own(struct load *l, int which, struct str *piece_out)
{
    *piece_out = buf_view(which == 0 ? &l->key : &l->batch);
    bool first = !l->gave[which];
    l->gave[which] = true;
    return first ? 1 : 0;
}

static int on_source(void *arg, int copy, struct str *piece_out)
{
    struct load *l = arg;
    int n = l->keyed ? copy : copy + 1; /* key, batch, streams */
    if (n < 2)
        return give_own(l, n, piece_out);
    return l->source(l->arg, l->streams[n - 2], piece_out);
}

static void on_loaded(void *arg, const struct pg_result *r, const struct err *err)
{
    (void)r;
    struct load *l = arg;
    struct err told;
    if (err != NULL) {
        told = *err;
        if (err->code == ERR_PG_DATA && l->keyed && strcmp(pg_sqlstate(l->pg), "23505") == 0)
            told.code = ERR_CONFLICT;
        else if (err->code == ERR_PG || err->code == ERR_TIMEOUT)
            told.code = ERR_UNAVAILABLE; /* it said that it failed, or never got it */
    }
    l->fn(l->arg, err != NULL ? &told : NULL);
    load_free(l);
}

/* What waits for its time is in two places: as attempts it is seen, in batch_delayed it waits. */
static void write_delays(const struct batch_new *batch, struct buf *script)
{
    char id[UUID_TEXT_BYTES], first[UUID_TEXT_BYTES], last[UUID_TEXT_BYTES];
    uuid_format(batch->id, id);
    uuid_format(batch->first, first);
    uuid_format(uuid_of_series(batch->first, (uint32_t)batch->total - 1), last);
    buf_printf(script,
               "INSERT INTO batch_delayed (id, batch, not_before) SELECT id, '%s', not_before FROM attempts "
               "WHERE id BETWEEN '%s' AND '%s';",
               id, first, last);
}

/* In the order of the streams. */
static void write_script(struct load *l, const struct batch_new *batch, struct buf *script)
{
    const struct {
        enum batch_stream stream;
        bool there;
        const char *copy;
    } table[] = {{BATCH_STREAM_ITEMS, true, copy_rows},
                 {BATCH_STREAM_CHUNKS, batch->chunks, copy_chunks},
                 {BATCH_STREAM_HOOKS, batch->hooks, copy_hooks},
                 {BATCH_STREAM_STARTS, batch->delayed > 0, copy_starts}};
    int n = 0;
    if (l->keyed)
        buf_cstr_append(script, copy_key);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].there) {
            l->streams[n++] = table[i].stream;
            buf_cstr_append(script, table[i].copy);
        }
    if (batch->delayed > 0)
        write_delays(batch, script);
}

int batch_load(struct pg *pg, const struct batch_new *batch, batch_source_fn *source, int64_t deadline_ms,
               batch_load_fn *fn, void *arg, struct err *err)
{
    struct buf script;
    struct load *l = calloc(1, sizeof *l);
    if (l == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory for a batch");
    *l = (struct load){
        .pg = pg, .keyed = batch->idempotency_key.n > 0, .source = source, .fn = fn, .arg = arg};
    buf_init(&l->key, OWN_ROWS_MAX);
    buf_init(&l->batch, OWN_ROWS_MAX);
    buf_init(&script, SCRIPT_MAX);
    put_batch(&l->batch, batch);
    if (l->keyed)
        put_key(&l->key, batch);
    write_script(l, batch, &script);
    bool ok = !script.failed && !l->key.failed && !l->batch.failed;
    if (!ok)
        err_set(err, ERR_NO_MEMORY, "no memory for a batch");
    ok = ok && pg_load(pg, buf_view(&script), on_source, deadline_ms, on_loaded, l, err) != NULL;
    buf_deinit(&script);
    if (ok)
        return 0;
    load_free(l);
    return -1;
}

/* ---- before it ---- */

static const char sql_admit[] =
    "WITH gone AS (DELETE FROM idempotency WHERE tenant = $1 AND key = $2 AND expires_at < now()) "
    "SELECT (SELECT count(*) FROM batches WHERE tenant = $1 AND ended_at IS NULL), k.invocation, "
    "k.fingerprint = $3 FROM (SELECT) one LEFT JOIN idempotency k ON k.tenant = $1 AND k.key = $2 "
    "AND k.expires_at >= now()";

static void reply_admit(void *arg, const struct pg_result *r, const struct err *err)
{
    struct store_call *c = arg;
    struct batch_admission a = {0};
    if (err == NULL) {
        a.open = (int)pg_get_int8(r, 0, 0);
        a.key_taken = !pg_is_null(r, 0, 1);
        a.owner = pg_get_uuid(r, 0, 1);
        a.same = pg_get_bool(r, 0, 2);
    }
    ((batch_admit_fn *)c->fn)(c->arg, &a, err);
    free(c);
}

int batch_admit(struct pg *pg, int32_t tenant, struct str key, const uint8_t fingerprint[SHA256_BYTES],
                int64_t deadline_ms, batch_admit_fn *fn, void *arg, struct err *err)
{
    struct pg_params *p = pg_params_new(key.n + 256);
    if (p != NULL) {
        pg_put_int4(p, tenant);
        pg_put_text(p, key);
        pg_put_bytea(p, str_make((const char *)fingerprint, SHA256_BYTES));
    }
    return store_query(pg, sql_admit, p, deadline_ms, reply_admit, (void (*)(void))fn, arg, err);
}
