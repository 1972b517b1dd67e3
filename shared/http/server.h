/* HTTP/1.1 server on the loop and llhttp; used by the gateway and the sandbox host alike.
 *
 * Strict from the start: everything llhttp's strict mode refuses is refused, and besides: obsolete folding,
 * empty header names, missing or repeated Host, Content-Length together with Transfer-Encoding, repeated
 * Content-Length, any transfer coding but `chunked`, NUL and bare CR anywhere. A refused request gets a 4xx
 * in the owner's error format and the connection is closed.
 *
 * Life of a request: `on_request` is called when the headers are complete and says where the body goes
 * (http_read_body: collected, with a cap; http_stream_body: in pieces, with back-pressure). The owner answers
 * at any later time with http_reply or the streaming calls. Requests of one connection are handled one at a
 * time: pipelined ones wait unread. `on_gone` tells, once, that the client hung up before the answer was
 * complete (a hang-up is seen while waiting, too; a client that shuts down its sending side counts as gone
 * unless it was answered in the same turn), or that the server refused the rest of it (413, 408, a malformed
 * body) and answers that itself; after it the request must not be touched.
 *
 * Slow clients: a head has a deadline as a whole; a body has one by its length, a least rate over each span
 * and a longest silence; an answer must be taken at a least rate. When the server is full, the connection on
 * which the client has moved least lately makes room for the new one (quiet.c).
 *
 * Ownership: a `struct http_request` belongs to the server; it is valid until its answer was given in full
 * (http_reply, http_stream_end or http_abort returned) or on_gone was called, whichever comes first. No
 * callback is ever called from inside http_reply and the like. */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"
#include "loop/loop.h"

struct http_server;
struct http_request;

enum http_method {
    HTTP_M_GET,
    HTTP_M_HEAD,
    HTTP_M_POST,
    HTTP_M_PUT,
    HTTP_M_DELETE,
    HTTP_M_PATCH,
    HTTP_M_OPTIONS,
    HTTP_M_OTHER,
};

/* Calls of the application; arg is http_server_options.arg. */
struct http_app {
    /* Headers are complete. Must arrange for the body (http_read_body, http_stream_body) or answer at once;
     * for a request without a body it may also just keep the request and answer later. */
    void (*on_request)(void *arg, struct http_request *req);
    /* The client is gone before its answer was complete, or broke the protocol in its body, or was too slow:
     * the request ends here. Not called once the answer is complete. May be NULL. */
    void (*on_gone)(void *arg, struct http_request *req);
    /* Writes the body of an error that the server itself answers (400, 408, 413, 431, 503 …) into out and
     * returns its content type. NULL: text/plain. */
    const char *(*error_body)(void *arg, enum err_code code, const char *detail, struct buf *out);
};

struct http_server_options {
    const char *listen; /* "127.0.0.1:8080", "[::1]:8080"; port 0 picks one */
    struct http_app app;
    void *arg;
    int max_connections;     /* default 12000, and no more than the process has descriptors for; beyond it the
                              * longest quiet one is closed, and when none is quiet the new one gets 503 */
    int64_t evict_after_ms;  /* how long one must have been quiet for that; default 1000 */
    size_t max_header_bytes; /* default 16384, the request line included; beyond: 431 (414 for the target) */
    int max_headers;         /* default 100; beyond: 431 */
    int64_t header_timeout_ms; /* first byte of a request to the end of its headers; default 10000: 408 */
    int64_t idle_timeout_ms;   /* between requests; default 75000: close */
    int64_t body_timeout_ms;   /* without any body byte; default 30000: 408 */
    int64_t body_min_rate;     /* bytes a second over each span of body_span_ms; default 512: 408 */
    int64_t body_span_ms;      /* default 10000 */
    int64_t body_whole_ms;   /* for a whole body, besides its length (or limit) at body_whole_rate; default */
    int64_t body_whole_rate; /* 60000, 32768 bytes a second: 408 */
    int64_t write_timeout_ms; /* for the next 16 KiB of an answer, or all of it; default 30000: close */
    size_t max_body_bytes;    /* of all collected bodies at once; default 256 MiB; beyond: 503 */
    bool reuse_port;          /* several processes on one port */
};

/* Listens. NULL and *err (address in use, …). Raises the process's soft limit on descriptors to the hard one.
 */
struct http_server *http_server_open(struct loop *loop, const struct http_server_options *options,
                                     struct err *err);

/* Stops accepting; running requests go on, and so do those that clients have sent already; answers say
 * `Connection: close`. Idle connections close; those that have not asked for anything yet may do so within
 * HTTP_DRAIN_FIRST_MS. */
enum { HTTP_DRAIN_FIRST_MS = 1000 };
void http_server_drain(struct http_server *s);
int http_server_connections(const struct http_server *s);
int http_server_max_connections(const struct http_server *s); /* as the descriptors allow */
uint64_t http_server_evicted(const struct http_server *s);    /* connections closed to make room */
size_t http_server_body_bytes(const struct http_server *s);   /* held by bodies now */
int http_server_port(const struct http_server *s);
/* Closes everything at once; on_gone is not called. */
void http_server_close(struct http_server **s);

/* ---- the request ---- */

enum http_method http_method_of(const struct http_request *r);
struct str http_method_text(const struct http_request *r);
struct str http_path(const struct http_request *r);  /* raw path, before '?' */
struct str http_query(const struct http_request *r); /* raw query, after '?', may be empty */
/* A header's value, trimmed; false when absent. When it came more than once: the first value, and
 * http_header_count tells. Name in any case. */
bool http_header(const struct http_request *r, const char *name, struct str *out);
int http_header_count(const struct http_request *r, const char *name);
const char *http_peer(const struct http_request *r); /* the peer's address, for logs */
/* An arena (64 KiB cap) that lives as long as the request. */
struct arena *http_arena(struct http_request *r);
/* The application's own pointer on the request. */
void http_set_data(struct http_request *r, void *data);
void *http_data(const struct http_request *r);
mono_t http_started(const struct http_request *r); /* when its headers were complete */

/* A query parameter, percent-decoded ('+' is a space) into the arena: 1 found (first occurrence), 0 absent,
 * -1 malformed (*err set). */
int http_query_get(struct http_request *r, const char *name, struct str *out, struct err *err);
/* Checks the whole query against a NULL-ended list of at most 64 names: each known, well formed and given
 * once. "metadata." stands for every name that begins so. ERR_BAD_QUERY names the nearest right one. */
int http_query_check(struct http_request *r, const char *const *known, struct err *err);
/* Percent-decodes s into the arena; plus: '+' means space. False when malformed or without room. */
bool http_decode(struct http_request *r, struct str s, bool plus, struct str *out);

/* ---- the body ---- */

typedef void http_body_fn(void *arg, struct http_request *req, struct str body);
/* Collects the body (Content-Length or chunked) up to max_bytes (beyond: the server answers 413), then calls
 * fn once (from the loop; also for an empty body). The view lives as long as the request. `Expect:
 * 100-continue` is answered by the server. */
void http_read_body(struct http_request *r, size_t max_bytes, http_body_fn *fn, void *arg);

/* The body holds a secret: its memory is wiped when it is let go. Called behind http_read_body, or on one
 * that was taken over. */
void http_secret_body(struct http_request *r);

/* Takes a collected body over: it stays, counted by the server, until it is freed. NULL without memory. */
struct http_body;
struct http_body *http_body_take(struct http_request *r);
struct str http_body_view(const struct http_body *b);
void http_body_secret(struct http_body *b);
void http_body_free(struct http_body **b);

struct http_body_stream {
    /* A piece of the body. Return false to pause: no more pieces until http_body_resume. */
    bool (*on_data)(void *arg, struct http_request *req, struct str piece);
    void (*on_end)(void *arg, struct http_request *req); /* the body is complete */
    void *arg;
};
void http_stream_body(struct http_request *r, size_t max_bytes, const struct http_body_stream *stream);
void http_body_resume(struct http_request *r);
int64_t http_content_length(const struct http_request *r); /* -1: chunked or none */
bool http_has_body(const struct http_request *r);

/* ---- the answer ---- */

/* Adds a header to the coming answer; copied. Before http_reply / http_stream_start. */
void http_set_header(struct http_request *r, const char *name, struct str value);
void http_set_header_int(struct http_request *r, const char *name, int64_t value);

/* The whole answer; body is copied or sent. type NULL: no Content-Type. If the request's body was not read to
 * its end the connection is closed after the answer (or drained when at most 64 KiB are left). */
void http_reply(struct http_request *r, int status, const char *type, struct str body);

/* A streamed answer: length >= 0 sends Content-Length, -1 chunked. */
void http_stream_start(struct http_request *r, int status, const char *type, int64_t length);
/* Appends, flushed at the turn's end. False when more than 256 KiB wait for the client: stop until on_drain
 * (what is still written is kept up to 1 MiB more; beyond it the connection breaks and on_gone is called). */
bool http_stream_write(struct http_request *r, struct str piece);
/* fn is called once, when less than 64 KiB wait. */
void http_stream_on_drain(struct http_request *r, void (*fn)(void *arg, struct http_request *req), void *arg);
void http_stream_end(struct http_request *r);
/* Breaks the connection: an answer that cannot be completed must not look complete. on_gone is not called. */
void http_abort(struct http_request *r);

#endif
