/* json/cut: the same items wherever the stream is split; and a document that the strict scan accepts is cut
 * into elements that it accepts, too. */
#include <stdlib.h>
#include <string.h>

#include "json/cut.h"
#include "json/json.h"

enum { ITEM_MAX = 256 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    struct buf all; /* every item, its line, and a mark between them */
    bool each_is_json;
};

static bool on_item(void *arg, uint64_t number, uint64_t line, struct str text)
{
    struct seen *s = arg;
    (void)number;
    buf_u64(&s->all, line);
    buf_byte(&s->all, ' ');
    buf_u64(&s->all, text.n);
    buf_byte(&s->all, ' ');
    if (text.p != NULL)
        buf_str(&s->all, text);
    if (text.p != NULL && json_scan(text, NULL) != 0)
        s->each_is_json = false;
    return true;
}

static int cut(enum json_cut_form form, struct str text, size_t first, struct seen *s, struct buf *frame)
{
    struct json_cut c;
    struct err err;
    json_cut_init(&c, form, ITEM_MAX, on_item, s);
    int rc = json_cut_put(&c, str_make(text.p, first), &err);
    if (rc == 0)
        rc = json_cut_put(&c, str_make(text.p + first, text.n - first), &err);
    if (rc == 0)
        rc = json_cut_end(&c, &err);
    if (rc == 0)
        buf_str(frame, json_cut_frame(&c));
    json_cut_deinit(&c);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    enum json_cut_form form = data[0] & 1 ? JSON_CUT_ARRAY : JSON_CUT_LINES;
    struct str text = str_make((const char *)data + 2, size - 2);
    struct seen whole = {.each_is_json = true}, split = whole;
    struct buf frames[2];
    buf_init(&whole.all, 1 << 24);
    buf_init(&split.all, 1 << 24);
    buf_init(&frames[0], 1 << 20);
    buf_init(&frames[1], 1 << 20);
    int a = cut(form, text, 0, &whole, &frames[0]);
    int b = cut(form, text, text.n > 0 ? data[1] % text.n : 0, &split, &frames[1]);
    if (a != b || !str_eq(buf_view(&whole.all), buf_view(&split.all)) ||
        !str_eq(buf_view(&frames[0]), buf_view(&frames[1])))
        abort();
    if (form == JSON_CUT_ARRAY && a == 0 && json_scan(text, NULL) == 0 && !whole.each_is_json)
        abort();
    buf_deinit(&whole.all);
    buf_deinit(&split.all);
    buf_deinit(&frames[0]);
    buf_deinit(&frames[1]);
    return 0;
}
