/* PostgreSQL: libpq in asynchronous mode behind one door.
 *
 * A `pg` is one connection that keeps itself connected (backoff 100 ms doubling to 2 s, with jitter) and a
 * queue of statements run in order in libpq's pipeline mode: up to `max_inflight` are on the wire, each
 * followed by its own sync point, so that one statement's failure does not touch the next. Statements are
 * parameterised, binary both ways, and prepared on first use per connection (by the address of their static
 * SQL text).
 *
 * Ownership: a request belongs to the connection until its callback fired; it fires exactly once for every
 * accepted request, from the loop, never from inside pg_query. pg_cancel detaches: the statement may still
 * run, the callback does not fire (a load that is under way is given up). A lost connection fails what was on
 * the wire (ERR_OUTCOME_UNKNOWN) and keeps what was not yet sent for the next connection, until its deadline.
 */
#ifndef POSTGRES_PG_H
#define POSTGRES_PG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/id.h"
#include "base/str.h"
#include "loop/loop.h"

struct pg;
struct pg_result;
struct pg_request;

struct pg_options {
    const char *url;              /* libpq connection string or URL; copied */
    const char *application;      /* application_name; copied */
    int max_inflight;             /* statements on the wire; 1: strictly one at a time. Default 8 */
    int max_queued;               /* refused with ERR_OVERLOADED beyond; default 1024 */
    int64_t connect_timeout_ms;   /* default 5000 */
    int64_t statement_timeout_ms; /* set on the session; default 30000 */
    /* On every (re)connect, before queued statements run, and on every loss; may be NULL. On connect it may
     * call pg_query: those run first (session set-up). */
    void (*on_state)(void *arg, bool connected);
    void *arg;
};

/* Whether pg_open can read the url. 0, or -1 with ERR_CONFIG (never quoting it). */
int pg_url_check(const char *url, struct err *err);

/* Starts connecting. NULL without memory or with an unusable url. Names in a url are resolved by libpq when
 * connecting: give an address, a socket directory or a name that resolves fast. */
struct pg *pg_open(struct loop *loop, const struct pg_options *options, struct err *err);

/* Closes; what is queued or on the wire is dropped without callbacks. NULL is fine. */
void pg_close(struct pg **pg);

bool pg_connected(const struct pg *pg);
int pg_backend_pid(const struct pg *pg);  /* 0 while not connected */
int pg_queue_length(const struct pg *pg); /* queued and on the wire */

/* ---- parameters ---- */

enum pg_type {
    PG_BOOL,
    PG_INT2,
    PG_INT4,
    PG_INT8,
    PG_FLOAT8,
    PG_TEXT,
    PG_BYTEA,
    PG_UUID,
    PG_TIMESTAMPTZ,
};

/* The parameters of one statement, encoded binary as they are added; reusable after pg_params_clear. Values
 * are copied. Failure (cap, memory) is sticky and makes pg_query refuse. */
struct pg_params;
struct pg_params *pg_params_new(size_t max_bytes);
void pg_params_free(struct pg_params **p);
void pg_params_clear(struct pg_params *p);
size_t pg_params_bytes(const struct pg_params *p);

void pg_put_null(struct pg_params *p, enum pg_type type);
void pg_put_bool(struct pg_params *p, bool v);
void pg_put_int2(struct pg_params *p, int16_t v);
void pg_put_int4(struct pg_params *p, int32_t v);
void pg_put_int8(struct pg_params *p, int64_t v);
void pg_put_float8(struct pg_params *p, double v);
void pg_put_text(struct pg_params *p,
                 struct str s); /* must be UTF-8 without NUL (else class 22 from the server) */
void pg_put_bytea(struct pg_params *p, struct str s);
void pg_put_uuid(struct pg_params *p, struct uuid id);
void pg_put_time(struct pg_params *p, wall_t t);
/* A zero stands for SQL NULL; pg_get_uuid and pg_get_time read NULL as zero. */
void pg_put_uuid_or_null(struct pg_params *p, struct uuid id);
void pg_put_time_or_null(struct pg_params *p, wall_t t);

/* One-dimensional arrays, for unnest(): begin with the element type, then the elements with pg_put_*
 * (pg_put_null for SQL NULL), then end. */
void pg_array_begin(struct pg_params *p, enum pg_type element);
void pg_array_end(struct pg_params *p);

/* ---- statements ---- */

/* result: rows (maybe none) and err NULL; or NULL and the error. Both are valid during the call only. */
typedef void pg_done_fn(void *arg, const struct pg_result *result, const struct err *err);

/* Queues one statement. sql is a static string (kept by pointer, prepared once per connection). params
 * (encoded bytes are copied; NULL when there are none) are $1, $2, …. deadline_ms from now covers queueing
 * and running: past it the callback gets ERR_TIMEOUT, or ERR_OUTCOME_UNKNOWN if it was sent (then the
 * connection is reset, so that a stuck server cannot hold the queue). Returns the request, or NULL and *err
 * (nothing will be called). */
struct pg_request *pg_query(struct pg *pg, const char *sql, const struct pg_params *params,
                            int64_t deadline_ms, pg_done_fn *done, void *arg, struct err *err);

/* A script of several statements without parameters, by the simple protocol with nothing else on the wire
 * (migrations). sql is copied. Rows are not returned; the first error fails it. */
struct pg_request *pg_script(struct pg *pg, struct str sql, int64_t deadline_ms, pg_done_fn *done, void *arg,
                             struct err *err);

/* The next bytes for the copy-th COPY of a script, counted from 0: 1 and *piece_out (valid until the next
 * call, at most some 256 KiB), 0 at its end, -1 to give the whole script up. */
typedef int pg_source_fn(void *arg, int copy, struct str *piece_out);

/* A script whose COPY … FROM STDIN statements take what `source` gives. One message of the simple protocol,
 * so one transaction: all of it or nothing. Asynchronous with back-pressure: source is asked only for what
 * the socket takes, and the connection keeps one piece. source has the same arg as done and is not called
 * after it; nothing else runs on the connection meanwhile. */
struct pg_request *pg_load(struct pg *pg, struct str script, pg_source_fn *source, int64_t deadline_ms,
                           pg_done_fn *done, void *arg, struct err *err);

/* Detaches: the callback will not fire. *r is nulled. NULL is fine. */
void pg_cancel(struct pg_request **r);

/* ---- results ---- */

int pg_rows(const struct pg_result *r);
int64_t pg_affected(const struct pg_result *r); /* rows touched by INSERT/UPDATE/DELETE */
bool pg_is_null(const struct pg_result *r, int row, int col);
/* Typed reads of binary columns; a NULL reads as zero / the empty view. Aborts (a bug) on a column of another
 * width. Views live as long as the result. */
bool pg_get_bool(const struct pg_result *r, int row, int col);
int16_t pg_get_int2(const struct pg_result *r, int row, int col);
int32_t pg_get_int4(const struct pg_result *r, int row, int col);
int64_t pg_get_int8(const struct pg_result *r, int row, int col);
double pg_get_float8(const struct pg_result *r, int row, int col);
struct str pg_get_str(const struct pg_result *r, int row, int col); /* text, bytea, json */
struct uuid pg_get_uuid(const struct pg_result *r, int row, int col);
wall_t pg_get_time(const struct pg_result *r, int row, int col);

/* Errors: SQLSTATE classes 22 and 23 come as ERR_PG_DATA (never retry), everything else as ERR_PG. The
 * SQLSTATE of the statement whose callback is running, "" without one. */
const char *pg_sqlstate(const struct pg *pg);

#endif
