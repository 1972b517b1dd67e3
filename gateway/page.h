/* Lists in pages: `limit` and `cursor` read, a page answered with the cursor of the next one. For lists that
 * are read from a position on, in the order that they are shown in; who lists asks the store for limit + 1
 * rows, so that it is known whether there is another page. */
#ifndef GATEWAY_PAGE_H
#define GATEWAY_PAGE_H

#include "call.h"
#include "cursor.h"
#include "json/writer.h"

enum { PAGE_LIMIT_DEFAULT = 50 };

struct page {
    struct str scope; /* which list: what a cursor is bound to, with the tenant; the caller's, valid until the
                         answer */
    int limit;
    char position[CURSOR_POSITION_MAX]; /* behind which it begins */
    size_t position_len;                /* 0: at the beginning */
};

/* Reads the call's query. max: of limit. -1 and *err. */
int page_read(const struct call *c, struct str scope, int max, struct page *out, struct err *err);
/* The same where positions are ids: *after stays as it is at the beginning. */
int page_read_id(const struct call *c, struct str scope, int max, struct page *out, struct uuid *after,
                 struct err *err);
/* The position as text. */
static inline struct str page_after(const struct page *p)
{
    return str_make(p->position, p->position_len);
}

/* What the store gave. */
struct page_rows {
    const void *rows;
    size_t n;
    void (*head)(const void *rows, struct json_writer *w); /* members before the rows; may be NULL */
    void (*write)(const void *rows, size_t i, struct json_writer *w);
    struct str (*place)(const void *rows, size_t i); /* its position */
};
/* Answers with {member: [row, …], "next_cursor"}. */
void page_reply(struct call *c, const struct page *p, const char *member, const struct page_rows *rows,
                size_t body_bytes);

#endif
