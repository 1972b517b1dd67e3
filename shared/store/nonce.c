/* Nonces. */
#include "store/nonce.h"

struct uuid nonce_make(struct uuid id, int attempt)
{
    unsigned a = attempt >= 1 && attempt <= 63 ? (unsigned)attempt : 0;
    id.b[6] = (uint8_t)((id.b[6] & 0x0F) | (a >> 2) << 4);
    id.b[8] = (uint8_t)((id.b[8] & 0x3F) | (a & 3) << 6);
    return id;
}

struct uuid nonce_read(struct uuid nonce, int *attempt_out)
{
    *attempt_out = (nonce.b[6] >> 4) << 2 | nonce.b[8] >> 6;
    nonce.b[6] = (uint8_t)((nonce.b[6] & 0x0F) | 0x70);
    nonce.b[8] = (uint8_t)((nonce.b[8] & 0x3F) | 0x80);
    return nonce;
}
