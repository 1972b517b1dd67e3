/* Any bytes as a process event and as a stream's end. */
#include "sandbox/e2b_event.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str in = str_make((const char *)data, size);
    struct buf scratch;
    struct e2b_event event;
    struct e2b_stream_end end;
    struct err err = ERR_INIT;
    char name[16];
    buf_init(&scratch, 1 << 20);
    if (e2b_event_decode(in, &scratch, &event, &err) == 0 && event.kind == E2B_EVENT_START)
        INVARIANT(event.pid > 0);
    e2b_stream_end_decode(in, &end, &err);
    e2b_signal_name(in, name, sizeof name);
    buf_deinit(&scratch);
    return 0;
}
