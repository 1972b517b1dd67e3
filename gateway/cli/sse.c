/* Reading Server-Sent Events. */
#include "sse.h"

#include <string.h>

void sse_init(struct sse *s, size_t max_bytes, sse_event_fn *fn, void *arg)
{
    *s = (struct sse){.fn = fn, .arg = arg};
    buf_init(&s->line, max_bytes);
    buf_init(&s->data, max_bytes);
}

void sse_deinit(struct sse *s)
{
    buf_deinit(&s->line);
    buf_deinit(&s->data);
}

static void clear_event(struct sse *s)
{
    buf_clear(&s->data);
    s->name[0] = '\0';
    s->has_data = false;
}

void sse_reset(struct sse *s)
{
    clear_event(s);
    buf_clear(&s->line);
    memcpy(s->next_id, s->id, sizeof s->id);
    s->after_cr = s->begun = false;
}

/* The empty line: the event is whole. */
static void dispatch(struct sse *s)
{
    memcpy(s->id, s->next_id, sizeof s->id);
    if (s->has_data)
        s->fn(s->arg, s->name[0] != '\0' ? str_of(s->name) : STR("message"), buf_view(&s->data));
    clear_event(s);
}

static bool take_field(struct sse *s, struct str name, struct str value)
{
    if (str_eq_c(name, "data")) {
        if (s->has_data)
            buf_byte(&s->data, '\n');
        s->has_data = true;
        return buf_str(&s->data, value);
    }
    if (str_eq_c(name, "event"))
        return str_copy(value, s->name, sizeof s->name);
    if (str_eq_c(name, "id") && (value.n == 0 || memchr(value.p, '\0', value.n) == NULL))
        return str_copy(value, s->next_id, sizeof s->next_id);
    return true;
}

static bool take_line(struct sse *s, struct str line)
{
    if (!s->begun && str_starts(line, STR("\xEF\xBB\xBF")))
        line = str_make(line.p + 3, line.n - 3);
    s->begun = true;
    if (line.n == 0) {
        dispatch(s);
        return true;
    }
    const char *colon = memchr(line.p, ':', line.n);
    if (colon == NULL)
        return take_field(s, line, STR(""));
    size_t n = (size_t)(colon - line.p), skip = n + 1 < line.n && colon[1] == ' ' ? n + 2 : n + 1;
    return n == 0 || take_field(s, str_make(line.p, n), str_make(line.p + skip, line.n - skip));
}

bool sse_feed(struct sse *s, struct str piece)
{
    for (size_t i = 0; i < piece.n;) {
        if (s->after_cr && piece.p[i] == '\n') { /* of CRLF */
            s->after_cr = false;
            i++;
            continue;
        }
        s->after_cr = false;
        size_t end = i;
        while (end < piece.n && piece.p[end] != '\n' && piece.p[end] != '\r')
            end++;
        if (!buf_append(&s->line, piece.p + i, end - i))
            return false;
        if (end == piece.n)
            return true;
        s->after_cr = piece.p[end] == '\r';
        if (!take_line(s, buf_view(&s->line)))
            return false;
        buf_clear(&s->line);
        i = end + 1;
    }
    return true;
}
