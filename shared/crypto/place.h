/* Sealed to a place: a value whose plain text says for whom it was sealed, so that whoever can write the
 * database cannot have one opened for somebody else by moving its row.
 *
 * The place is what the opener knows by itself: the tenant, the agent's name, and of an agent's secret its
 * own name (of a submission's `env`: none; so a retry, which has another id and the same agent, can carry it
 * over: gateways cannot open it, and so not seal it anew). An agent's name never changes. */
#ifndef CRYPTO_PLACE_H
#define CRYPTO_PLACE_H

#include "crypto/seal.h"

struct seal_place {
    int32_t tenant;
    struct str agent, name; /* at most SEAL_PLACE_NAME_BYTES each */
};

enum {
    SEAL_PLACE_NAME_BYTES = 255,
    SEAL_PLACE_OVERHEAD_BYTES = SEAL_OVERHEAD_BYTES + 10 + 2 * SEAL_PLACE_NAME_BYTES
};

/* Appends the sealed value. False without memory, or past the buffer's cap. */
bool seal_to_place(const struct seal_public *key, const struct seal_place *place, struct str plain,
                   struct buf *out);

enum seal_opened {
    SEAL_OPENED,
    SEAL_NO_KEY,    /* sealed by a key that is not here */
    SEAL_DAMAGED,   /* changed, cut, or no memory to open it */
    SEAL_MISPLACED, /* sealed for another place */
};
/* Opens into out (at least as long as `sealed`; the caller's, who keeps it locked and wipes it); *value_out
 * is what was sealed, a view into it. */
enum seal_opened seal_open_at(const struct seal_private *keys, struct str key_id,
                              const struct seal_place *place, struct str sealed, char *out, size_t out_max,
                              struct str *value_out);

#endif
