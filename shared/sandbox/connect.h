/* Connect's envelopes: 1 byte of flags, 4 bytes of length (big endian), the payload. An incremental decoder.
 */
#ifndef SANDBOX_CONNECT_H
#define SANDBOX_CONNECT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

enum { CONNECT_FRAME_MAX = 4 * 1024 * 1024, CONNECT_HEAD_BYTES = 5 };
enum { CONNECT_COMPRESSED = 0x01, CONNECT_END_STREAM = 0x02 };

struct connect_decoder {
    struct buf partial; /* the frame that has begun, its head included */
};

struct connect_frame {
    bool end_stream;
    struct str payload; /* valid until the next call */
};

void connect_init(struct connect_decoder *d);
void connect_deinit(struct connect_decoder *d);

/* Takes bytes from *in up to the end of one frame: 1: *out has it; 0: all was eaten, more is needed; -1 and
 * *err: not this protocol (compressed, unknown flags, longer than the cap, which is checked before anything
 * is allocated). */
int connect_next(struct connect_decoder *d, struct str *in, struct connect_frame *out, struct err *err);

/* Whether a frame has begun and is not complete. */
bool connect_midway(const struct connect_decoder *d);

/* Appends an envelope around a message. */
bool connect_encode(struct str message, struct buf *out);

#endif
