/* Messages of live output: what decodes is whole, and encodes to the same bytes. */
#include <stdlib.h>

#include "store/queue_output.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_asks(struct str message)
{
    struct uuid gateway;
    struct output_ask ask;
    struct buf again;
    bool whole = true;
    if (!output_asks_open(message, &gateway))
        return;
    buf_init(&again, message.n + 1);
    output_asks_begin(&again, gateway);
    for (size_t i = 0; i < output_asks_count(message); i++) {
        if (output_asks_get(message, i, &ask))
            output_asks_put(&again, &ask);
        else
            whole = false;
    }
    if (whole && !str_eq(buf_view(&again), message))
        abort();
    buf_deinit(&again);
}

static void check_part(struct str message)
{
    struct output_part part;
    struct buf again;
    if (!output_part_decode(message, &part))
        return;
    buf_init(&again, message.n + 1);
    if (!output_part_encode(&part, &again) || !str_eq(buf_view(&again), message))
        abort();
    buf_deinit(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_asks(str_make((const char *)data, size));
    check_part(str_make((const char *)data, size));
    return 0;
}
