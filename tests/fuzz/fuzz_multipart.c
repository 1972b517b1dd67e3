/* Forms: a body gives the same parts whole as in pieces (the first byte is the pieces' size). */
#include <stdlib.h>

#include "http/multipart.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool on_part(void *arg, struct str name, struct str filename)
{
    return buf_printf(arg, "<%zu|%zu>", name.n, filename.n) && buf_str(arg, name) && buf_str(arg, filename);
}

static bool on_data(void *arg, struct str piece)
{
    return buf_str(arg, piece);
}

static bool on_end(void *arg)
{
    return buf_str(arg, STR("</>"));
}

static bool feed(struct str body, size_t step, struct buf *seen)
{
    static const struct multipart_events events = {on_part, on_data, on_end};
    struct multipart *m = multipart_new(STR("B"), &events, seen);
    bool ok = m != NULL;
    for (size_t at = 0; at < body.n && ok; at += step)
        ok = multipart_feed(m, str_make(body.p + at, body.n - at < step ? body.n - at : step));
    ok = ok && multipart_complete(m);
    multipart_free(&m);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf whole, pieces;
    if (size < 2)
        return 0;
    struct str body = str_make((const char *)data + 1, size - 1), boundary;
    buf_init(&whole, (size_t)1 << 20);
    buf_init(&pieces, (size_t)1 << 20);
    bool a = feed(body, body.n, &whole), b = feed(body, (size_t)data[0] + 1, &pieces);
    if (a != b || (a && !str_eq(buf_view(&whole), buf_view(&pieces))))
        abort();
    multipart_boundary(body, &boundary);
    buf_deinit(&whole);
    buf_deinit(&pieces);
    return 0;
}
