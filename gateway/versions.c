/* GET /v1/agents/{name}/versions[/{version}], POST /v1/agents/{name}/rollback.
 *
 * A rollback is one row changed: which version serves. This gateway asks for it again with the next
 * submission, the others within a second (targets.h). What was accepted keeps its version. */
#include "versions.h"

#include <stdio.h>
#include <stdlib.h>

#include "agents.h"
#include "crypto/crypto.h"
#include "json/json.h"
#include "page.h"
#include "store/versions.h"

enum { STORE_MS = 5000, LIST_MAX = 200, BODY_MAX = 4096, ANSWER_MAX = 32 << 20, SCOPE_BYTES = 128 };

/* ---- the list ---- */

struct list {
    struct call *c;
    struct page page;
    char scope[SCOPE_BYTES]; /* a cursor is of one agent's list */
};

static void write_row(const void *rows, size_t i, struct json_writer *w)
{
    const struct version_record *v = (const struct version_record *)rows + i;
    struct buf hash;
    buf_init(&hash, 2 * SHA256_BYTES + 1);
    crypto_hex(v->source_sha256, &hash);
    jw_object(w);
    jw_kint(w, "version", v->version);
    jw_kcstr(w, "status", agent_status_name(v->status));
    jw_kbool(w, "serving", v->serving);
    jw_kstr(w, "runtime", v->runtime);
    agent_write_source(w, &v->origin);
    jw_key(w, "source_sha256");
    if (hash.len > 0)
        jw_str(w, buf_view(&hash));
    else
        jw_null(w);
    jw_key(w, "manifest");
    if (v->manifest.n > 0)
        jw_raw(w, v->manifest);
    else
        jw_null(w);
    jw_kint(w, "archive_bytes", v->archive_bytes);
    jw_ktime(w, "created_at", v->created_at);
    jw_ktime(w, "finished_at", v->finished_at);
    jw_key(w, "error");
    if (v->error_code.n > 0) {
        jw_object(w);
        jw_kstr(w, "code", v->error_code);
        jw_kstr(w, "message", v->error_message);
        jw_object_end(w);
    } else {
        jw_null(w);
    }
    jw_object_end(w);
    buf_deinit(&hash);
}

static struct str place_of(const void *rows, size_t i)
{
    return str_of(((const struct version_record *)rows)[i].place);
}

static void on_versions(void *arg, bool found, const struct version_record *list, size_t n,
                        const struct err *err)
{
    struct list *l = arg;
    struct call *c = l->c;
    const struct page_rows rows = {.rows = list, .n = n, .write = write_row, .place = place_of};
    if (call_leave(c)) {
        if (err != NULL)
            call_fail_query(c, err);
        else if (!found)
            call_fail_code(c, ERR_AGENT_NOT_FOUND, NULL);
        else
            page_reply(c, &l->page, "data", &rows, ANSWER_MAX);
    }
    free(l);
}

static int read_below(const struct page *p, int32_t *out, struct err *err)
{
    uint64_t n = INT32_MAX;
    if (p->position_len > 0 && (!str_to_u64(page_after(p), &n) || n > INT32_MAX))
        return err_set(err, ERR_BAD_CURSOR, "the cursor is of another version");
    *out = (int32_t)n;
    return 0;
}

void versions_list(struct call *c)
{
    struct err err = ERR_INIT;
    int32_t below = INT32_MAX;
    struct list *l = agent_slug_valid(c->arg) ? calloc(1, sizeof *l) : NULL;
    if (l == NULL) {
        call_fail_code(c, agent_slug_valid(c->arg) ? ERR_OVERLOADED : ERR_AGENT_NOT_FOUND, NULL);
        return;
    }
    l->c = c;
    snprintf(l->scope, sizeof l->scope, "versions/%s", c->arg_text);
    if (page_read(c, str_of(l->scope), LIST_MAX, &l->page, &err) == 0 &&
        read_below(&l->page, &below, &err) == 0) {
        call_enter(c);
        if (versions_get(c->g->read, c->tenant, c->arg, below, l->page.limit + 1, STORE_MS, on_versions, l,
                         &err) == 0)
            return;
        if (!call_leave(c)) {
            free(l);
            return;
        }
    }
    free(l);
    call_fail(c, &err);
}

/* ---- one ---- */

bool version_of_path(struct call *c, int32_t *out)
{
    uint64_t n;
    if (!agent_slug_valid(c->arg)) {
        call_fail_code(c, ERR_AGENT_NOT_FOUND, NULL);
        return false;
    }
    if (!str_to_u64(c->arg2, &n) || c->arg2.p[0] == '0' || n < 1 || n > INT32_MAX) {
        call_fail_code(c, ERR_VERSION_NOT_FOUND, NULL);
        return false;
    }
    *out = (int32_t)n;
    return true;
}

/* The newest one up to the number that was asked for. */
static void on_version(void *arg, bool found, const struct version_record *list, size_t n,
                       const struct err *err)
{
    struct call *c = arg;
    struct buf body;
    if (!call_leave(c))
        return;
    if (err != NULL) {
        call_fail_query(c, err);
    } else if (!found) {
        call_fail_code(c, ERR_AGENT_NOT_FOUND, NULL);
    } else if (n == 0 || !str_eq_c(c->arg2, list[0].place)) {
        call_fail_code(c, ERR_VERSION_NOT_FOUND, NULL);
    } else {
        buf_init(&body, ANSWER_MAX);
        struct json_writer w = json_writer(&body);
        write_row(list, 0, &w);
        call_reply_json(c, 200, &body);
    }
}

void version_show(struct call *c)
{
    struct err err = ERR_INIT;
    int32_t version;
    if (!version_of_path(c, &version))
        return;
    call_enter(c);
    int32_t below = version < INT32_MAX ? version + 1 : version;
    if (versions_get(c->g->read, c->tenant, c->arg, below, 1, STORE_MS, on_version, c, &err) != 0 &&
        call_leave(c))
        call_fail(c, &err);
}

/* ---- rollback ---- */

static void on_chosen(void *arg, enum version_chosen what, const struct err *err)
{
    struct call *c = arg;
    if (!call_leave(c))
        return;
    if (err != NULL) { /* it may be repeated: so that its outcome is not known is no news */
        call_fail_query(c, err);
        return;
    }
    switch (what) {
    case VERSION_SERVES:
        agent_answer(c, c->arg, 200);
        return;
    case VERSION_NO_AGENT:
        break;
    case VERSION_NO_SUCH:
        call_fail_code(c, ERR_VERSION_NOT_FOUND, NULL);
        return;
    case VERSION_NO_OLDER:
        call_fail_code(c, ERR_NO_OLDER_VERSION, NULL);
        return;
    case VERSION_RETIRED:
        call_fail_code(c, ERR_VERSION_RETIRED, NULL);
        return;
    case VERSION_NOT_READY:
        call_fail_code(c, ERR_VERSION_NOT_READY, NULL);
        return;
    }
    call_fail_code(c, ERR_AGENT_NOT_FOUND, NULL);
}

/* *version_out 0: none is asked for. */
static int read_version(struct str body, int32_t *version_out, struct err *err)
{
    static const char *const known[] = {"version", NULL};
    struct json *doc = json_parse(body.n > 0 ? body : STR("{}"), err);
    const struct json_value *root = json_root(doc), *v = json_get(root, "version");
    int64_t n = 0;
    int rc = 0;
    if (doc == NULL)
        return -1;
    if (json_type_of(root) != JSON_OBJECT)
        rc = err_set(err, ERR_BAD_JSON, "the body must be a JSON object, or nothing");
    else if (json_known_fields(root, known, err) != 0)
        rc = -1;
    else if (v != NULL && (!json_int(doc, v, &n) || n < 1 || n > INT32_MAX))
        rc = err_set(err, ERR_BAD_FIELD,
                     "version must be the number of a version; without it, it is the one before that serves");
    *version_out = (int32_t)n;
    json_free(&doc);
    return rc;
}

static void on_body(void *arg, struct http_request *req, struct str body)
{
    (void)req;
    struct call *c = arg;
    struct err err = ERR_INIT;
    int32_t version;
    if (read_version(body, &version, &err) != 0) {
        call_fail(c, &err);
        return;
    }
    call_enter(c);
    if (version_choose(c->g->files, c->tenant, c->arg, version, STORE_MS, on_chosen, c, &err) != 0 &&
        call_leave(c))
        call_fail(c, &err);
}

void agent_rollback(struct call *c)
{
    struct err err = ERR_INIT;
    if (!agent_slug_valid(c->arg))
        call_fail_code(c, ERR_AGENT_NOT_FOUND, NULL);
    else if (call_json_type(c, &err) != 0)
        call_fail(c, &err);
    else
        http_read_body(c->req, BODY_MAX, on_body, c);
}
