/* Reading the contract. */
#include "contract.h"

#include <stdlib.h>
#include <string.h>

#include "model/api_key.h"

extern const char openapi_json[];
extern const size_t openapi_json_len;

struct contract {
    struct json *doc;
    struct route *routes;
};

static const struct {
    const char *name;
    enum http_method method;
} methods[] = {{"get", HTTP_M_GET},       {"post", HTTP_M_POST},   {"put", HTTP_M_PUT},
               {"delete", HTTP_M_DELETE}, {"patch", HTTP_M_PATCH}, {"options", HTTP_M_OPTIONS}};

struct str contract_text(void)
{
    return str_make(openapi_json, openapi_json_len);
}

const struct route *contract_routes(const struct contract *c)
{
    return c->routes;
}

const struct json_value *contract_root(const struct contract *c)
{
    return json_root(c->doc);
}

const struct json_value *contract_resolve(const struct contract *c, const struct json_value *v)
{
    struct str ref, name;
    char key[128];
    if (!json_str(json_get(v, "$ref"), &ref) || !str_starts(ref, STR("#/")))
        return v;
    const struct json_value *at = json_root(c->doc);
    ref = str_make(ref.p + 2, ref.n - 2);
    while (at != NULL && str_split(&ref, '/', &name))
        at = str_copy(name, key, sizeof key) ? json_get(at, key) : NULL;
    return at;
}

/* ---- one route ---- */

/* "/v1/agents/{name}" -> "/v1/agents/{}"; "{path}" -> "{*}": it may hold slashes */
static char *pattern_of(struct str path)
{
    char *out = malloc(path.n + 1), *to = out;
    bool inside = false;
    for (size_t i = 0; out != NULL && i < path.n; i++) {
        if (path.p[i] == '}')
            inside = false;
        if (!inside)
            *to++ = path.p[i];
        if (path.p[i] == '{')
            inside = true;
        if (str_starts(str_make(path.p + i, path.n - i), STR("{path}")))
            *to++ = '*';
    }
    if (out != NULL)
        *to = '\0';
    return out;
}

/* The names of the query parameters: views into the document, each of which is NUL-ended there. */
static const char **query_of(const struct contract *c, const struct json_value *operation)
{
    const struct json_value *list = json_get(operation, "parameters");
    const char **names = calloc(json_count(list) + 1, sizeof *names);
    size_t n = 0;
    for (const struct json_value *v = json_first(list); names != NULL && v != NULL; v = json_next(v)) {
        const struct json_value *p = contract_resolve(c, v);
        struct str where, name;
        if (json_str(json_get(p, "in"), &where) && str_eq_c(where, "query") &&
            json_str(json_get(p, "name"), &name))
            names[n++] = name.p;
    }
    return names;
}

/* `security` of an operation: alternatives, {"key": [scope]} each. 0: there are none, or one is not so. */
static unsigned scopes_of(const struct json_value *security)
{
    unsigned all = 0;
    for (const struct json_value *v = json_first(security); v != NULL; v = json_next(v)) {
        const struct json_value *list = json_get(v, "key");
        struct str name;
        unsigned bit = json_count(list) == 1 && json_str(json_first(list), &name) ? key_scope_parse(name) : 0;
        if (bit == 0)
            return 0;
        all |= bit;
    }
    return all;
}

static void route_free(struct route *r)
{
    free(r->path);
    free(r->query);
    free(r);
}

static struct route *route_new(const struct contract *c, const struct json_value *item,
                               enum http_method method, const struct json_value *operation)
{
    struct route *r = calloc(1, sizeof *r);
    struct str own;
    const struct json_value *security = json_get(operation, "security");
    if (r == NULL)
        return NULL;
    bool checked = !json_str(json_get(operation, "x-query"), &own);
    r->method = method;
    r->path = pattern_of(json_key(item));
    r->query = checked ? query_of(c, operation) : NULL;
    r->open = security != NULL && json_count(security) == 0;
    r->scopes = scopes_of(security);
    r->item = item;
    r->operation = operation;
    if (r->path != NULL && (!checked || r->query != NULL))
        return r;
    route_free(r);
    return NULL;
}

/* ---- all of them ---- */

static int find_handler(struct route *r, const struct operation_handler *handlers, size_t n, bool *used,
                        struct err *err)
{
    struct str id = str_of(NULL);
    json_str(json_get(r->operation, "operationId"), &id);
    for (size_t i = 0; i < n; i++) {
        if (!str_eq_c(id, handlers[i].operation))
            continue;
        r->handle = handlers[i].handle;
        used[i] = true;
        if (r->open || r->scopes != 0)
            return 0;
        return err_set(err, ERR_CONFIG,
                       "the contract's operation \"%.*s\" does not say which scope it asks for (`security`)",
                       STR_ARG(id));
    }
    return err_set(err, ERR_CONFIG, "the contract's operation \"%.*s\" has no handler", STR_ARG(id));
}

static int read_path(struct contract *c, const struct json_value *item, struct route ***end,
                     const struct operation_handler *handlers, size_t n, bool *used, struct err *err)
{
    for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
        const struct json_value *operation = json_get(item, methods[m].name);
        if (operation == NULL)
            continue;
        struct route *r = route_new(c, item, methods[m].method, operation);
        if (r == NULL)
            return err_set(err, ERR_NO_MEMORY, "contract");
        **end = r;
        *end = &r->next;
        if (find_handler(r, handlers, n, used, err) != 0)
            return -1;
    }
    return 0;
}

static int read_paths(struct contract *c, const struct operation_handler *handlers, size_t n, struct err *err)
{
    struct route **end = &c->routes;
    bool *used = calloc(n, sizeof *used);
    int got = used != NULL ? 0 : err_set(err, ERR_NO_MEMORY, "contract");
    const struct json_value *item = json_first(json_get(json_root(c->doc), "paths"));
    for (; got == 0 && item != NULL; item = json_next(item))
        got = read_path(c, item, &end, handlers, n, used, err);
    for (size_t i = 0; got == 0 && i < n; i++)
        if (!used[i])
            got = err_set(err, ERR_CONFIG, "the contract has no operation \"%s\"", handlers[i].operation);
    free(used);
    return got;
}

struct contract *contract_new(const struct operation_handler *handlers, size_t n, struct err *err)
{
    struct contract *c = calloc(1, sizeof *c);
    if (c == NULL) {
        err_set(err, ERR_NO_MEMORY, "contract");
        return NULL;
    }
    c->doc = json_parse(contract_text(), err);
    if (c->doc == NULL || read_paths(c, handlers, n, err) != 0)
        contract_free(&c);
    return c;
}

void contract_free(struct contract **pc)
{
    if (pc == NULL || *pc == NULL)
        return;
    struct contract *c = *pc;
    while (c->routes != NULL) {
        struct route *r = c->routes;
        c->routes = r->next;
        route_free(r);
    }
    json_free(&c->doc);
    free(c);
    *pc = NULL;
}
