/* Sealed to a place: "SPP1", tenant (4 bytes, little-endian), the agent's and the value's names, each behind
 * its length (1 byte), then the value. */
#include "crypto/place.h"

#include <string.h>

static void put_head(const struct seal_place *place, struct buf *out)
{
    uint32_t t = (uint32_t)place->tenant;
    const unsigned char tenant[4] = {(unsigned char)t, (unsigned char)(t >> 8), (unsigned char)(t >> 16),
                                     (unsigned char)(t >> 24)};
    buf_cstr_append(out, "SPP1");
    buf_append(out, tenant, sizeof tenant);
    buf_byte(out, (char)place->agent.n);
    buf_str(out, place->agent);
    buf_byte(out, (char)place->name.n);
    buf_str(out, place->name);
    out->failed =
        out->failed || place->agent.n > SEAL_PLACE_NAME_BYTES || place->name.n > SEAL_PLACE_NAME_BYTES;
}

bool seal_to_place(const struct seal_public *key, const struct seal_place *place, struct str plain,
                   struct buf *out)
{
    struct buf text;
    buf_init_secret(&text, plain.n + SEAL_PLACE_OVERHEAD_BYTES);
    put_head(place, &text);
    bool fine = buf_str(&text, plain) && seal_value(key, buf_view(&text), out);
    buf_deinit(&text);
    return fine;
}

enum seal_opened seal_open_at(const struct seal_private *keys, struct str key_id,
                              const struct seal_place *place, struct str sealed, char *out, size_t out_max,
                              struct str *value_out)
{
    struct buf head;
    size_t n = 0;
    enum seal_opened got = SEAL_DAMAGED;
    if (!seal_private_has(keys, key_id))
        return SEAL_NO_KEY;
    buf_init(&head, SEAL_PLACE_OVERHEAD_BYTES);
    put_head(place, &head);
    if (!head.failed && seal_open(keys, key_id, sealed, out, out_max, &n))
        got = n >= head.len && memcmp(out, head.data, head.len) == 0 ? SEAL_OPENED : SEAL_MISPLACED;
    *value_out = got == SEAL_OPENED ? str_make(out + head.len, n - head.len) : str_of(NULL);
    buf_deinit(&head);
    return got;
}
