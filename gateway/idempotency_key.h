/* The Idempotency-Key header. */
#ifndef GATEWAY_IDEMPOTENCY_KEY_H
#define GATEWAY_IDEMPOTENCY_KEY_H

#include "base/err.h"
#include "http/server.h"

/* *key_out: the key, to be freed; NULL without one. -1 and ERR_BAD_HEADER when it cannot be used. */
int idempotency_key_read(struct http_request *req, char **key_out, struct err *err);

#endif
