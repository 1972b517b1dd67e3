/* base64: what decodes encodes to the same characters (in one of the two alphabets, with or without padding).
 */
#include <stdlib.h>

#include "crypto/crypto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = str_make((const char *)data, size);
    struct buf bytes, again, back;
    buf_init(&bytes, (size_t)1 << 24);
    buf_init(&again, (size_t)1 << 24);
    buf_init(&back, (size_t)1 << 24);
    if (crypto_unbase64(text, &bytes)) {
        crypto_base64url(buf_view(&bytes), &again);
        crypto_unbase64(buf_view(&again), &back);
        if (again.len > size || !str_eq(buf_view(&bytes), buf_view(&back)))
            abort();
    }
    buf_deinit(&bytes);
    buf_deinit(&again);
    buf_deinit(&back);
    return 0;
}
