/* Inside the HTTP server: what its files share. Nobody outside shared/http includes this. */
#ifndef HTTP_CONN_H
#define HTTP_CONN_H

#include <netinet/in.h>

#include "base/buf.h"
#include "http/parse.h"
#include "http/server.h"

enum {
    READ_BYTES = 64 * 1024,          /* most that one wake-up reads into the shared buffer */
    WAITING_BYTES = 4 * 1024,        /* read of the next request while one waits: enough to see a hang-up */
    DRAIN_BYTES = 64 * 1024,         /* rest of an unwanted body that is swallowed to keep the connection */
    LINGER_BYTES = 16 * 1024 * 1024, /* swallowed after a final answer, so that no reset overtakes it */
    LINGER_MS = 2000,
    STREAM_FULL = 256 * 1024, /* http_stream_write says stop */
    STREAM_BREAK = STREAM_FULL + 1024 * 1024,
    STREAM_LOW = 64 * 1024, /* on_drain fires */
    OUT_HOLD = 64 * 1024,   /* no further request is taken while so much waits for the client */
    TURN_REQUESTS = 32,     /* requests of one connection in one wake-up */
    ARENA_BYTES = 64 * 1024,
    PEER_BYTES = 64,
    FIRST_BODY_BYTES = 4 * 1024,   /* room made for a body before anything of it has come */
    QUIET_RENEW_BYTES = 64 * 1024, /* of a body: its connection is not slow */
    OUT_RENEW_BYTES = 16 * 1024,   /* taken by the client: its write deadline begins anew */
    BUSY_CONNECTIONS = 64,         /* beyond the most, only to be told so */
    SPARE_DESCRIPTORS = 192,       /* left to them and to the rest of the process */
};

/* What the bodies of a server may hold together (body.c). */
struct body_budget {
    size_t max, held;
    int refs; /* the server and each body that was taken */
};

/* The reading side of a connection; written only by conn_enter. `request.active` marks the span from
 * on_request to the complete answer (or on_gone), which covers HELD, BODY and WAIT. */
enum conn_state {
    CONN_IDLE,   /* between requests, nothing read of the next; deadline: idle_timeout */
    CONN_HEAD,   /* part of a head is in `in`; deadline: header_timeout from its first byte */
    CONN_HELD,   /* the owner has the request but has not said where its body goes */
    CONN_BODY,   /* the body is being read; deadlines: body_timeout, body_min_rate */
    CONN_WAIT,   /* the body is complete, the answer is not: the socket is watched for a hang-up */
    CONN_DRAIN,  /* the answer is complete, the rest of a small body is swallowed */
    CONN_LINGER, /* the last answer is given: flush it, shut down, swallow what still comes, close */
    CONN_DEAD,   /* closed; on the server's dead list, freed at the turn's end */
};

enum reply_state { REPLY_NONE, REPLY_STREAM };
enum body_mode { BODY_UNREAD, BODY_COLLECT, BODY_STREAM };

struct http_request {
    struct conn *c;
    struct http_head head;
    bool active;
    void *data;
    struct arena *arena;
    mono_t started;
    struct buf set_headers; /* of the coming answer, as lines */

    enum body_mode mode;
    bool paused, has_body, got_any;
    size_t max_body;
    int64_t body_left; /* of a Content-Length */
    int64_t body_got;
    mono_t body_from; /* when the body's clock began; pauses move it */
    mono_t span_from; /* the span in which the minimum rate is looked at, and what had come before it */
    int64_t span_got;
    mono_t body_at; /* when its last byte came, or its pause began */
    struct buf body;
    size_t body_held; /* counted in the budget */
    http_body_fn *body_fn;
    struct http_body_stream stream;
    void *body_arg;

    enum reply_state reply;
    bool reply_chunked, reply_bodiless;
    int64_t reply_left; /* of an announced length; -1: not announced */
    void (*on_drain)(void *arg, struct http_request *req);
    void *drain_arg;
};

struct conn {
    struct http_server *s;
    struct conn *next, **pprev; /* the server's list, or its dead list */
    int fd;
    struct loop_io *io;
    enum conn_state state;
    bool running;       /* conn_run is on the stack */
    bool asked;         /* a request came, or its beginning */
    bool close_after;   /* the answer under way ends the connection */
    bool skipped_crlf;  /* one stray CRLF before a request line is forgiven */
    bool was_shut;      /* our side is shut down (LINGER) */
    bool eof;           /* the client sends nothing more, but still takes an answer (LINGER) */
    bool broken;        /* the socket failed inside a call of the owner: told next turn */
    enum err_code fail; /* the request is to be refused next turn, for fail_what */
    const char *fail_what;
    struct loop_task task;
    struct buf in;    /* read but not used; empty while idle */
    struct str input; /* during conn_run: all that is there to use, in `in` or in the shared buffer */
    struct buf out;   /* from out_sent on: not yet taken by the client */
    size_t out_sent;
    struct http_scan scan;
    struct http_parser parser;
    int64_t in_due_us, out_due_us; /* deadlines on the monotonic clock; INT64_MAX: none */
    size_t swallowed;
    size_t out_taken;                     /* since the write deadline was set */
    struct conn *quiet_next, *quiet_prev; /* quiet.c */
    mono_t quiet_since;
    size_t quiet_bytes;
    bool quiet;
    struct sockaddr_in6 peer; /* or sockaddr_in */
    struct http_request request;
};

struct http_server {
    struct loop *loop;
    struct http_server_options o;
    int fd, port;
    struct loop_io *io;
    struct loop_timer *sweep;
    struct conn *conns, *dead;
    struct conn *sweep_next; /* the first that the sweep has not seen in this round; NULL: a round is over */
    struct conn *quiet_first, *quiet_last;
    struct body_budget *budget;
    uint64_t evicted;
    struct loop_task reap;
    int count;
    bool draining, accept_paused;
    char peer_text[PEER_BYTES];
    int64_t date_sec;
    char date[48];   /* "Date: …\r\n" */
    struct buf head; /* scratch of the answer being composed */
    char shared[READ_BYTES];
};

/* ---- conn.c ---- */
struct conn *conn_new(struct http_server *s, int fd, const struct sockaddr_in6 *peer);
void conn_free(struct conn *c); /* from the reaper and server_close only */
void conn_enter(struct conn *c, enum conn_state state);
void conn_close(struct conn *c);              /* to DEAD; tells nobody */
void conn_hang_up(struct conn *c);            /* the same, telling the owner of a request */
void conn_wake(struct conn *c);               /* conn's work goes on next turn */
void conn_expire(struct conn *c, mono_t now); /* looks at its deadlines */
void conn_answered(
    struct conn *c); /* the active request's answer is complete: on to the next, or to the end */
/* Whether the connection can go on after an answer now: nothing of the body is left, or little enough to
 * swallow. */
bool conn_can_stay(const struct conn *c);

/* ---- body.c ---- */
struct body_budget *body_budget_new(size_t max);
void body_budget_release(struct body_budget **b);
bool body_fits(const struct http_request *r, size_t total); /* whether it may grow to so much */
char *body_reserve(struct http_request *r, size_t n);       /* NULL: over the budget, or no memory */
void body_drop(struct http_request *r);

/* ---- quiet.c ---- */
void quiet_renew(struct conn *c); /* to the list's end */
void quiet_keep(struct conn *c);  /* on the list: where it stands, else at the end */
void quiet_remove(struct conn *c);
void quiet_bytes(struct conn *c, size_t n); /* of its body came */
bool quiet_evict(struct http_server *s);    /* closes the first; false when none is due */

/* ---- server.c ---- */
void http_server_take(struct http_server *s, int fd, const struct sockaddr_in6 *peer); /* a new connection */
void http_server_reap(void *arg);                                                      /* frees the dead */

/* ---- output.c ---- */
size_t conn_pending(const struct conn *c);
/* Writes what it can; false when the socket is broken. */
bool conn_flush(struct conn *c);
/* Sends two pieces, at once and uncopied when nothing waits; false when broken. */
bool conn_send(struct conn *c, struct str a, struct str b);

/* ---- reply.c ---- */
/* An error that the server itself answers; the connection ends with it. */
void reply_refuse(struct conn *c, enum err_code code, const char *what);
void reply_continue(struct conn *c);
/* The same for a connection that is not even taken in. */
void reply_busy(struct http_server *s, int fd);

/* ---- request.c ---- */
void request_begin(struct conn *c);
void request_end(struct conn *c); /* frees all it holds */

#endif
