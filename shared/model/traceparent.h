/* W3C Trace Context (https://www.w3.org/TR/trace-context/): the header that names the trace a request is part
 * of. It is carried, not taken part in: the caller's own comes out again at the sandbox and in webhooks. */
#ifndef MODEL_TRACEPARENT_H
#define MODEL_TRACEPARENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

enum { TRACEPARENT_TEXT_BYTES = 56 /* "00-<32 hex>-<16 hex>-<2 hex>" and NUL */ };

struct traceparent {
    bool present;
    uint8_t trace_id[16], parent_id[8], flags;
};

/* Reads a header's value. False, and not present, for what the specification says to ignore: another length
 * (longer is fine from a version above 00), upper case, version ff, ids of zeros. */
bool traceparent_parse(struct str s, struct traceparent *out);
/* Version 00; "" when not present. */
void traceparent_format(const struct traceparent *t, char out[TRACEPARENT_TEXT_BYTES]);

#endif
