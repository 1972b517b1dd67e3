/* Pages. The document is our own, but everything is escaped; a page may load nothing and run nothing (its one
 * style is allowed by its hash). */
#include "docs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crypto/crypto.h"

enum { PAGE_BYTES = 1024 * 1024, PROBLEM_PAGE_BYTES = 16 * 1024 };

extern const char problems_json[];
extern const size_t problems_json_len;
extern const char agent_schema_json[];
extern const size_t agent_schema_json_len;

static const char html_type[] = "text/html; charset=utf-8";
static const char style[] =
    "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1c2430}"
    "h1,h2{line-height:1.2}h3{margin:2.2rem 0 .3rem;border-top:1px solid #dde3ea;padding-top:1.2rem}"
    "code{font:13px ui-monospace,monospace;background:#f2f5f8;padding:.1em .3em;border-radius:3px}"
    "table{border-collapse:collapse;width:100%;margin:.6rem 0}td,th{text-align:left;vertical-align:top;"
    "padding:.3rem .6rem .3rem 0;border-bottom:1px solid #eef1f4}th{font-weight:600;color:#5a6675}"
    ".m{display:inline-block;min-width:3.6rem;color:#fff;background:#2c6e8f;border-radius:3px;text-align:"
    "center;"
    "font:600 12px/1.7 system-ui}.get{background:#3b7d4f}.delete{background:#a4433a}a{color:#1f6feb}"
    "nav li{list-style:none;margin:.15rem 0}nav ul{padding:0}"
    "@media(prefers-color-scheme:dark){body{background:#12161c;color:#d5dce4}code{background:#1f2630}"
    "td,th{border-color:#252d38}h3{border-color:#2b3440}th{color:#8d99a8}a{color:#6ea8fe}}";

struct docs {
    const struct contract *contract;
    struct json *problems;
    struct buf page;
    char policy[160]; /* Content-Security-Policy */
};

/* ---- text ---- */

static void put(struct buf *out, const char *html)
{
    buf_cstr_append(out, html);
}

static void put_char(struct buf *out, char c)
{
    switch (c) {
    case '<':
        put(out, "&lt;");
        break;
    case '>':
        put(out, "&gt;");
        break;
    case '&':
        put(out, "&amp;");
        break;
    case '"':
        put(out, "&quot;");
        break;
    default:
        buf_byte(out, c);
    }
}

/* Escaped; `code` between backticks; an empty line begins a paragraph. */
static void put_text(struct buf *out, struct str s)
{
    bool code = false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '`') {
            put(out, code ? "</code>" : "<code>");
            code = !code;
        } else if (s.p[i] == '\n' && i + 1 < s.n && s.p[i + 1] == '\n') {
            put(out, "<p>");
            i++;
        } else {
            put_char(out, s.p[i]);
        }
    }
    if (code)
        put(out, "</code>");
}

static void put_member(struct buf *out, const struct json_value *object, const char *key)
{
    struct str s;
    if (json_str(json_get(object, key), &s))
        put_text(out, s);
}

/* What comes after the last '/' of a reference. */
static struct str ref_name(struct str ref)
{
    for (size_t i = ref.n; i > 0; i--)
        if (ref.p[i - 1] == '/')
            return str_make(ref.p + i, ref.n - i);
    return ref;
}

static void page_begin(struct buf *out, struct str title)
{
    put(out, "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" "
             "content=\"width=device-width,initial-scale=1\"><title>");
    put_text(out, title);
    put(out, "</title><style>");
    put(out, style);
    put(out, "</style>");
}

/* ---- schemas ---- */

static void put_type(struct buf *out, const struct json_value *schema);

static void put_types(struct buf *out, const struct json_value *list, const char *between)
{
    bool first = true;
    for (const struct json_value *v = json_first(list); v != NULL; v = json_next(v)) {
        struct str name;
        put(out, first ? "" : between);
        first = false;
        if (json_str(v, &name))
            put_text(out, name);
        else
            put_type(out, v);
    }
}

static void put_type(struct buf *out, const struct json_value *schema)
{
    struct str text;
    const struct json_value *type = json_get(schema, "type");
    if (json_str(json_get(schema, "$ref"), &text)) {
        put(out, "<a href=\"#");
        put_text(out, ref_name(text));
        put(out, "\">");
        put_text(out, ref_name(text));
        put(out, "</a>");
    } else if (json_get(schema, "enum") != NULL) {
        put_types(out, json_get(schema, "enum"), " | ");
    } else if (json_get(schema, "oneOf") != NULL) {
        put_types(out, json_get(schema, "oneOf"), " or ");
    } else if (json_get(schema, "anyOf") != NULL) {
        put_types(out, json_get(schema, "anyOf"), " or ");
    } else if (json_get(schema, "items") != NULL) {
        put(out, "array of ");
        put_type(out, json_get(schema, "items"));
    } else if (json_str(type, &text)) {
        put_text(out, text);
    } else {
        put_types(out, type, " or ");
    }
}

static bool in_list(const struct json_value *list, struct str name)
{
    struct str s;
    for (const struct json_value *v = json_first(list); v != NULL; v = json_next(v))
        if (json_str(v, &s) && str_eq(s, name))
            return true;
    return false;
}

static void put_schema(struct buf *out, const struct json_value *schema)
{
    const struct json_value *properties = json_get(schema, "properties"),
                            *required = json_get(schema, "required");
    put(out, "<h3 id=\"");
    put_text(out, json_key(schema));
    put(out, "\">");
    put_text(out, json_key(schema));
    put(out, "</h3><p>");
    put_member(out, schema, "description");
    put(out, " (");
    put_type(out, schema);
    put(out, ")");
    if (properties == NULL)
        return;
    put(out, "<table>");
    for (const struct json_value *v = json_first(properties); v != NULL; v = json_next(v)) {
        put(out, "<tr><td><code>");
        put_text(out, json_key(v));
        put(out, "</code>");
        put(out, in_list(required, json_key(v)) ? "" : " <small>optional</small>");
        put(out, "<td>");
        put_type(out, v);
        put(out, "<td>");
        put_member(out, v, "description");
    }
    put(out, "</table>");
}

/* ---- operations ---- */

static const char *method_name(enum http_method m)
{
    static const char *const names[] = {"get", "head", "post", "put", "delete", "patch", "options", "other"};
    return names[m];
}

/* The path as the document has it stands on the operation's parent: the pattern's names are found there. */
static void put_heading(struct buf *out, const struct route *r, struct str path, bool link)
{
    buf_printf(out, "<span class=\"m %s\">", method_name(r->method));
    for (const char *p = method_name(r->method); *p != '\0'; p++)
        buf_byte(out, (char)(*p - 'a' + 'A'));
    put(out, "</span> ");
    put(out, link ? "<a href=\"#" : "<code>");
    if (link) {
        put_member(out, r->operation, "operationId");
        put(out, "\">");
    }
    put_text(out, path);
    put(out, link ? "</a> " : "</code>");
    if (link)
        put_member(out, r->operation, "summary");
}

static void put_parameters(struct buf *out, const struct contract *c, const struct json_value *list)
{
    for (const struct json_value *v = json_first(list); v != NULL; v = json_next(v)) {
        const struct json_value *p = contract_resolve(c, v);
        put(out, "<tr><td><code>");
        put_member(out, p, "name");
        put(out, "</code> <small>");
        put_member(out, p, "in");
        put(out, "</small><td>");
        put_type(out, json_get(p, "schema"));
        put(out, "<td>");
        put_member(out, p, "description");
    }
}

static void put_content(struct buf *out, const struct json_value *content)
{
    for (const struct json_value *v = json_first(content); v != NULL; v = json_next(v)) {
        put(out, " <code>");
        put_text(out, json_key(v));
        put(out, "</code> ");
        put_type(out, json_get(v, "schema"));
    }
}

static void put_responses(struct buf *out, const struct contract *c, const struct json_value *responses)
{
    for (const struct json_value *v = json_first(responses); v != NULL; v = json_next(v)) {
        const struct json_value *r = contract_resolve(c, v);
        put(out, "<tr><td>");
        put_text(out, json_key(v));
        put(out, "<td colspan=2>");
        put_member(out, r, "description");
        put_content(out, json_get(r, "content"));
    }
}

static void put_operation(struct buf *out, const struct contract *c, const struct route *r, struct str path,
                          const struct json_value *shared)
{
    const struct json_value *body = json_get(r->operation, "requestBody");
    put(out, "<h3 id=\"");
    put_member(out, r->operation, "operationId");
    put(out, "\">");
    put_heading(out, r, path, false);
    put(out, "</h3><p><b>");
    put_member(out, r->operation, "summary");
    put(out, "</b>");
    put(out, r->open ? " (without a key)<p>" : "<p>");
    put_member(out, r->operation, "description");
    put(out, "<table>");
    put_parameters(out, c, shared);
    put_parameters(out, c, json_get(r->operation, "parameters"));
    if (body != NULL) {
        put(out, "<tr><td>body<td colspan=2>");
        put_content(out, json_get(body, "content"));
    }
    put_responses(out, c, json_get(r->operation, "responses"));
    put(out, "</table>");
}

/* Routes stand in the order of the document's operations: each is met again while walking the paths. */
static void put_operations(struct buf *out, const struct contract *c, bool list)
{
    const struct route *r = contract_routes(c);
    const struct json_value *item = json_first(json_get(contract_root(c), "paths"));
    for (; item != NULL; item = json_next(item))
        for (; r != NULL && r->item == item; r = r->next) {
            if (list) {
                put(out, "<li>");
                put_heading(out, r, json_key(item), true);
            } else {
                put_operation(out, c, r, json_key(item), json_get(item, "parameters"));
            }
        }
}

static void put_codes(struct buf *out, const struct json *problems)
{
    put(out, "<h2 id=\"problems\">Problems</h2><table>");
    for (const struct json_value *v = json_first(json_root(problems)); v != NULL; v = json_next(v)) {
        struct str text = str_of(NULL), code = json_key(v);
        int status = err_http_status(err_code_from_name(code.p, code.n));
        json_str(v, &text);
        put(out, "<tr><td><a href=\"/problems/");
        put_text(out, code);
        put(out, "\">");
        put_text(out, code);
        if (status >= 400)
            buf_printf(out, "</a><td>%d<td>", status);
        else
            put(out, "</a><td>in a record<td>");
        put_text(out, text);
    }
    put(out, "</table>");
}

static void render(struct docs *d)
{
    const struct json_value *root = contract_root(d->contract), *info = json_get(root, "info"), *v;
    struct buf *out = &d->page;
    page_begin(out, STR("Sandpiper's API"));
    put(out, "<h1>");
    put_member(out, info, "title");
    put(out, "</h1><p>");
    put_member(out, info, "description");
    put(out, "<p><a href=\"/openapi.json\">openapi.json</a> (OpenAPI 3.1) is the same to machines.<nav><ul>");
    put_operations(out, d->contract, true);
    put(out, "</ul></nav><h2>Operations</h2>");
    put_operations(out, d->contract, false);
    put(out, "<h2>Schemas</h2>");
    for (v = json_first(json_get(json_get(root, "components"), "schemas")); v != NULL; v = json_next(v))
        put_schema(out, v);
    put_codes(out, d->problems);
}

/* ---- life ---- */

static void make_policy(struct docs *d)
{
    uint8_t hash[SHA256_BYTES];
    struct buf text;
    crypto_sha256(str_of(style), hash);
    buf_init(&text, 128);
    crypto_base64(str_make((const char *)hash, sizeof hash), &text);
    snprintf(d->policy, sizeof d->policy, "default-src 'none'; style-src 'sha256-%s'; frame-ancestors 'none'",
             buf_cstr(&text));
    buf_deinit(&text);
}

struct docs *docs_new(const struct contract *contract, struct err *err)
{
    struct docs *d = calloc(1, sizeof *d);
    if (d == NULL) {
        err_set(err, ERR_NO_MEMORY, "pages");
        return NULL;
    }
    d->contract = contract;
    buf_init(&d->page, PAGE_BYTES);
    make_policy(d);
    d->problems = json_parse(str_make(problems_json, problems_json_len), err);
    if (d->problems == NULL) {
        docs_free(&d);
        return NULL;
    }
    render(d);
    if (d->page.failed) {
        err_set(err, ERR_LIMIT, "the page of the contract is too large");
        docs_free(&d);
    }
    return d;
}

void docs_free(struct docs **pd)
{
    if (pd == NULL || *pd == NULL)
        return;
    json_free(&(*pd)->problems);
    buf_deinit(&(*pd)->page);
    free(*pd);
    *pd = NULL;
}

/* ---- answers ---- */

static void reply_html(struct call *c, struct str page)
{
    http_set_header(c->req, "Content-Security-Policy", str_of(c->g->docs->policy));
    http_set_header(c->req, "X-Content-Type-Options", STR("nosniff"));
    http_set_header(c->req, "Cache-Control", STR("no-cache"));
    call_reply_bytes(c, 200, html_type, page);
}

void docs_contract(struct call *c)
{
    call_reply_bytes(c, 200, "application/json", contract_text());
}

void docs_agent_schema(struct call *c)
{
    call_reply_bytes(c, 200, "application/schema+json", str_make(agent_schema_json, agent_schema_json_len));
}

void docs_page(struct call *c)
{
    reply_html(c, buf_view(&c->g->docs->page));
}

static const char *retry_words(enum err_code code)
{
    switch (err_retry_class(code)) {
    case RETRY_LATER:
        return "The same request may succeed later: wait as Retry-After says.";
    case RETRY_CHECK:
        return "Whether it took effect is not known: look before trying again.";
    case RETRY_NEVER:
        break;
    }
    return "The same request will be answered the same way.";
}

void docs_problem(struct call *c)
{
    struct buf out;
    struct str text;
    enum err_code code = err_code_from_name(c->arg.p, c->arg.n);
    if (!json_str(json_get(json_root(c->g->docs->problems), c->arg_text), &text)) {
        call_fail_code(c, ERR_NOT_FOUND, "there is no problem of that code; /docs#problems lists them");
        return;
    }
    int status = err_http_status(code);
    buf_init(&out, PROBLEM_PAGE_BYTES);
    page_begin(&out, c->arg);
    put(&out, "<h1><code>");
    put_text(&out, c->arg);
    put(&out, "</code></h1><p><b>");
    put_text(&out, str_of(err_public_text(code)));
    put(&out, "</b><p>");
    put_text(&out, text);
    if (status >= 400)
        buf_printf(&out, "<p>HTTP status %d. %s", status, retry_words(code));
    else
        put(&out, "<p>It is no answer of its own: it stands in <code>error.code</code> of a record.");
    put(&out, "<p><a href=\"/docs#problems\">All problems</a>");
    reply_html(c, buf_view(&out));
    buf_deinit(&out);
}
