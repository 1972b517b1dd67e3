/* HTTP client on libcurl's multi socket interface; few transfers a multi handle (shard.c says why), as many
 * handles as needed, keep-alive per handle.
 *
 * Ownership: a transfer belongs to the client until its `done` fired (exactly once, from the loop).
 * http_cancel withdraws it: no callback any more. No redirects are followed; only http and https are spoken.
 * Handles are never added or removed inside a libcurl callback; callbacks of calls may start and cancel calls
 * freely, but must not close the client. */
#ifndef HTTP_CLIENT_H
#define HTTP_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "http/guard.h"
#include "loop/loop.h"

struct http_client;
struct http_transfer;

struct http_client_options {
    const char *user_agent; /* "sandpiper/0.1.0" */
    int max_transfers;      /* in all; refused with ERR_OVERLOADED beyond. Default 20000 */
};

struct http_client *http_client_open(struct loop *loop, const struct http_client_options *options,
                                     struct err *err);
void http_client_close(struct http_client **c); /* drops running transfers without callbacks */

struct http_response {
    int status;              /* 0 when no answer came */
    struct str body;         /* collected (empty when on_data took it) */
    int64_t retry_after_sec; /* -1 without a usable Retry-After (integer seconds only) */
    struct str next_token;   /* the X-Next-Token header, empty without */
};

/* err NULL: an HTTP answer came (any status). Otherwise ERR_TIMEOUT, ERR_IO (could not connect: nothing was
 * sent), ERR_PROTOCOL (sent, but broken off or not HTTP), ERR_LIMIT (answer too large), ERR_FORBIDDEN (by the
 * guard), ERR_CANCELED. */
typedef void http_done_fn(void *arg, const struct http_response *response, const struct err *err);

struct http_call {
    const char *method;         /* "POST" */
    const char *url;            /* copied */
    const char *const *headers; /* "Name: value", NULL-ended; copied; may be NULL */
    struct str body;            /* copied unless body_borrowed */
    bool body_borrowed;         /* body stays valid until done or cancel: large prompts are not copied */
    bool body_secret;           /* the copy is wiped when the call is over */
    bool once;       /* never send it a second time (ERR_PROTOCOL instead): libcurl else repeats any request
                      * by itself when a kept connection turns out dead before the answer's first byte */
    size_t max_body; /* cap on the collected answer; default 1 MiB */
    int64_t timeout_ms;         /* whole call; 0: none (streams: give idle_timeout_ms) */
    int64_t connect_timeout_ms; /* default 5000 */
    /* For URLs that callers name: where a connection may go, asked for each address after DNS (ERR_FORBIDDEN
     * when none may be reached). Proxies and netrc are ignored. Give such calls a client of their own, since
     * kept connections are not checked again. Borrowed until done. */
    const struct http_guard *guard;
    bool http1; /* HTTP/1.1 only */
    bool cut;   /* an answer longer than max_body is cut there, and the connection closed: no error */
    int64_t idle_timeout_ms; /* no byte received for so long: ERR_TIMEOUT; 0: none */
    /* Called for each piece of a 2xx body instead of collecting it (other statuses are collected). Return
     * false to abort the transfer (done then gets ERR_CANCELED). */
    bool (*on_data)(void *arg, struct str piece);
    /* How much of the body was sent so far, now and then; may be NULL. Must not call the client. */
    void (*on_sent)(void *arg, int64_t sent);
    http_done_fn *done;
    void *arg;
};

/* Starts a call on the loop's next turn at the latest. NULL and *err when refused. */
struct http_transfer *http_call(struct http_client *c, const struct http_call *call, struct err *err);
void http_cancel(struct http_transfer **t);
int http_client_active(const struct http_client *c);

#endif
