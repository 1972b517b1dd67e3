/* A call: one API request from authentication to its answer.
 *
 * The HTTP request may vanish at any moment (the client hangs up); the call lives until its last asynchronous
 * work has answered. So handlers hold the call, never the request: call_alive says whether anybody still
 * listens. */
#ifndef GATEWAY_CALL_H
#define GATEWAY_CALL_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "gateway.h"
#include "http/server.h"

struct call {
    struct gateway *g;
    struct http_request *req; /* NULL: the client is gone, or has its answer */
    const struct route *route;
    struct str arg, arg2; /* what the route's first and second {…} matched; copies */
    char arg_text[96], arg2_text[96];
    int32_t tenant; /* set by authentication, and the two below */
    struct uuid api_key;
    unsigned scopes;
    int pending; /* asynchronous work under way */
    bool ended;  /* answered or abandoned */
    void *data;  /* the handler's own */
    void (*free_data)(void *data);
    void (*gone)(struct call *c); /* the client hung up: stop waiting on its behalf; may be NULL */
};

struct call *call_new(struct gateway *g, struct http_request *req);

/* Before and after each asynchronous step: keeps the call alive in between. call_leave may free the call: it
 * returns false when nobody listens any more (the handler then just returns). */
void call_enter(struct call *c);
bool call_leave(struct call *c);

/* Answers. The call is then ended; the handler must not touch it again. */
void call_reply_json(struct call *c, int status, struct buf *body); /* body is emptied */
void call_reply_bytes(struct call *c, int status, const char *type, struct str body);
void call_fail(struct call *c, const struct err *err);
/* Of a query that changes nothing, or may be repeated: that its outcome is not known is no news to the
 * caller. */
void call_fail_query(struct call *c, const struct err *err);
/* Perhaps committed: the caller is told where to look (a path), and when to ask again. call_fail answers so
 * too, with the request's own path. */
void call_fail_unknown(struct call *c, const char *where);
void call_fail_code(struct call *c, enum err_code code, const char *detail);
/* For answers that the handler streamed itself: counts it and ends the call. */
void call_streamed(struct call *c, int status);

/* -1 and ERR_MEDIA_TYPE when the body is said to be something other than JSON. Nothing said, or what curl -d
 * says by itself, is taken for JSON. */
int call_json_type(const struct call *c, struct err *err);

/* on_gone of the server. */
void call_client_gone(struct call *c);

/* problem+json (RFC 9457) into out; returns its content type. */
const char *problem_body(enum err_code code, const char *detail, struct buf *out);

#endif
