/* A batch's options. One table for both forms: a parameter's text is read as the JSON value that it stands
 * for. */
#include "batch_options.h"

#include <stdio.h>

#include "json/json.h"
#include "json/writer.h"
#include "model/batch.h"

const char *const batch_options_query_names[] = {
    "max_concurrency", "priority", "timeout_s", "queue_timeout_s", "agent", "webhook", "metadata.", NULL};
enum { WEBHOOK_BYTES = 8 * 1024 };

void batch_options_init(struct batch_options *o)
{
    *o = (struct batch_options){.priority = INV_LOW, .queue_timeout_ms = INV_QUEUE_TIMEOUT_DEFAULT_MS};
    buf_init(&o->metadata, INV_METADATA_MAX_BYTES);
    buf_init(&o->webhook, WEBHOOK_BYTES);
}

void batch_options_deinit(struct batch_options *o)
{
    buf_deinit(&o->metadata);
    buf_deinit(&o->webhook);
}

static int take_agent(struct batch_options *o, struct str text, struct err *err)
{
    struct str slug;
    if (!agent_ref_parse(text, &slug, &o->agent_version) || !str_copy(slug, o->agent, sizeof o->agent))
        return err_set(err, ERR_BAD_FIELD, "agent must be a name, or name@version");
    return 0;
}

static int take_priority(struct batch_options *o, struct str text, struct err *err)
{
    if (!inv_priority_parse(text, &o->priority))
        return err_set(err, ERR_BAD_FIELD, "priority must be high, normal or low");
    return 0;
}

/* Numbers: where they go, and their bounds. 0: not given. */
struct numbers {
    int64_t max_concurrency, timeout_s, queue_timeout_s;
};
static const struct {
    const char *name;
    size_t offset;
    int64_t max;
} number_rows[] = {
    {"max_concurrency", offsetof(struct numbers, max_concurrency), BATCH_CONCURRENCY_MAX},
    {"timeout_s", offsetof(struct numbers, timeout_s), INV_TIMEOUT_MAX_MS / 1000},
    {"queue_timeout_s", offsetof(struct numbers, queue_timeout_s), INV_QUEUE_TIMEOUT_MAX_MS / 1000},
};
enum { NUMBER_ROWS = sizeof number_rows / sizeof *number_rows };

static int take_number(struct numbers *n, int row, bool whole, int64_t v, struct err *err)
{
    if (!whole || v < 1 || v > number_rows[row].max)
        return err_set(err, ERR_BAD_FIELD, "%s must be a whole number from 1 to %lld", number_rows[row].name,
                       (long long)number_rows[row].max);
    memcpy((char *)n + number_rows[row].offset, &v, sizeof v);
    return 0;
}

static void apply(struct batch_options *o, const struct numbers *n)
{
    if (n->max_concurrency > 0)
        o->max_concurrency = (int32_t)n->max_concurrency;
    if (n->timeout_s > 0)
        o->timeout_ms = (int32_t)(n->timeout_s * 1000);
    if (n->queue_timeout_s > 0)
        o->queue_timeout_ms = n->queue_timeout_s * 1000;
}

/* ---- the query ---- */

/* Its address only: a secret would stand in the logs of everything on the way. */
static int query_webhook(struct batch_options *o, struct str url, struct err *err)
{
    if (!str_is_utf8(url))
        return err_set(err, ERR_BAD_QUERY, "webhook must be a URL");
    struct json_writer w = json_writer(&o->webhook);
    jw_object(&w);
    jw_kstr(&w, "url", url);
    jw_object_end(&w);
    return o->webhook.failed ? err_set(err, ERR_BAD_QUERY, "webhook: the URL is too long") : 0;
}

static int query_metadata(struct batch_options *o, struct http_request *req, struct err *err)
{
    static const struct str prefix = {.p = "metadata.", .n = 9};
    struct str rest = http_query(req), pair, raw, name, value;
    struct json_writer w = json_writer(&o->metadata);
    bool any = false;
    while (str_split(&rest, '&', &pair)) {
        value = pair;
        str_split(&value, '=', &raw);
        if (!http_decode(req, raw, true, &name) ||
            !http_decode(req, value.p != NULL ? value : STR(""), true, &value))
            return err_set(err, ERR_BAD_QUERY, "malformed query");
        if (!str_starts(name, prefix))
            continue;
        if (!str_is_utf8(name) || !str_is_utf8(value) || name.n == prefix.n)
            return err_set(err, ERR_BAD_QUERY, "metadata needs a key and a value of UTF-8 text");
        if (!any)
            jw_object(&w);
        any = true;
        jw_key_str(&w, str_make(name.p + prefix.n, name.n - prefix.n));
        jw_str(&w, value);
    }
    if (any)
        jw_object_end(&w);
    if (o->metadata.failed)
        return err_set(err, ERR_METADATA_TOO_LARGE, "metadata has at most %d bytes", INV_METADATA_MAX_BYTES);
    return 0;
}

int batch_options_query(struct batch_options *o, struct http_request *req, struct err *err)
{
    struct numbers n = {0};
    struct str v;
    int got = http_query_check(req, batch_options_query_names, err);
    for (int i = 0; got == 0 && i < NUMBER_ROWS; i++) {
        int64_t value = 0;
        int found = http_query_get(req, number_rows[i].name, &v, err);
        bool whole = found > 0 && str_to_i64(v, &value);
        if (found < 0 || (found > 0 && take_number(&n, i, whole, value, err) != 0))
            got = -1;
    }
    if (got == 0 && (got = http_query_get(req, "priority", &v, err)) > 0)
        got = take_priority(o, v, err);
    if (got == 0 && (got = http_query_get(req, "agent", &v, err)) > 0)
        got = take_agent(o, v, err);
    if (got == 0 && (got = http_query_get(req, "webhook", &v, err)) > 0)
        got = query_webhook(o, v, err);
    if (got == 0)
        got = query_metadata(o, req, err);
    if (got != 0 && err->code == ERR_BAD_FIELD)
        err->code = ERR_BAD_QUERY;
    apply(o, &n);
    return got;
}

/* ---- the frame ---- */

static int frame_metadata(struct batch_options *o, const struct json *doc, struct err *err)
{
    const struct json_value *v = json_get(json_root(doc), "metadata");
    if (v == NULL)
        return 0;
    if (json_type_of(v) != JSON_OBJECT)
        return err_set(err, ERR_BAD_FIELD, "metadata must be an object");
    buf_clear(&o->metadata);
    if (!buf_str(&o->metadata, json_member_source(doc, "metadata")))
        return err_set(err, ERR_METADATA_TOO_LARGE, "metadata has at most %d bytes", INV_METADATA_MAX_BYTES);
    return 0;
}

static int read_frame(struct batch_options *o, const struct json *doc, struct err *err)
{
    static const char *const known[] = {"items",     "max_concurrency", "priority",
                                        "timeout_s", "queue_timeout_s", "agent",
                                        "metadata",  "webhook",         NULL};
    const struct json_value *root = json_root(doc), *items = json_get(root, "items"), *v;
    struct numbers n = {0};
    struct str text = STR("");
    if (json_known_fields(root, known, err) != 0)
        return -1;
    if (json_type_of(items) != JSON_ARRAY || json_first(items) != NULL) /* cut out of it, when it was there */
        return err_set(err, ERR_MISSING_FIELD, "items is required: an array of submissions");
    if (json_get(root, "webhook") != NULL) {
        buf_clear(&o->webhook);
        if (!buf_str(&o->webhook, json_member_source(doc, "webhook")))
            return err_set(err, ERR_BAD_FIELD, "webhook has at most %d bytes", WEBHOOK_BYTES);
    }
    for (int i = 0; i < NUMBER_ROWS; i++) {
        int64_t value = 0;
        v = json_get(root, number_rows[i].name);
        bool whole = json_int(doc, v, &value);
        if (v != NULL && take_number(&n, i, whole, value, err) != 0)
            return -1;
    }
    apply(o, &n);
    v = json_get(root, "priority");
    if (v != NULL && (!json_str(v, &text) || take_priority(o, text, err) != 0))
        return err_set(err, ERR_BAD_FIELD, "priority must be high, normal or low");
    v = json_get(root, "agent");
    if (v != NULL && (!json_str(v, &text) || take_agent(o, text, err) != 0))
        return err_set(err, ERR_BAD_FIELD, "agent must be a name, or name@version");
    return frame_metadata(o, doc, err);
}

int batch_options_frame(struct batch_options *o, struct str frame, struct err *err)
{
    struct json *doc = json_parse(frame, err);
    int rc = doc != NULL ? read_frame(o, doc, err) : -1;
    json_free(&doc);
    return rc;
}
