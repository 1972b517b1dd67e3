/* The contract: api/openapi.json, read when the gateway starts. It is what /openapi.json serves and the table
 * that requests are routed by: paths, methods, query parameters and what key is needed stand there and
 * nowhere else. The router adds to each operation the function that handles it.
 *
 * Two of its fields are ours: `x-query: "any"` on an operation ignores parameters that it does not know
 * (probes add some of their own), `x-query: "own"` leaves the whole query to the handler. */
#ifndef GATEWAY_CONTRACT_H
#define GATEWAY_CONTRACT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"
#include "http/server.h"
#include "json/json.h"

struct call;

/* Which function handles an operation. */
struct operation_handler {
    const char *operation; /* operationId */
    void (*handle)(struct call *c);
};

struct route {
    enum http_method method;
    char *path; /* "{}" stands for one segment */
    void (*handle)(struct call *c);
    const char **query; /* the parameters it knows, NULL-ended; NULL: not looked at before the handler */
    bool open;          /* without a key */
    unsigned scopes; /* a key with any of these may (model/api_key.h): one alternative of `security` each */
    const struct json_value *item, *operation; /* of the document: the path's, and its method's */
    struct route *next;
};

struct contract;

/* NULL and *err when the document and the handlers do not fit together: an operation without a handler, a
 * handler without an operation. */
struct contract *contract_new(const struct operation_handler *handlers, size_t n, struct err *err);
void contract_free(struct contract **c);

/* In the document's order. */
const struct route *contract_routes(const struct contract *c);
const struct json_value *contract_root(const struct contract *c);
/* What a value is or refers to (`$ref` into this document). */
const struct json_value *contract_resolve(const struct contract *c, const struct json_value *v);
/* The document's bytes. */
struct str contract_text(void);

#endif
