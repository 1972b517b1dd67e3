/* json: what the scan accepts parses, and what is parsed and written again is accepted and counts the same.
 */
#include <stdlib.h>

#include "json/json.h"
#include "json/writer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void copy(struct json_writer *w, const struct json *doc, const struct json_value *v)
{
    struct str s;
    double d;
    if (json_str(v, &s))
        jw_str(w, s);
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
    if (again == NULL || json_count(json_root(again)) != json_count(json_root(doc)))
        abort();
    struct str source = json_member_source(doc, "a");
    if (source.n > 0 && json_scan(source, NULL) != 0)
        abort();
    json_free(&again);
    json_free(&doc);
    buf_deinit(&out);
    return 0;
}
