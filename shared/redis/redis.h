/* Redis: hiredis in asynchronous mode behind one door.
 *
 * A `redis` is one connection that keeps itself connected (backoff 50 ms doubling to 1 s, with jitter).
 * Commands are written as they come and answered in order. Nothing is queued while disconnected: a command
 * then fails (from the loop) with ERR_REDIS. One whose connection went before the answer fails with
 * ERR_OUTCOME_UNKNOWN.
 *
 * Ownership: hiredis cannot withdraw a sent command; a request belongs to the connection until its callback
 * fired, exactly once, from the loop; redis_cancel detaches. */
#ifndef REDIS_REDIS_H
#define REDIS_REDIS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"
#include "loop/loop.h"

struct redis;
struct redis_reply; /* hiredis's redisReply, read through the accessors below */
struct redis_request;

struct redis_options {
    const char *url;            /* redis://[user:password@]host[:port][/db], or unix:///path; copied */
    const char *name;           /* CLIENT SETNAME */
    int64_t connect_timeout_ms; /* default 2000 */
    int max_pending; /* commands without an answer; refused with ERR_OVERLOADED beyond. Default 10000 */
    void (*on_state)(void *arg, bool connected); /* after AUTH/SELECT/SETNAME; on every loss, and when the
                                                    first try fails; may be NULL */
    void *arg;
};

/* Whether redis_open can read the url. 0, or -1 with ERR_CONFIG (never quoting it). */
int redis_url_check(const char *url, struct err *err);

struct redis *redis_open(struct loop *loop, const struct redis_options *options, struct err *err);
void redis_close(struct redis **r); /* drops pending callbacks */
bool redis_connected(const struct redis *r);
int redis_pending(const struct redis *r);

/* reply and err NULL; or reply NULL and the error (an error reply comes as ERR_REDIS with its text, which
 * begins with Redis's own word: "NOGROUP …"). Valid during the call only. */
typedef void redis_done_fn(void *arg, const struct redis_reply *reply, const struct err *err);

/* argv[0] is the command; bytes are copied. timeout_ms: past it the callback gets ERR_TIMEOUT (the answer,
 * when it comes, is dropped; a connection that answers nothing for another second is reset). done may be
 * NULL. */
struct redis_request *redis_command(struct redis *r, const struct str *argv, int argc, int64_t timeout_ms,
                                    redis_done_fn *done, void *arg, struct err *err);
void redis_cancel(struct redis_request **req);

/* For a process that crashes and has no time for the loop: a command's bytes (at most 8 arguments), to be
 * made ahead; and the socket of a connection that is up (-1: it is not), on which nobody else may be sending.
 */
bool redis_format(const struct str *argv, int argc, struct buf *out);
int redis_socket(const struct redis *r);

/* A Lua script: EVALSHA, and EVAL by itself after NOSCRIPT. One static object a script. */
struct redis_script {
    const char *body; /* NUL-ended Lua */
    char sha1[41];    /* filled on first use */
};
struct redis_request *redis_eval(struct redis *r, struct redis_script *script, const struct str *keys,
                                 int nkeys, const struct str *args, int nargs, int64_t timeout_ms,
                                 redis_done_fn *done, void *arg, struct err *err);

/* ---- pub/sub: a connection of its own that re-subscribes by itself after a reconnect ---- */

struct redis_sub;
typedef void redis_message_fn(void *arg, struct str channel, struct str payload);
/* on_state(true) comes after every (re)subscription was confirmed: re-read what may have been missed. A probe
 * every few seconds finds dead connections. */
struct redis_sub *redis_sub_open(struct loop *loop, const struct redis_options *options,
                                 const char *const *channels, int count, redis_message_fn *fn, void *arg,
                                 struct err *err);
void redis_sub_close(struct redis_sub **s);

/* ---- replies ---- */

/* REDIS_ERROR occurs inside arrays only (EXEC, scripts): as a whole reply it comes as an err. */
enum redis_type { REDIS_NIL, REDIS_INT, REDIS_STR, REDIS_STATUS, REDIS_ARRAY, REDIS_ERROR };
enum redis_type redis_type_of(const struct redis_reply *r);
int64_t redis_int(const struct redis_reply *r);    /* a string that is a number counts; else 0 */
struct str redis_str(const struct redis_reply *r); /* also a status's and an error's text; else empty */
size_t redis_count(const struct redis_reply *r);   /* 0 for other types */
const struct redis_reply *redis_at(const struct redis_reply *r, size_t i); /* NULL outside */

#endif
