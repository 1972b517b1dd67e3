/* Routes: the contract's operations and who handles them. */
#ifndef GATEWAY_ROUTER_H
#define GATEWAY_ROUTER_H

#include "contract.h"
#include "gateway.h"
#include "http/server.h"

/* The contract with its handlers, for struct gateway. */
struct contract *router_contract(struct err *err);

/* on_request of the server: finds the route, authenticates, calls the handler. arg: the gateway. */
void router_request(void *arg, struct http_request *req);
void router_gone(void *arg, struct http_request *req);
const char *router_error_body(void *arg, enum err_code code, const char *detail, struct buf *out);

#endif
