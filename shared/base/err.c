/* The error table's look-ups and the two ways to fill a struct err. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct err_row {
    const char *name;
    int status;
    enum err_retry retry;
    const char *text;
};

static const struct err_row rows[ERR_COUNT] = {
#define ERR_ROW(sym, code, st, rt, tx) [sym] = {code, st, rt, tx},
    ERR_TABLE(ERR_ROW)
#undef ERR_ROW
};

static const struct err_row *row_of(enum err_code code)
{
    return (unsigned)code < ERR_COUNT ? &rows[code] : &rows[ERR_INTERNAL];
}

int err_set(struct err *err, enum err_code code, const char *fmt, ...)
{
    if (err == NULL)
        return -1;
    err->code = code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    return -1;
}

int err_wrap(struct err *err, const char *fmt, ...)
{
    if (err == NULL)
        return -1;
    struct err inner = *err;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n + 3 > sizeof err->msg)
        return -1;
    size_t room = sizeof err->msg - (size_t)n - 3, tail = strlen(inner.msg);
    tail = tail < room ? tail : room; /* a long tail is cut */
    memcpy(err->msg + n, ": ", 2);
    memcpy(err->msg + n + 2, inner.msg, tail);
    err->msg[(size_t)n + 2 + tail] = '\0';
    return -1;
}

const char *err_code_name(enum err_code code)
{
    return row_of(code)->name;
}

int err_http_status(enum err_code code)
{
    return row_of(code)->status;
}

enum err_retry err_retry_class(enum err_code code)
{
    return row_of(code)->retry;
}

const char *err_public_text(enum err_code code)
{
    return row_of(code)->text;
}

enum err_code err_code_from_name(const char *name, size_t n)
{
    for (int i = ERR_NONE + 1; i < ERR_COUNT; i++)
        if (strlen(rows[i].name) == n && memcmp(rows[i].name, name, n) == 0)
            return (enum err_code)i;
    return ERR_NONE;
}

void err_bug(const char *file, int line, const char *what)
{
    fprintf(stderr, "{\"level\":\"fatal\",\"msg\":\"bug\",\"at\":\"%s:%d\",\"what\":\"%s\"}\n", file, line,
            what);
    abort();
}
