/* Connect RPC as E2B uses it: JSON, enveloped messages on streams (https://connectrpc.com/docs/protocol). */
#ifndef SANDBOXD_CONNECT_H
#define SANDBOXD_CONNECT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

enum { CONNECT_HEAD_BYTES = 5, CONNECT_END_STREAM = 0x02 };

/* Appends one enveloped message. */
void connect_frame(struct buf *out, uint8_t flags, struct str payload);
/* For payloads built in place: reserves the head and returns its offset; connect_frame_end fills it in. */
size_t connect_frame_begin(struct buf *out);
void connect_frame_end(struct buf *out, size_t head, uint8_t flags);

/* The end-stream frame: success, or an error when code is not NULL. */
void connect_end_stream(struct buf *out, const char *code, const char *text);

/* Takes exactly one uncompressed message, as a streaming request carries. False when it is anything else. */
bool connect_single(struct str body, struct str *payload_out);

/* The HTTP status of a unary error, and {"code":…,"message":…}. */
int connect_http_status(const char *code);
void connect_error_body(struct buf *out, const char *code, const char *text);

/* Connect-Timeout-Ms: at most ten digits. False when malformed. */
bool connect_timeout(struct str header, int64_t *ms_out);

#endif
