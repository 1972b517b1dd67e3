/* Stream entries: what decodes is whole, and encodes to the same bytes. */
#include <stdlib.h>

#include "store/entry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str body = str_make((const char *)data, size);
    struct entry e;
    if (!entry_decode(body, &e))
        return 0;
    struct buf again;
    buf_init(&again, size + 1);
    if (!entry_encode(&e, &again) || !str_eq(buf_view(&again), body))
        abort();
    buf_deinit(&again);
    return 0;
}
