/* What is sealed for executors: whoever has the public key may seal anything. A key that never changes, so
 * that a corpus keeps its meaning; the input is the plain text (first byte even), or the sealed text itself.
 */
#include <stdlib.h>
#include <string.h>

#include "crypto/crypto.h"
#include "crypto/place.h"
#include "model/environment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct seal_public public;
static struct seal_private *private;

static void make_keys(void)
{
    char texts[2][SEAL_KEY_TEXT_BYTES];
    if (crypto_init(NULL) != 0)
        abort();
    seal_pair_new(texts[0], texts[1]);
    private = seal_private_new(str_of(texts[1]), NULL);
    if (private == NULL || seal_public_read(str_of(texts[0]), &public, NULL) != 0)
        abort();
}

static void read_list(struct str rest)
{
    struct str name, value;
    int got;
    while ((got = env_unpack(&rest, &name, &value)) > 0)
        if (env_name_check(name, NULL) != 0 || (value.n > 0 && memchr(value.p, '\0', value.n) != NULL))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct seal_place place = {.tenant = 1, .agent = STR("a"), .name = STR("N")};
    struct str value;
    struct buf sealed;
    if (private == NULL)
        make_keys();
    if (size < 1)
        return 0;
    char *out = malloc(size + SEAL_OVERHEAD_BYTES + 1);
    buf_init(&sealed, size + SEAL_OVERHEAD_BYTES);
    if (data[0] % 2 == 0)
        seal_value(&public, str_make((const char *)data + 1, size - 1), &sealed);
    else
        buf_append(&sealed, data + 1, size - 1);
    enum seal_opened got = seal_open_at(private, str_of(public.id), &place, buf_view(&sealed), out,
                                        size + SEAL_OVERHEAD_BYTES, &value);
    if (got == SEAL_OPENED)
        read_list(value);
    read_list(str_make((const char *)data + 1, size - 1));
    buf_deinit(&sealed);
    free(out);
    return 0;
}
