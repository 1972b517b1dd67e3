/* Documents: the strict scan, then cJSON's tree, read through typed and case-sensitive look-ups.
 *
 * cJSON keeps numbers as doubles. The scan therefore notes every number in document order; after parsing, one
 * walk in the same order puts each number's place in that list into the node's `valueint`, which nothing else
 * uses, and json_int reads the exact value there. A `struct json_value` is cJSON's node; the cast stays here.
 */
#include "json/json.h"

#include <cjson/cJSON.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crypto/crypto.h"
#include "json/scan.h"

struct json {
    cJSON *root;
    struct str text; /* borrowed */
    struct json_facts facts;
};

static const cJSON *node(const struct json_value *v)
{
    return (const cJSON *)(const void *)v;
}

static const struct json_value *value(const cJSON *n)
{
    return (const struct json_value *)(const void *)n;
}

/* ---- parsing ---- */

/* Numbers longer than cJSON's buffer, rewritten in place to what they read as, padded with spaces. */
static void shorten_numbers(char *copy, struct str text, const struct json_facts *facts)
{
    for (size_t i = 0; i < facts->long_count; i++) {
        struct str n = facts->longs[i];
        char *at = copy + (n.p - text.p);
        char after = at[n.n]; /* the copy ends with a NUL, so this byte exists */
        at[n.n] = '\0';
        char brief[32];
        int len = snprintf(brief, sizeof brief, "%.17g", strtod(at, NULL));
        memset(at, ' ', n.n);
        memcpy(at, brief, (size_t)len);
        at[n.n] = after;
    }
}

static cJSON *parse_tree(struct str text, const struct json_facts *facts)
{
    if (facts->long_count == 0)
        return cJSON_ParseWithLengthOpts(text.p, text.n, NULL, false);
    char *copy = str_dup(text);
    if (copy == NULL)
        return NULL;
    shorten_numbers(copy, text, facts);
    cJSON *root = cJSON_ParseWithLengthOpts(copy, text.n, NULL, false);
    free(copy);
    return root;
}

/* Numbers the number nodes in document order. The depth is bounded by the scan. */
static void number_nodes(cJSON *n, int *next)
{
    for (; n != NULL; n = n->next) {
        if (cJSON_IsNumber(n))
            n->valueint = (*next)++;
        number_nodes(n->child, next);
    }
}

static int parse(struct json *doc, struct str text, struct err *err)
{
    if (text.n > INT_MAX)
        return err_set(err, ERR_LIMIT, "the JSON text is too large");
    if (json_scan_facts(text, &doc->facts, err) != 0)
        return -1;
    doc->root = parse_tree(text, &doc->facts);
    if (doc->root == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory to parse the JSON text");
    doc->text = text;
    int count = 0;
    number_nodes(doc->root, &count);
    INVARIANT((size_t)count == doc->facts.number_count);
    return 0;
}

struct json *json_parse(struct str text, struct err *err)
{
    struct json *doc = calloc(1, sizeof *doc);
    if (doc == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory to parse the JSON text");
        return NULL;
    }
    if (parse(doc, text, err) != 0)
        json_free(&doc);
    return doc;
}

void json_free(struct json **doc)
{
    if (doc == NULL || *doc == NULL)
        return;
    cJSON_Delete((*doc)->root);
    json_facts_deinit(&(*doc)->facts);
    free(*doc);
    *doc = NULL;
}

static void wipe(cJSON *v)
{
    for (; v != NULL; v = v->next) {
        if (v->valuestring != NULL)
            crypto_wipe(v->valuestring, strlen(v->valuestring));
        wipe(v->child); /* JSON_MAX_DEPTH bounds it */
    }
}

void json_free_secret(struct json **doc)
{
    if (doc != NULL && *doc != NULL)
        wipe((*doc)->root);
    json_free(doc);
}

const struct json_value *json_root(const struct json *doc)
{
    return doc != NULL ? value(doc->root) : NULL;
}

/* ---- walking ---- */

enum json_type json_type_of(const struct json_value *v)
{
    const cJSON *n = node(v);
    if (n == NULL)
        return JSON_ABSENT;
    if (cJSON_IsNull(n))
        return JSON_NULL;
    if (cJSON_IsBool(n))
        return JSON_BOOL;
    if (cJSON_IsNumber(n))
        return JSON_NUMBER;
    if (cJSON_IsString(n))
        return JSON_STRING;
    return cJSON_IsArray(n) ? JSON_ARRAY : JSON_OBJECT;
}

const struct json_value *json_get(const struct json_value *object, const char *key)
{
    const cJSON *n = node(object);
    return n != NULL && cJSON_IsObject(n) ? value(cJSON_GetObjectItemCaseSensitive(n, key)) : NULL;
}

const struct json_value *json_first(const struct json_value *container)
{
    return container != NULL ? value(node(container)->child) : NULL;
}

const struct json_value *json_next(const struct json_value *v)
{
    return v != NULL ? value(node(v)->next) : NULL;
}

struct str json_key(const struct json_value *member)
{
    return str_of(member != NULL ? node(member)->string : NULL);
}

size_t json_count(const struct json_value *container)
{
    return container != NULL ? (size_t)cJSON_GetArraySize(node(container)) : 0;
}

/* *at grows by the nodes before it, in document order. */
static bool find_node(const cJSON *n, const cJSON *wanted, size_t *at)
{
    for (; n != NULL; n = n->next) {
        if (n == wanted)
            return true;
        (*at)++;
        if (find_node(n->child, wanted, at))
            return true;
    }
    return false;
}

unsigned json_line(const struct json *doc, const struct json_value *v)
{
    size_t at = 0;
    return find_node(doc->root, node(v), &at) ? json_nth_line(doc->text, at) : 1;
}

/* ---- typed reads ---- */

bool json_str(const struct json_value *v, struct str *out)
{
    if (json_type_of(v) != JSON_STRING)
        return false;
    *out = str_of(node(v)->valuestring);
    return true;
}

bool json_int(const struct json *doc, const struct json_value *v, int64_t *out)
{
    if (json_type_of(v) != JSON_NUMBER)
        return false;
    const struct json_number *n = &doc->facts.numbers[node(v)->valueint];
    if (n->exact)
        *out = n->value;
    return n->exact;
}

bool json_double(const struct json_value *v, double *out)
{
    if (json_type_of(v) != JSON_NUMBER)
        return false;
    *out = node(v)->valuedouble;
    return true;
}

bool json_bool(const struct json_value *v, bool *out)
{
    if (json_type_of(v) != JSON_BOOL)
        return false;
    *out = cJSON_IsTrue(node(v));
    return true;
}

struct str json_member_source(const struct json *doc, const char *key)
{
    if (json_type_of(json_root(doc)) != JSON_OBJECT)
        return STR("");
    size_t i = 0;
    for (const cJSON *n = doc->root->child; n != NULL; n = n->next, i++)
        if (strcmp(n->string, key) == 0)
            return doc->facts.members[i];
    return STR("");
}

/* ---- unknown members ---- */

enum { SHOWN_NAME_BYTES = 60 };

static bool is_known(struct str name, const char *const *known)
{
    for (; *known != NULL; known++)
        if (str_eq_c(name, *known))
            return true;
    return false;
}

static int unknown_field(struct str name, const char *const *known, struct err *err)
{
    const char *meant = str_nearest(name, known);
    if (name.n > SHOWN_NAME_BYTES) {
        name.n = SHOWN_NAME_BYTES;
        while (name.n > 0 && ((unsigned char)name.p[name.n] & 0xc0) == 0x80) /* not inside a character */
            name.n--;
    }
    if (meant == NULL)
        return err_set(err, ERR_UNKNOWN_FIELD, "unknown field \"%.*s\"", STR_ARG(name));
    return err_set(err, ERR_UNKNOWN_FIELD, "unknown field \"%.*s\"; did you mean \"%s\"?", STR_ARG(name),
                   meant);
}

const struct json_value *json_unknown_field(const struct json_value *object, const char *const *known)
{
    const struct json_value *m = json_first(object);
    while (m != NULL && is_known(json_key(m), known))
        m = json_next(m);
    return m;
}

int json_known_fields(const struct json_value *object, const char *const *known, struct err *err)
{
    const struct json_value *m = json_unknown_field(object, known);
    return m != NULL ? unknown_field(json_key(m), known, err) : 0;
}
