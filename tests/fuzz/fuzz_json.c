/* json: what the scan accepts, cJSON parses; and what is parsed and written again is accepted and is the same
 * tree. */
#include <stdlib.h>

#include "json/json.h"
#include "json/writer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void copy(struct json_writer *w, const struct json *doc, const struct json_value *v)
{
    struct str s;
    double d;
    int64_t i;
    bool b;
    if (json_str(v, &s))
        jw_str(w, s);
    else if (json_int(doc, v, &i))
        jw_int(w, i);
    else if (json_bool(v, &b))
        jw_bool(w, b);
    else if (json_double(v, &d))
        jw_double(w, d);
    else if (json_type_of(v) != JSON_ARRAY && json_type_of(v) != JSON_OBJECT)
        jw_null(w);
    else {
        bool object = json_type_of(v) == JSON_OBJECT;
        object ? jw_object(w) : jw_array(w);
        for (const struct json_value *m = json_first(v); m != NULL; m = json_next(m)) {
            if (object)
                jw_key_str(w, json_key(m));
            copy(w, doc, m);
        }
        object ? jw_object_end(w) : jw_array_end(w);
    }
}

/* The same tree: types, names in order, strings, 64-bit integers, doubles. */
static bool same(const struct json *da, const struct json_value *a, const struct json *db,
                 const struct json_value *b)
{
    struct str sa = str_of(NULL), sb = sa;
    int64_t ia = 0, ib = 0;
    double fa = 0, fb = 0;
    bool ba = false, bb = false;
    if (json_type_of(a) != json_type_of(b) || !str_eq(json_key(a), json_key(b)) ||
        json_str(a, &sa) != json_str(b, &sb) || !str_eq(sa, sb) || json_bool(a, &ba) != json_bool(b, &bb) ||
        ba != bb || json_double(a, &fa) != json_double(b, &fb) || fa != fb)
        return false;
    if (json_int(da, a, &ia) && (!json_int(db, b, &ib) || ia != ib))
        return false;
    if (json_type_of(a) != JSON_ARRAY && json_type_of(a) != JSON_OBJECT)
        return true;
    const struct json_value *ca = json_first(a), *cb = json_first(b);
    for (; ca != NULL && cb != NULL; ca = json_next(ca), cb = json_next(cb))
        if (!same(da, ca, db, cb))
            return false;
    return ca == NULL && cb == NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = str_make((const char *)data, size);
    struct json *doc = json_parse(text, NULL);
    if ((doc != NULL) != (json_scan(text, NULL) == 0))
        abort();
    if (doc == NULL)
        return 0;
    struct buf out;
    buf_init(&out, (size_t)1 << 26);
    struct json_writer w = json_writer(&out);
    copy(&w, doc, json_root(doc));
    struct json *again = json_parse(buf_view(&out), NULL);
    if (again == NULL || !same(doc, json_root(doc), again, json_root(again)))
        abort();
    struct str source = json_member_source(doc, "a");
    if (source.n > 0 && json_scan(source, NULL) != 0)
        abort();
    json_free(&again);
    json_free(&doc);
    buf_deinit(&out);
    return 0;
}
