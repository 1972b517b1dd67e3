/* Logs of builds: text in pieces, written by the executor that builds and read by gateways, at the same time.
 *
 * A log is one for its version, however often the build is begun: each claim of it begins a `try`, and goes
 * on behind what the one before wrote. Pieces of a try that is not the newest are refused, so of two
 * executors that believe to have the build only one writes, and a piece that is sent again is stored once. It
 * ends with its build: pieces come before the outcome, so whoever sees an outcome sees the whole log. */
#ifndef STORE_BUILD_LOGS_H
#define STORE_BUILD_LOGS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/id.h"
#include "base/str.h"
#include "model/agent.h"
#include "postgres/pg.h"

enum {
    BUILD_LOG_PIECE_BYTES = 64 * 1024,
    BUILD_LOG_TAIL_BYTES = 64 * 1024, /* kept in the version's own row, and for good */
};

/* ---- for executors ---- */

struct build_log_begun {
    bool building; /* else: the version's build has ended, or there is none */
    int32_t try;
    int64_t bytes; /* written by the tries before */
    bool open;     /* the one before this one broke off without a word */
};
typedef void build_log_begin_fn(void *arg, const struct build_log_begun *b, const struct err *err);
int build_log_begin(struct pg *pg, struct uuid version, int64_t deadline_ms, build_log_begin_fn *fn,
                    void *arg, struct err *err);

/* A piece at the log's end, which is `at`. last: nothing follows in this try. Sent again with the same
 * values it changes nothing. Data may be empty. */
struct build_log_piece {
    struct uuid version;
    int32_t try;
    int64_t at;
    struct str data; /* copied */
    bool last;
};
/* taken false: another try has begun since, or the build has ended. */
typedef void build_log_append_fn(void *arg, bool taken, const struct err *err);
int build_log_append(struct pg *pg, const struct build_log_piece *piece, int64_t deadline_ms,
                     build_log_append_fn *fn, void *arg, struct err *err);

/* ---- for the API ---- */

struct build_log_place {
    bool found; /* the agent has that version */
    struct uuid version;
    enum agent_status status;
    bool pieces;     /* it is in pieces; else `kept` is all there is */
    int64_t bytes;   /* so far */
    struct str kept; /* the end of it, of one that has no pieces (any more); valid during the callback */
};
typedef void build_log_find_fn(void *arg, const struct build_log_place *place, const struct err *err);
int build_log_find(struct pg *pg, int32_t tenant, struct str slug, int32_t version, int64_t deadline_ms,
                   build_log_find_fn *fn, void *arg, struct err *err);

/* The bytes from an offset on: what is left of the piece that it lies in, and a few more. n 0: there are
 * none. */
enum { BUILD_LOG_READ_PIECES = 4 };
typedef void build_log_read_fn(void *arg, const struct str *pieces, size_t n, const struct err *err);
int build_log_read(struct pg *pg, struct uuid version, int64_t at, int64_t deadline_ms, build_log_read_fn *fn,
                   void *arg, struct err *err);

/* How far many of them are, in one query. Those that do not exist any more are left out. */
struct build_log_size {
    struct uuid version;
    int64_t bytes;
    bool building;
};
enum { BUILD_LOG_SIZES_MAX = 1000 };
typedef void build_log_sizes_fn(void *arg, const struct build_log_size *sizes, size_t n,
                                const struct err *err);
int build_log_sizes(struct pg *pg, const struct uuid *versions, size_t n, int64_t deadline_ms,
                    build_log_sizes_fn *fn, void *arg, struct err *err);

#endif
