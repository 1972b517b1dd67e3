/* Redaction: the same comes out whatever the pieces, and no value is in it. The input: how many values, then
 * each behind its length, then the text. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "crypto/crypto.h"
#include "redact.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(void *arg, struct str piece)
{
    buf_str(arg, piece);
}

static void run(struct redact_values *v, struct str text, size_t step, struct buf *out)
{
    struct redactor *r = redactor_new(v, put, out);
    for (size_t at = 0; at < text.n; at += step)
        redactor_feed(r, str_make(text.p + at, text.n - at < step ? text.n - at : step));
    redactor_end(r);
    redactor_free(&r);
}

static bool take(struct str *rest, size_t n, struct str *out)
{
    if (rest->n < n)
        return false;
    *out = str_make(rest->p, n);
    *rest = str_make(rest->p + n, rest->n - n);
    return true;
}

/* A value that no mark has a part of: else a mark, or a mark and what stands beside it, may make one. */
static bool is_apart(struct str value)
{
    for (size_t i = 0; i < value.n; i++)
        if (memchr("[redacted:N]", value.p[i], 12) != NULL)
            return false;
    return value.n >= 8;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct redact_value list[8];
    struct str rest = str_make((const char *)data, size), one;
    size_t n = 0, step = 1;
    if (size < 2 || crypto_init(NULL) != 0)
        return 0;
    take(&rest, 1, &one);
    step += (unsigned char)one.p[0] >> 3;
    for (size_t want = (unsigned char)one.p[0] & 7; n < want && take(&rest, 1, &one);) {
        list[n].name = STR("N");
        if (!take(&rest, (unsigned char)one.p[0] % 64, &list[n].value))
            break;
        n++;
    }
    struct redact_values *v = redact_values_new(list, n);
    struct buf whole, pieces;
    buf_init(&whole, 1 << 22);
    buf_init(&pieces, 1 << 22);
    if (rest.n > 0) {
        run(v, rest, rest.n, &whole);
        run(v, rest, step, &pieces);
    }
    if (!str_eq(buf_view(&whole), buf_view(&pieces)))
        abort();
    for (size_t i = 0; i < n; i++)
        if (is_apart(list[i].value) && whole.len > 0 &&
            memmem(whole.data, whole.len, list[i].value.p, list[i].value.n) != NULL)
            abort();
    buf_deinit(&whole);
    buf_deinit(&pieces);
    redact_values_free(&v);
    return 0;
}
