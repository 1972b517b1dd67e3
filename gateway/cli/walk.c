/* Lists, walked page by page. As a table, or with --json one record a line. */
#include "walk.h"

#include <stdio.h>
#include <string.h>

enum { PATH_MAX_BYTES = 12000 /* the gateway takes 16 KiB of request line and headers */ };

void walk_begin(struct walk *w, const char *path)
{
    buf_init(&w->path, PATH_MAX_BYTES);
    buf_cstr_append(&w->path, path);
}

void walk_escaped(struct buf *out, struct str s)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~@:";
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] != '\0' && strchr(plain, s.p[i]) != NULL)
            buf_byte(out, s.p[i]);
        else
            buf_printf(out, "%%%02X", (unsigned char)s.p[i]);
}

void walk_parameter(struct buf *path, const char *name, struct str value)
{
    buf_printf(path, "%s=", name);
    walk_escaped(path, value);
    buf_byte(path, '&');
}

int walk_when(struct buf *path, const char *name, const char *option, const char *text)
{
    char when[CLI_WHEN_BYTES];
    if (!cli_when(text, when))
        return cli_error(
            "%s needs a span as in 90s, 15m, 1h, 2d, or a time as in 2026-11-21T07:30:00Z, not \"%s\"",
            option, text);
    walk_parameter(path, name, str_of(when));
    return 0;
}

/* The array's elements as they came, one a line. White space between tokens goes: a record's metadata is kept
 * as it was sent, line ends included. */
static void print_lines(struct str array)
{
    int depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < array.n; i++) {
        char c = array.p[i];
        if (!quoted && (c == ' ' || c == '\n' || c == '\r' || c == '\t'))
            continue;
        if (c == '"')
            quoted = !quoted;
        if (!quoted && (c == ']' || c == '}'))
            depth--;
        if (depth > 0 && (depth > 1 || c != ','))
            fputc(c, stdout);
        if (quoted && c == '\\' && i + 1 < array.n)
            fputc(array.p[++i], stdout);
        if (!quoted && depth == 1 && c == '}')
            fputc('\n', stdout);
        if (!quoted && (c == '[' || c == '{'))
            depth++;
    }
}

/* One page. *cursor is the next one's, empty at the end. */
static int take_page(struct walk *w, struct buf *cursor)
{
    struct buf path;
    struct reply r;
    int64_t limit = w->left < 0 || w->left > w->page ? w->page : w->left;
    buf_init(&path, PATH_MAX_BYTES);
    buf_str(&path, buf_view(&w->path));
    if (cursor->len > 0)
        walk_parameter(&path, "cursor", buf_view(cursor));
    buf_printf(&path, "limit=%lld", (long long)limit);
    if (path.failed || buf_cstr(&path) == NULL) {
        buf_deinit(&path);
        return cli_error("the filters are too long");
    }
    const struct api_request q = {.method = "GET", .path = buf_cstr(&path), .retry = API_RETRY_BUSY};
    api_call(w->cli, &q, &r);
    buf_deinit(&path);
    cli_spin(w->cli, NULL);
    const struct json_value *records = json_get(json_root(r.doc), w->member);
    int status = reply_check(w->cli, &r, w->member);
    if (w->hint != NULL && r.kind == REPLY_PROBLEM && r.status == 400)
        fprintf(stderr, "%s\n", w->hint);
    buf_clear(cursor);
    if (status == STATUS_OK) {
        buf_str(cursor, reply_str(json_root(r.doc), "next_cursor"));
        if (w->cli->json && !w->silent)
            print_lines(json_member_source(r.doc, w->member));
        else
            w->take(w, &r, records);
        w->shown += (int64_t)json_count(records);
        if (w->left >= 0)
            w->left -= (int64_t)json_count(records);
    }
    reply_deinit(&r);
    return status;
}

int walk_pages(struct walk *w)
{
    struct buf cursor;
    int status;
    buf_init(&cursor, PATH_MAX_BYTES);
    cli_catch_interrupt(w->cli);
    do {
        if (w->shown == 0)
            cli_spin(w->cli, "looking");
        status = take_page(w, &cursor);
    } while (status == STATUS_OK && cursor.len > 0 && w->left != 0 && ferror(stdout) == 0);
    w->more = status == STATUS_OK && cursor.len > 0;
    buf_deinit(&cursor);
    return status;
}
