/* What a terminal is shown of a stranger's text: no control character but line end and tab, in UTF-8, and the
 * same in pieces of any size. */
#include <stdlib.h>

#include "terminal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run(struct str text, size_t step, struct buf *out)
{
    struct terminal_text t = {.state = TERMINAL_PLAIN};
    for (size_t at = 0; at < text.n; at += step)
        if (!terminal_text_put(&t, str_make(text.p + at, text.n - at < step ? text.n - at : step), out))
            abort();
}

static void check(struct str shown)
{
    if (!str_is_utf8(shown))
        abort();
    for (size_t i = 0; i < shown.n; i++) {
        unsigned char c = (unsigned char)shown.p[i],
                      next = i + 1 < shown.n ? (unsigned char)shown.p[i + 1] : 0;
        if ((c < ' ' && c != '\n' && c != '\t') || c == 0x7F || (c == 0xC2 && next < 0xA0))
            abort();
    }
}

/* The first byte is the size of the pieces. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct str text = str_make((const char *)data + 1, size - 1);
    struct buf whole, pieces;
    buf_init(&whole, 1 << 20);
    buf_init(&pieces, 1 << 20);
    run(text, text.n, &whole);
    run(text, (size_t)data[0] + 1, &pieces);
    check(buf_view(&whole));
    if (!str_eq(buf_view(&whole), buf_view(&pieces)))
        abort();
    buf_deinit(&whole);
    buf_deinit(&pieces);
    return 0;
}
