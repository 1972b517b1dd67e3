/* Reading a batch:
 *
 *   bytes -> (gunzip) -> cut into items -> each: strict scan, fields -> custom_id new? -> a row in the spool
 *
 * After the most faults that an answer names, and after one that concerns the whole, the rest is only passed
 * over, so that a caller who still sends gets the answer. */
#include "batch_input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch_ids.h"
#include "gunzip.h"
#include "json/cut.h"
#include "json/json.h"
#include "submission.h"

enum { DETAIL_MAX = 199 };
enum { TURN_BYTES = 512 * 1024 /* read in one turn of the loop: some 5 ms of small items */ };

struct batch_input {
    struct batch_input_options o;
    struct gunzip *gunzip;
    struct json_cut cut;
    struct batch_ids *ids;
    struct batch_spool *spool;
    struct batch_hooks hooks;
    struct batch_agent *agents;
    size_t agent_count, agent_last;
    uint32_t items;
    int64_t plain_bytes; /* after unpacking */
    struct buf left;     /* packed bytes for another turn */
    struct err failed;
    struct batch_fault faults[BATCH_ERRORS_MAX];
    uint64_t fault_count;
};

static bool on_item(void *arg, uint64_t number, uint64_t line, struct str text);

struct batch_input *batch_input_new(struct gateway *g, const struct batch_input_options *options,
                                    struct err *err)
{
    struct batch_input *in = calloc(1, sizeof *in);
    err_set(err, ERR_NO_MEMORY, "no memory for a batch");
    if (in == NULL)
        return NULL;
    in->o = *options;
    json_cut_init(&in->cut, options->lines ? JSON_CUT_LINES : JSON_CUT_ARRAY, BATCH_ITEM_MAX_BYTES, on_item,
                  in);
    buf_init(&in->left, TURN_BYTES);
    in->ids = batch_ids_new();
    in->agents = calloc(BATCH_AGENTS_MAX, sizeof *in->agents);
    in->gunzip = options->gzip ? gunzip_new() : NULL;
    if (in->ids != NULL && in->agents != NULL && (in->gunzip != NULL || !options->gzip))
        in->spool = batch_spool_new(g, err);
    if (in->spool == NULL)
        batch_input_free(&in);
    return in;
}

void batch_input_free(struct batch_input **pin)
{
    if (pin == NULL || *pin == NULL)
        return;
    struct batch_input *in = *pin;
    *pin = NULL;
    gunzip_free(&in->gunzip);
    json_cut_deinit(&in->cut);
    batch_ids_free(&in->ids);
    batch_hooks_deinit(&in->hooks);
    batch_spool_free(&in->spool);
    buf_deinit(&in->left);
    free(in->agents);
    free(in);
}

/* ---- faults ---- */

static void fail(struct batch_input *in, const struct err *err)
{
    if (in->failed.code == ERR_NONE)
        in->failed = *err;
}

void batch_input_fault(struct batch_input *in, uint64_t line, uint64_t item, const struct err *err)
{
    if (in->fault_count < BATCH_ERRORS_MAX) {
        struct batch_fault *f = &in->faults[in->fault_count];
        bool own_line = in->o.lines && strncmp(err->msg, "line 1 ", 7) == 0; /* of the item's text */
        *f = (struct batch_fault){.line = line, .item = item, .code = err->code};
        str_copy(str_make(err->msg + (own_line ? 7 : 0), strnlen(err->msg + (own_line ? 7 : 0), DETAIL_MAX)),
                 f->detail, sizeof f->detail);
    }
    in->fault_count++;
}

static bool is_lost(const struct batch_input *in)
{
    return in->failed.code != ERR_NONE || in->fault_count >= BATCH_ERRORS_MAX;
}

const struct err *batch_input_failed(const struct batch_input *in)
{
    return &in->failed;
}

const struct batch_fault *batch_input_faults(const struct batch_input *in, size_t *n, uint64_t *in_all)
{
    *in_all = in->fault_count;
    *n = in->fault_count < BATCH_ERRORS_MAX ? (size_t)in->fault_count : BATCH_ERRORS_MAX;
    return in->faults;
}

/* ---- one item ---- */

/* The agent's number in the table. */
static int agent_number(struct batch_input *in, const struct submission_agent *a, uint64_t line,
                        uint64_t item, uint16_t *out, struct err *err)
{
    for (size_t k = 0; k < in->agent_count; k++) {
        size_t i = (in->agent_last + k) % in->agent_count;
        if (in->agents[i].version == a->version && str_eq_c(a->slug, in->agents[i].slug)) {
            in->agent_last = i;
            *out = (uint16_t)i;
            return 0;
        }
    }
    if (in->agent_count == BATCH_AGENTS_MAX)
        return err_set(err, ERR_BAD_FIELD, "a batch has at most %d different agents", BATCH_AGENTS_MAX);
    struct batch_agent *row = &in->agents[in->agent_count];
    *row = (struct batch_agent){.version = a->version, .line = line, .item = item};
    str_copy(a->slug, row->slug, sizeof row->slug);
    *out = (uint16_t)in->agent_count;
    in->agent_last = in->agent_count++;
    return 0;
}

/* Its own, or its number in the batch. */
static int read_custom_id(struct batch_input *in, const struct json_value *root, uint64_t number,
                          char number_text[24], struct str *out, struct err *err)
{
    const struct json_value *v = json_get(root, "custom_id");
    snprintf(number_text, 24, "%llu", (unsigned long long)number);
    *out = str_of(number_text);
    if (v != NULL && (!json_str(v, out) || !batch_custom_id_valid(*out)))
        return err_set(err, ERR_BAD_FIELD,
                       "custom_id must be a string of 1 to %d bytes without control characters",
                       BATCH_CUSTOM_ID_MAX_BYTES);
    int64_t other = batch_ids_add(in->ids, *out, (uint32_t)number);
    if (other < 0)
        return err_set(err, ERR_NO_MEMORY, "no memory for a batch");
    if (other > 0)
        return err_set(err, ERR_BAD_FIELD, "custom_id \"%.*s\" is that of item %lld, too",
                       (int)(out->n < 80 ? out->n : 80), out->p, (long long)other);
    return 0;
}

/* That webhooks are not set up here is nothing of the item's. */
static int read_hook(struct batch_input *in, const struct json_value *root, struct webhook_hook *hook,
                     struct submission *sub, struct err *err)
{
    const struct json_value *v = json_get(root, "webhook");
    if (v == NULL)
        return 0;
    sub->hook = hook;
    int rc = batch_hook_read(&in->hooks, in->o.hooks, in->o.tenant, v, hook, err);
    if (rc != 0 && err->code == ERR_NOT_CONFIGURED)
        fail(in, err);
    return rc;
}

static int take_item(struct batch_input *in, const struct json *doc, uint64_t number, uint64_t line,
                     struct err *err)
{
    static const char *const own[] = {"custom_id", "webhook", "not_before", NULL};
    const struct json_value *root = json_root(doc);
    struct submission sub = {.tenant = in->o.tenant};
    struct submission_agent agent = {.slug = STR("*")}; /* stays: the batch's own */
    struct batch_item item = {.sub = &sub,
                              .tenant = in->o.tenant,
                              .api_key = in->o.api_key,
                              .batch = in->o.batch,
                              .trace = in->o.trace};
    struct webhook_hook hook;
    struct batch_spool_late late = {0};
    char number_text[24];
    if (submission_read(doc, own, &sub, &agent, err) != 0)
        return -1;
    if (json_get(root, "priority") != NULL)
        return err_set(err, ERR_BAD_FIELD, "priority is the batch's: give it for all of its items");
    if (str_eq_c(agent.slug, "*"))
        agent.slug = STR("");
    if (agent_number(in, &agent, line, number, &late.agent, err) != 0 ||
        read_custom_id(in, root, number, number_text, &item.custom_id, err) != 0 ||
        read_hook(in, root, &hook, &sub, err) != 0)
        return -1;
    late.timeout = sub.timeout_ms == 0;
    late.queue_timeout = json_get(root, "queue_timeout_s") == NULL;
    if (in->fault_count > 0)
        return 0; /* it will not be accepted */
    struct err spool;
    if (batch_spool_put(in->spool, &item, &late, &spool) != 0)
        fail(in, &spool);
    return 0;
}

static bool on_item(void *arg, uint64_t number, uint64_t line, struct str text)
{
    struct batch_input *in = arg;
    struct err err = ERR_INIT;
    in->items = (uint32_t)number;
    if (number > BATCH_ITEMS_MAX) {
        err_set(&err, ERR_BODY_TOO_LARGE, "a batch has at most %d items", BATCH_ITEMS_MAX);
        fail(in, &err);
        return false;
    }
    struct json *doc = NULL;
    if (text.p == NULL)
        err_set(&err, ERR_BODY_TOO_LARGE, "an item has at most %d bytes", BATCH_ITEM_MAX_BYTES);
    else
        doc = json_parse(text, &err);
    if (doc == NULL || take_item(in, doc, number, line, &err) != 0)
        batch_input_fault(in, line, number, &err);
    json_free(&doc);
    return !is_lost(in);
}

/* ---- bytes ---- */

static void put_plain(struct batch_input *in, struct str piece)
{
    struct err err = ERR_INIT;
    in->plain_bytes += (int64_t)piece.n;
    if (is_lost(in))
        return;
    if (in->plain_bytes > BATCH_BODY_MAX_BYTES) {
        err_set(&err, ERR_BODY_TOO_LARGE, "a batch has at most %d bytes, unpacked", BATCH_BODY_MAX_BYTES);
        fail(in, &err);
    } else if (json_cut_put(&in->cut, piece, &err) != 0 && err.code != ERR_NONE) {
        fail(in, &err);
    }
}

/* Unpacks within a turn's work. *piece is moved on. */
static void put_packed(struct batch_input *in, struct str *piece)
{
    struct str out = STR("x");
    struct err err = ERR_INIT;
    for (size_t done = 0; done < TURN_BYTES && !is_lost(in); done += out.n) {
        size_t before = piece->n;
        if (gunzip_step(in->gunzip, piece, &out, &err) != 0) {
            fail(in, &err);
            return;
        }
        if (out.n == 0 && piece->n == before)
            return; /* it wants more */
        put_plain(in, out);
    }
    if (is_lost(in))
        piece->n = 0;
}

bool batch_input_put(struct batch_input *in, struct str piece)
{
    if (!in->o.gzip) {
        put_plain(in, piece);
        return true;
    }
    put_packed(in, &piece);
    if (piece.n == 0)
        return true;
    if (!buf_str(&in->left, piece)) {
        struct err err;
        err_set(&err, ERR_NO_MEMORY, "no memory for a batch");
        fail(in, &err);
        return true;
    }
    return false;
}

bool batch_input_go_on(struct batch_input *in)
{
    struct str piece = buf_view(&in->left);
    put_packed(in, &piece);
    buf_consume(&in->left, in->left.len - piece.n);
    return piece.n == 0;
}

void batch_input_end(struct batch_input *in, struct batch_options *options)
{
    struct err err = ERR_INIT;
    if (in->o.gzip && !is_lost(in)) {
        struct str none = STR("");
        put_packed(in, &none); /* what it held back for want of room */
        if (!gunzip_whole(in->gunzip) && !is_lost(in)) {
            err_set(&err, ERR_BAD_REQUEST, "the gzip body ends too early");
            fail(in, &err);
        }
    }
    if (is_lost(in))
        return;
    if (json_cut_end(&in->cut, &err) != 0 && err.code != ERR_NONE)
        fail(in, &err);
    else if (json_cut_frame(&in->cut).n > 0 &&
             batch_options_frame(options, json_cut_frame(&in->cut), &err) != 0)
        fail(in, &err);
    else if (in->items == 0) {
        err_set(&err, ERR_MISSING_FIELD, "the batch has no items");
        fail(in, &err);
    } else if (in->fault_count == 0 && in->failed.code == ERR_NONE && batch_spool_end(in->spool, &err) != 0)
        fail(in, &err);
    batch_ids_free(&in->ids);
}

uint32_t batch_input_items(const struct batch_input *in)
{
    return in->items;
}

const struct batch_agent *batch_input_agents(const struct batch_input *in, size_t *n)
{
    *n = in->agent_count;
    return in->agents;
}

const struct batch_hooks *batch_input_hooks(const struct batch_input *in)
{
    return &in->hooks;
}

struct batch_spool *batch_input_spool(struct batch_input *in)
{
    return in->spool;
}
