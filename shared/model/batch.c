/* Batches: states and limits. */
#include "model/batch.h"

const char *batch_state_name(enum batch_state s)
{
    static const char *const names[] = {"running", "canceling", "completed", "canceled"};
    return (unsigned)s < sizeof names / sizeof *names ? names[s] : "unknown";
}

bool batch_state_ended(enum batch_state s)
{
    return s == BATCH_COMPLETED || s == BATCH_CANCELED;
}

bool batch_custom_id_valid(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7F)
            return false;
    return s.n > 0 && s.n <= BATCH_CUSTOM_ID_MAX_BYTES;
}
