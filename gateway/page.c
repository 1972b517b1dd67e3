/* Pages. */
#include "page.h"

#include <string.h>

#include "model/listing.h"

int page_read(const struct call *c, struct str scope, int max, struct page *out, struct err *err)
{
    struct str text;
    struct buf position;
    *out = (struct page){.scope = scope, .limit = PAGE_LIMIT_DEFAULT};
    int got = http_query_get(c->req, "limit", &text, err);
    if (got > 0)
        got = listing_limit(text, max, &out->limit, err);
    if (got >= 0)
        got = http_query_get(c->req, "cursor", &text, err);
    if (got <= 0)
        return got;
    buf_init(&position, CURSOR_POSITION_MAX);
    got = cursor_read(&c->g->cursor_key, c->tenant, scope, text, &position, err);
    if (got == 0)
        memcpy(out->position, position.data, out->position_len = position.len);
    buf_deinit(&position);
    return got;
}

int page_read_id(const struct call *c, struct str scope, int max, struct page *out, struct uuid *after,
                 struct err *err)
{
    if (page_read(c, scope, max, out, err) != 0)
        return -1;
    if (out->position_len == 0)
        return 0;
    if (out->position_len != sizeof after->b)
        return err_set(err, ERR_BAD_CURSOR, "the cursor is of another version");
    memcpy(after->b, out->position, sizeof after->b);
    return 0;
}

static void write_cursor(const struct call *c, const struct page *p, struct str place, struct json_writer *w)
{
    struct buf text;
    buf_init(&text, CURSOR_TEXT_MAX);
    cursor_write(&c->g->cursor_key, c->tenant, p->scope, place, &text);
    jw_kstr(w, "next_cursor", buf_view(&text));
    buf_deinit(&text);
}

void page_reply(struct call *c, const struct page *p, const char *member, const struct page_rows *rows,
                size_t body_bytes)
{
    struct buf body;
    size_t shown = rows->n > (size_t)p->limit ? (size_t)p->limit : rows->n;
    buf_init(&body, body_bytes);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    if (rows->head != NULL)
        rows->head(rows->rows, &w);
    jw_key(&w, member);
    jw_array(&w);
    for (size_t i = 0; i < shown; i++)
        rows->write(rows->rows, i, &w);
    jw_array_end(&w);
    if (rows->n > shown)
        write_cursor(c, p, rows->place(rows->rows, shown - 1), &w);
    else
        jw_knull(&w, "next_cursor");
    jw_object_end(&w);
    call_reply_json(c, 200, &body);
}
