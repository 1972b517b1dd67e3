/* Frames must come out the same however the bytes are divided: the first byte says where to cut. */
#include <stdlib.h>

#include "base/err.h"
#include "sandbox/connect.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run(struct connect_decoder *d, struct str in, size_t *frames, size_t *bytes, bool *bad)
{
    struct connect_frame f;
    struct err err = ERR_INIT;
    int got = 0;
    while (!*bad && (got = connect_next(d, &in, &f, &err)) > 0) {
        (*frames)++;
        *bytes += f.payload.n;
    }
    *bad = *bad || got < 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct str all = str_make((const char *)data + 1, size - 1);
    size_t cut = all.n * data[0] / 255, frames[2] = {0}, bytes[2] = {0};
    bool bad[2] = {false, false};
    for (int i = 0; i < 2; i++) {
        struct connect_decoder d;
        connect_init(&d);
        run(&d, str_make(all.p, i == 0 ? all.n : cut), &frames[i], &bytes[i], &bad[i]);
        if (i == 1)
            run(&d, str_make(all.p + cut, all.n - cut), &frames[i], &bytes[i], &bad[i]);
        connect_deinit(&d);
    }
    INVARIANT(frames[0] == frames[1] && bytes[0] == bytes[1] && bad[0] == bad[1]);
    return 0;
}
