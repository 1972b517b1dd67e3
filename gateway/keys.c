/* API keys.
 *
 * A key's text is in one answer, that of its creation, and nowhere else: only its hash is kept. Which scope
 * an operation asks for is the contract's to say (contract.h). A revoked key is refused from the answer on by
 * this gateway, by the others when pub/sub has told them (auth.h). A key may revoke itself: whoever finds one
 * that leaked can end it. */
#include "keys.h"

#include <stdlib.h>

#include "auth.h"
#include "json/json.h"
#include "json/writer.h"
#include "page.h"
#include "store/keys.h"

enum { STORE_MS = 5000, LIST_MAX = 200, BODY_MAX = 16 * 1024, ANSWER_MAX = 256 * 1024 };

/* ---- JSON ---- */

static void write_scopes(struct json_writer *w, unsigned scopes)
{
    jw_key(w, "scopes");
    jw_array(w);
    for (unsigned bit = 1; bit <= KEY_SCOPES_ALL; bit <<= 1)
        if ((scopes & bit) != 0)
            jw_cstr(w, key_scope_name(bit));
    jw_array_end(w);
}

/* text: the key itself, once; NULL else. */
static void write_key(struct json_writer *w, const struct key_record *k, const char *text)
{
    jw_object(w);
    jw_kid(w, "id", "key", k->id);
    if (text != NULL)
        jw_kcstr(w, "key", text);
    jw_kstr(w, "name", k->name);
    jw_kstr(w, "prefix", k->prefix);
    write_scopes(w, k->scopes);
    jw_ktime(w, "created_at", k->created_at);
    jw_ktime(w, "expires_at", k->expires_at);
    jw_ktime(w, "last_used_at", k->last_used_at);
    jw_ktime(w, "revoked_at", k->revoked_at);
    jw_object_end(w);
}

static void answer_one(struct call *c, int status, const struct key_record *k, const char *text)
{
    struct buf body;
    buf_init(&body, ANSWER_MAX);
    struct json_writer w = json_writer(&body);
    write_key(&w, k, text);
    if (text != NULL && c->req != NULL)
        http_set_header(c->req, "Cache-Control", STR("no-store"));
    call_reply_json(c, status, &body);
}

/* ---- POST ---- */

struct create {
    struct call *c;
    struct http_body *body;
    struct json *doc;
    struct key_record row;
    char text[API_KEY_TEXT_BYTES];
};

static void create_free(void *data)
{
    struct create *r = data;
    json_free(&r->doc);
    http_body_free(&r->body);
    crypto_wipe(r->text, sizeof r->text);
    free(r);
}

/* Least privilege: who names none gets one that submits. */
static int read_scopes(const struct json_value *v, unsigned *out, struct err *err)
{
    struct str name;
    *out = KEY_INVOKE;
    if (v == NULL)
        return 0;
    *out = 0;
    for (const struct json_value *s = json_first(v); s != NULL; s = json_next(s)) {
        unsigned bit = json_str(s, &name) ? key_scope_parse(name) : 0;
        if (bit == 0)
            return err_set(err, ERR_BAD_FIELD,
                           "scopes: there are \"read\", \"invoke\", \"deploy\" and \"admin\"");
        *out |= bit;
    }
    if (json_type_of(v) != JSON_ARRAY || *out == 0)
        return err_set(err, ERR_BAD_FIELD, "scopes must be a list of scopes, as in [\"read\", \"invoke\"]");
    return 0;
}

static int read_expiry(const struct json_value *v, wall_t now, wall_t *out, struct err *err)
{
    struct str text;
    if (v == NULL || json_type_of(v) == JSON_NULL)
        return 0;
    if (!json_str(v, &text) || !wall_parse(text, out))
        return err_set(err, ERR_BAD_FIELD, "expires_at must be a time as in 2027-01-31T00:00:00Z");
    if (out->us <= now.us)
        return err_set(err, ERR_BAD_FIELD, "expires_at lies in the past");
    return 0;
}

static int read_row(struct create *r, struct err *err)
{
    static const char *const known[] = {"name", "scopes", "expires_at", NULL};
    const struct json_value *root = json_root(r->doc);
    struct key_record *k = &r->row;
    if (json_type_of(root) != JSON_OBJECT)
        return err_set(err, ERR_BAD_JSON,
                       "the body must be a JSON object: {\"name\": \"…\", \"scopes\": […]}");
    if (json_known_fields(root, known, err) != 0)
        return -1;
    if (json_get(root, "name") == NULL)
        return err_set(err, ERR_MISSING_FIELD, "name is required: what the key is for");
    if (!json_str(json_get(root, "name"), &k->name) || !key_name_valid(k->name))
        return err_set(err, ERR_BAD_FIELD, "name must be 1 to %d bytes of text without control characters",
                       KEY_NAME_MAX_BYTES);
    k->id = uuid_new();
    k->created_at = wall_now();
    if (read_scopes(json_get(root, "scopes"), &k->scopes, err) != 0)
        return -1;
    return read_expiry(json_get(root, "expires_at"), k->created_at, &k->expires_at, err);
}

static void on_made(void *arg, enum key_made what, const struct err *err)
{
    struct create *r = arg;
    struct call *c = r->c;
    if (!call_leave(c))
        return;
    if (err != NULL)
        call_fail(c, err);
    else if (what == KEY_MADE)
        answer_one(c, 201, &r->row, r->text);
    else
        call_fail_code(c, ERR_CONFLICT, "there are 1,000 keys already; revoke one that is not needed");
}
_Static_assert(KEYS_MAX == 1000, "what the answer above says");

static void on_body(void *arg, struct http_request *req, struct str body)
{
    struct create *r = arg;
    struct call *c = r->c;
    struct err err = ERR_INIT;
    (void)body;
    r->body = http_body_take(req);
    if (r->body == NULL)
        err_set(&err, ERR_OVERLOADED, "no memory");
    else
        r->doc = json_parse(http_body_view(r->body), &err);
    if (r->doc == NULL || read_row(r, &err) != 0) {
        call_fail(c, &err);
        return;
    }
    crypto_api_key_new(r->text);
    r->row.prefix = str_make(r->text, KEY_PREFIX_BYTES);
    call_enter(c);
    if (key_create(c->g->files, c->tenant, &r->row, str_of(r->text), STORE_MS, on_made, r, &err) == 0)
        return;
    if (call_leave(c))
        call_fail(c, &err);
}

void key_create_call(struct call *c)
{
    struct err err = ERR_INIT;
    struct create *r = calloc(1, sizeof *r);
    if (r == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    r->c = c;
    c->data = r;
    c->free_data = create_free;
    if (call_json_type(c, &err) != 0)
        call_fail(c, &err);
    else
        http_read_body(c->req, BODY_MAX, on_body, r);
}

/* ---- GET ---- */

struct reading {
    struct call *c;
    bool listed; /* else one key */
    struct page page;
};

static void not_found(struct call *c)
{
    call_fail_code(c, ERR_NOT_FOUND, "there is no key of that id");
}

static void write_row(const void *rows, size_t i, struct json_writer *w)
{
    const struct key_record *list = rows;
    write_key(w, &list[i], NULL);
}

static struct str place_of(const void *rows, size_t i)
{
    const struct key_record *list = rows;
    return str_make((const char *)list[i].id.b, sizeof list[i].id.b);
}

static void on_keys(void *arg, const struct key_record *list, size_t n, const struct err *err)
{
    struct reading *g = arg;
    struct call *c = g->c;
    const struct page_rows rows = {.rows = list, .n = n, .write = write_row, .place = place_of};
    if (call_leave(c)) {
        if (err != NULL)
            call_fail_query(c, err);
        else if (g->listed)
            page_reply(c, &g->page, "data", &rows, ANSWER_MAX);
        else if (n == 0)
            not_found(c);
        else
            answer_one(c, 200, &list[0], NULL);
    }
    free(g);
}

/* page NULL: the key that q names. */
static void ask(struct call *c, const struct keys_query *q, const struct page *page)
{
    struct err err = ERR_INIT;
    struct reading *g = calloc(1, sizeof *g);
    if (g == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    *g = (struct reading){.c = c, .listed = page != NULL};
    if (page != NULL)
        g->page = *page;
    call_enter(c);
    if (keys_get(c->g->read, q, STORE_MS, on_keys, g, &err) == 0)
        return;
    free(g);
    if (call_leave(c))
        call_fail(c, &err);
}

/* The key that the path names; "self" is the one that asks. Others are for those who manage keys. False: it
 * was answered. */
static bool read_id(struct call *c, struct uuid *out)
{
    if (str_eq(c->arg, STR("self"))) {
        *out = c->api_key;
        return true;
    }
    if (!id_parse("key", c->arg, out)) {
        not_found(c);
        return false;
    }
    if (uuid_eq(*out, c->api_key) || key_may(c->scopes, KEY_ADMIN))
        return true;
    call_fail_code(c, ERR_FORBIDDEN, "another key than the one that asks is for keys with the scope admin");
    return false;
}

void key_show(struct call *c)
{
    struct keys_query q = {.tenant = c->tenant, .revoked = true, .limit = 1};
    if (read_id(c, &q.id))
        ask(c, &q, NULL);
}

static int read_revoked(struct call *c, bool *out, struct err *err)
{
    struct str text;
    int got = http_query_get(c->req, "revoked", &text, err);
    if (got <= 0)
        return got;
    *out = str_eq(text, STR("true"));
    if (*out || str_eq(text, STR("false")))
        return 0;
    return err_set(err, ERR_BAD_QUERY, "revoked is true or false");
}

void keys_list(struct call *c)
{
    struct err err = ERR_INIT;
    struct page page;
    struct keys_query q = {.tenant = c->tenant};
    if (read_revoked(c, &q.revoked, &err) != 0 ||
        page_read_id(c, q.revoked ? STR("keys, revoked ones too") : STR("keys"), LIST_MAX, &page, &q.before,
                     &err) != 0) {
        call_fail(c, &err);
        return;
    }
    q.limit = page.limit + 1;
    ask(c, &q, &page);
}

/* ---- DELETE ---- */

struct revoking {
    struct call *c;
    struct uuid id;
};

static void on_revoked(void *arg, bool found, const struct err *err)
{
    struct revoking *r = arg;
    struct call *c = r->c;
    if (found) {
        auth_forget(c->g->auth, r->id);
        key_tell_revoked(c->g->redis, r->id);
    }
    free(r);
    if (!call_leave(c))
        return;
    if (err != NULL)
        call_fail_query(c, err);
    else if (found)
        call_reply_bytes(c, 204, NULL, STR(""));
    else
        not_found(c);
}

void key_revoke_call(struct call *c)
{
    struct err err = ERR_INIT;
    struct uuid id;
    if (!read_id(c, &id))
        return;
    struct revoking *r = malloc(sizeof *r);
    if (r == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    *r = (struct revoking){.c = c, .id = id};
    call_enter(c);
    if (key_revoke(c->g->files, c->tenant, id, STORE_MS, on_revoked, r, &err) == 0)
        return;
    free(r);
    if (call_leave(c))
        call_fail(c, &err);
}
