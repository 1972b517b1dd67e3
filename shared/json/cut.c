/* Cutting streams. A machine over bytes:
 *
 *   lines:  ITEM, cut at each line end
 *   array:  START -> '[' -> FIRST -> ITEM -> AFTER -> NEXT -> ITEM … -> ']' -> END
 *           START -> '{' -> FRAME until `"items": [`, then as above, ']' -> FRAME … '}' -> END
 *
 * An item that lies whole in a piece is handed on where it lies; only one that is split is gathered. */
#include "json/cut.h"

#include <string.h>

enum { FRAME_MAX_BYTES = 64 * 1024 };
enum step { CUT_START, CUT_FRAME, CUT_FIRST, CUT_ITEM, CUT_AFTER, CUT_NEXT, CUT_END };

void json_cut_init(struct json_cut *c, enum json_cut_form form, size_t item_max, json_cut_fn *fn, void *arg)
{
    *c = (struct json_cut){.form = form,
                           .fn = fn,
                           .arg = arg,
                           .item_max = item_max,
                           .line = 1,
                           .step = form == JSON_CUT_LINES ? CUT_ITEM : CUT_START,
                           .began = 1};
    buf_init(&c->item, item_max);
    buf_init(&c->frame, FRAME_MAX_BYTES);
}

void json_cut_deinit(struct json_cut *c)
{
    buf_deinit(&c->item);
    buf_deinit(&c->frame);
}

struct str json_cut_frame(const struct json_cut *c)
{
    return buf_view(&c->frame);
}

static int fail(const struct json_cut *c, struct err *err, const char *what)
{
    return err_set(err, ERR_BAD_JSON, "line %llu: %s", (unsigned long long)c->line, what);
}

static bool is_space(char b)
{
    return b == ' ' || b == '\t' || b == '\r' || b == '\n';
}

static bool is_blank(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!is_space(s.p[i]))
            return false;
    return true;
}

/* ---- items ---- */

/* A part of an item that goes on in the next piece. */
static void gather(struct json_cut *c, struct str part)
{
    if (c->skipped == 0 && c->item.len + part.n <= c->item_max && buf_str(&c->item, part))
        return;
    c->skipped += c->item.len + part.n;
    buf_deinit(&c->item); /* its memory is not needed any more */
}

/* The item's last part. False: stop. */
static bool hand_on(struct json_cut *c, struct str last)
{
    struct str text = last;
    bool gathered = c->item.len > 0 || c->skipped > 0 || last.n > c->item_max;
    if (gathered) {
        gather(c, last);
        text = c->skipped > 0 ? str_make(NULL, c->skipped) : buf_view(&c->item);
    }
    bool go_on = true;
    if (c->form == JSON_CUT_ARRAY || text.p == NULL || !is_blank(text))
        go_on = c->fn(c->arg, ++c->number, c->began, text);
    c->skipped = 0;
    if (c->item.cap > 64 * 1024)
        buf_deinit(&c->item);
    else
        buf_clear(&c->item);
    return go_on;
}

static int put_lines(struct json_cut *c, struct str piece)
{
    while (piece.n > 0) {
        const char *end = memchr(piece.p, '\n', piece.n);
        if (end == NULL) {
            gather(c, piece);
            return 0;
        }
        size_t n = (size_t)(end - piece.p);
        if (!hand_on(c, str_make(piece.p, n)))
            return -1;
        c->began = ++c->line;
        piece = str_make(end + 1, piece.n - n - 1);
    }
    return 0;
}

/* ---- arrays ---- */

/* Follows strings and brackets over one byte. */
static void follow(struct json_cut *c, char b)
{
    if (c->in_string) {
        if (c->escaped)
            c->escaped = false;
        else if (b == '\\')
            c->escaped = true;
        else if (b == '"')
            c->in_string = false;
        return;
    }
    if (b == '"')
        c->in_string = true;
    else if (b == '{' || b == '[')
        c->depth++;
    else if (b == '}' || b == ']')
        c->depth--;
}

/* Where the item that begins or goes on at p[0] ends: how many bytes of it lie in p; *whole: its last one
 * does. */
static size_t follow_item(struct json_cut *c, struct str p, bool *whole)
{
    for (size_t i = 0; i < p.n; i++) {
        if (c->in_string && !c->escaped && p.p[i] != '"' && p.p[i] != '\\' && p.p[i] != '\n')
            continue;
        follow(c, p.p[i]);
        if (p.p[i] == '\n')
            c->line++;
        if (c->depth == 0 && !c->in_string) {
            *whole = true;
            return i + 1;
        }
    }
    *whole = false;
    return p.n;
}

/* Whether the frame, up to here, ends with the name `items` and its colon. */
static bool items_follow(const struct json_cut *c)
{
    static const struct str name = {.p = "\"items\"", .n = 7};
    struct str s = buf_view(&c->frame);
    while (s.n > 0 && is_space(s.p[s.n - 1]))
        s.n--;
    if (s.n == 0 || s.p[s.n - 1] != ':')
        return false;
    do
        s.n--;
    while (s.n > 0 && is_space(s.p[s.n - 1]));
    return s.n > name.n && memcmp(s.p + s.n - name.n, name.p, name.n) == 0 && s.p[s.n - name.n - 1] != '\\';
}

/* One byte of the frame. */
static int put_frame(struct json_cut *c, char b, struct err *err)
{
    bool array = b == '[' && !c->in_string && c->depth == 1 && items_follow(c);
    if (!buf_byte(&c->frame, b))
        return err_set(err, ERR_BAD_JSON, "line %llu: over %d bytes besides the items",
                       (unsigned long long)c->line, FRAME_MAX_BYTES);
    if (array) {
        c->step = CUT_FIRST;
        return 0;
    }
    follow(c, b);
    if (c->depth == 0 && !c->in_string)
        c->step = CUT_END;
    return 0;
}

static int close_array(struct json_cut *c)
{
    if (c->framed)
        buf_byte(&c->frame, ']');
    c->step = c->framed ? CUT_FRAME : CUT_END;
    return 0;
}

/* One byte between items that is no space. */
static int put_between(struct json_cut *c, char b, struct err *err)
{
    switch ((enum step)c->step) {
    case CUT_START:
        if (b != '[' && b != '{')
            return fail(c, err, "expected an array of items, or an object with \"items\"");
        c->framed = b == '{';
        c->step = c->framed ? CUT_FRAME : CUT_FIRST;
        return c->framed ? put_frame(c, b, err) : 0;
    case CUT_FIRST:
    case CUT_NEXT:
        if (b == ']' && c->step == CUT_FIRST)
            return close_array(c);
        return fail(c, err, "expected an item: a JSON object");
    case CUT_AFTER:
        if (b == ']')
            return close_array(c);
        if (b != ',')
            return fail(c, err, "expected ',' or ']' after an item");
        c->step = CUT_NEXT;
        return 0;
    case CUT_END:
        return fail(c, err, "something follows the document");
    case CUT_FRAME:
    case CUT_ITEM:
        break;
    }
    return fail(c, err, "unexpected text");
}

static int put_array(struct json_cut *c, struct str piece, struct err *err)
{
    size_t at = 0;
    while (at < piece.n) {
        char b = piece.p[at];
        bool begins = b == '{' && (c->step == CUT_FIRST || c->step == CUT_NEXT);
        if (begins) {
            c->began = c->line;
            c->depth = 0;
            c->step = CUT_ITEM;
        }
        if (c->step == CUT_ITEM) {
            bool whole;
            struct str rest = str_make(piece.p + at, piece.n - at);
            size_t n = follow_item(c, rest, &whole);
            if (!whole)
                gather(c, rest);
            else if (!hand_on(c, str_make(rest.p, n)))
                return -1;
            if (whole) {
                c->step = CUT_AFTER;
                c->depth = c->framed ? 1 : 0;
            }
            at += n;
            continue;
        }
        bool framing = c->step == CUT_FRAME;
        if ((framing && put_frame(c, b, err) != 0) ||
            (!framing && !is_space(b) && put_between(c, b, err) != 0))
            return -1;
        if (b == '\n')
            c->line++;
        at++;
    }
    return 0;
}

int json_cut_put(struct json_cut *c, struct str piece, struct err *err)
{
    return c->form == JSON_CUT_LINES ? put_lines(c, piece) : put_array(c, piece, err);
}

int json_cut_end(struct json_cut *c, struct err *err)
{
    if (c->form == JSON_CUT_LINES)
        return c->item.len == 0 && c->skipped == 0 ? 0 : hand_on(c, STR("")) ? 0 : -1;
    if (c->step != CUT_END)
        return fail(c, err, "the text ends too early");
    return 0;
}
