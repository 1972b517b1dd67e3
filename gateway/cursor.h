/* Cursors of lists: a position, signed.
 *
 * A cursor is the text of version, position and a MAC over those, the tenant and the list's scope (which list
 * it is, and its filters). So one that was made for another tenant or other filters, or was changed, does not
 * read. It is opaque, not secret. All gateways of a deployment share the key (store/lists.h), so any of them
 * reads what another wrote. */
#ifndef GATEWAY_CURSOR_H
#define GATEWAY_CURSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

enum { CURSOR_KEY_BYTES = 32, CURSOR_POSITION_MAX = 64, CURSOR_TEXT_MAX = 160 };

struct cursor_key {
    uint8_t b[CURSOR_KEY_BYTES];
};

/* Appends the text: URL-safe base64. position: 1 to CURSOR_POSITION_MAX bytes. */
void cursor_write(const struct cursor_key *key, int32_t tenant, struct str scope, struct str position,
                  struct buf *out);

/* Appends the position that text holds. -1 and ERR_BAD_CURSOR when it is none of ours, of this tenant and
 * this scope. */
int cursor_read(const struct cursor_key *key, int32_t tenant, struct str scope, struct str text,
                struct buf *position_out, struct err *err);

#endif
