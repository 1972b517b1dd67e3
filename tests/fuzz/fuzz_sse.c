/* The command line's reader of events: in pieces of any size the same events come out. */
#include <stdlib.h>
#include <string.h>

#include "sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void note(void *arg, struct str name, struct str data)
{
    struct buf *log = arg;
    buf_str(log, name);
    buf_byte(log, '|');
    buf_str(log, data);
    buf_byte(log, '|');
}

static bool run(struct str text, size_t step, struct buf *log)
{
    struct sse s;
    bool ok = true;
    sse_init(&s, 4096, note, log);
    for (size_t at = 0; ok && at < text.n; at += step)
        ok = sse_feed(&s, str_make(text.p + at, text.n - at < step ? text.n - at : step));
    buf_cstr_append(log, s.id);
    sse_deinit(&s);
    return ok;
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
    if (run(text, text.n, &whole) != run(text, (size_t)data[0] + 1, &pieces) ||
        !str_eq(buf_view(&whole), buf_view(&pieces)))
        abort();
    buf_deinit(&whole);
    buf_deinit(&pieces);
    return 0;
}
