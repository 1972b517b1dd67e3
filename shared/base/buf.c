/* Growing buffers: doubling, capped, failing softly. */
#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

enum { FIRST_BYTES = 64 };

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){.max = max};
}

void buf_init_secret(struct buf *b, size_t max)
{
    *b = (struct buf){.max = max, .secret = true};
}

void buf_deinit(struct buf *b)
{
    if (b == NULL)
        return;
    if (b->secret && b->data != NULL)
        explicit_bzero(b->data, b->cap);
    free(b->data);
    *b = (struct buf){.max = b->max, .secret = b->secret};
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    b->failed = false;
}

static bool grow(struct buf *b, size_t need)
{
    size_t cap = b->cap != 0 ? b->cap : FIRST_BYTES;
    while (cap < need)
        cap *= 2;
    char *data = b->secret ? malloc(cap) : realloc(b->data, cap);
    if (data == NULL)
        return false;
    if (b->secret && b->data != NULL) { /* realloc would leave a copy behind */
        memcpy(data, b->data, b->len);
        explicit_bzero(b->data, b->cap);
        free(b->data);
    }
    b->data = data;
    b->cap = cap;
    return true;
}

char *buf_reserve(struct buf *b, size_t n)
{
    if (b->failed)
        return NULL;
    if (n > b->max - b->len || ((b->data == NULL || b->len + n > b->cap) && !grow(b, b->len + n))) {
        b->failed = true;
        return NULL;
    }
    return b->data + b->len;
}

void buf_commit(struct buf *b, size_t n)
{
    INVARIANT(n <= b->cap - b->len);
    b->len += n;
}

bool buf_append(struct buf *b, const void *data, size_t n)
{
    if (n == 0)
        return !b->failed;
    char *to = buf_reserve(b, n);
    if (to == NULL)
        return false;
    memcpy(to, data, n);
    b->len += n;
    return true;
}

bool buf_str(struct buf *b, struct str s)
{
    return buf_append(b, s.p, s.n);
}

bool buf_cstr_append(struct buf *b, const char *s)
{
    return buf_append(b, s, strlen(s));
}

bool buf_byte(struct buf *b, char c)
{
    return buf_append(b, &c, 1);
}

bool buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *to = n >= 0 ? buf_reserve(b, (size_t)n + 1) : NULL;
    if (to != NULL) {
        vsnprintf(to, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return to != NULL;
}

bool buf_u64(struct buf *b, uint64_t v)
{
    char tmp[20];
    size_t i = sizeof tmp;
    do {
        tmp[--i] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    return buf_append(b, tmp + i, sizeof tmp - i);
}

bool buf_i64(struct buf *b, int64_t v)
{
    if (v >= 0)
        return buf_u64(b, (uint64_t)v);
    return buf_byte(b, '-') && buf_u64(b, 0 - (uint64_t)v);
}

void buf_consume(struct buf *b, size_t n)
{
    INVARIANT(n <= b->len);
    b->len -= n;
    if (b->len != 0 && n != 0)
        memmove(b->data, b->data + n, b->len);
}

struct str buf_view(const struct buf *b)
{
    return (struct str){.p = b->data != NULL ? b->data : "", .n = b->len};
}

const char *buf_cstr(struct buf *b)
{
    char *end = buf_reserve(b, 1);
    if (end == NULL)
        return NULL;
    *end = '\0';
    return b->data;
}

char *buf_take(struct buf *b, size_t *len_out)
{
    char *data = b->data;
    if (len_out != NULL)
        *len_out = b->len;
    buf_init(b, b->max);
    return data;
}
