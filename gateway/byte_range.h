/* Ranged answers: one range of bytes (RFC 9110, 14). */
#ifndef GATEWAY_BYTE_RANGE_H
#define GATEWAY_BYTE_RANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "http/server.h"

struct byte_range {
    int64_t from, to; /* inclusive; to is below from when there is nothing */
    bool partial;
};

/* The request's Range of something of that size. Forms other than a single range of bytes are ignored, as is
 * one whose If-Range names another etag (NULL: the thing never changes, so that any is taken). False: not
 * satisfiable. */
bool byte_range_read(const struct http_request *req, int64_t size, const char *etag, struct byte_range *out);

/* Accept-Ranges, nosniff, and Content-Range of a partial answer. */
void byte_range_headers(struct http_request *req, const struct byte_range *range, int64_t size);

#endif
