/* A build's log. */
#include "build_log.h"

#include <stdlib.h>

enum { LOG_BYTES = 64 * 1024 };

struct build_log {
    char tail[LOG_BYTES + 1];
    size_t n;
};

struct build_log *build_log_new(void)
{
    return calloc(1, sizeof(struct build_log));
}

void build_log_free(struct build_log **l)
{
    if (l == NULL)
        return;
    free(*l);
    *l = NULL;
}

/* Keeps the last LOG_BYTES; bytes that PostgreSQL's text would refuse become '?'. */
void build_log_put(struct build_log *l, struct str piece)
{
    if (piece.n > LOG_BYTES)
        piece = str_make(piece.p + piece.n - LOG_BYTES, LOG_BYTES);
    if (l->n + piece.n > LOG_BYTES) {
        size_t drop = l->n + piece.n - LOG_BYTES;
        memmove(l->tail, l->tail + drop, l->n - drop);
        l->n -= drop;
    }
    for (size_t i = 0; i < piece.n; i++) {
        unsigned char c = (unsigned char)piece.p[i];
        l->tail[l->n++] = (c >= ' ' && c < 0x7F) || c == '\n' || c == '\t' ? (char)c : '?';
    }
}

void build_log_command(struct build_log *l, const char *what, const char *text, const char *more)
{
    build_log_put(l, STR("$ "));
    build_log_put(l, str_of(what));
    build_log_put(l, str_of(text));
    build_log_put(l, str_of(more[0] != '\0' ? " " : ""));
    build_log_put(l, str_of(more));
    build_log_put(l, STR("\n"));
}

struct str build_log_tail(const struct build_log *l)
{
    return str_make(l->tail, l->n);
}
