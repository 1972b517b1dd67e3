/* Inside shared/postgres only: the connection and its requests, and what its files call of each other.
 *
 * pg.c opens, closes, submits and keeps deadlines; connection.c brings the connection up and mourns it;
 * wire.c writes statements and reads answers; load.c feeds COPY; request.c moves requests between lists. */
#ifndef POSTGRES_PG_INTERNAL_H
#define POSTGRES_PG_INTERNAL_H

#include <libpq-fe.h>
#include <sys/queue.h>
#include <uthash.h>

#include "postgres/conninfo.h"
#include "postgres/params.h"
#include "postgres/pg.h"

enum pg_state {
    PG_BACKOFF,    /* no connection; the state timer starts the next try */
    PG_CONNECTING, /* PQconnectPoll; the state timer gives up */
    PG_SETUP,      /* the session's settings are on the wire; the state timer gives up */
    PG_READY,      /* pipeline mode */
    PG_SCRIPT,     /* simple protocol, one script on the wire */
};

enum request_state { REQUEST_QUEUED, REQUEST_SENT, REQUEST_FIRING };

TAILQ_HEAD(request_list, pg_request);

struct pg_request {
    TAILQ_ENTRY(pg_request) link;
    struct request_list *list; /* where it is while queued or sent */
    struct pg *pg;
    enum request_state state;
    const char *sql;     /* static; NULL for a script */
    char *script;        /* owned */
    struct pg_args args; /* of a queued statement: lies behind this struct */
    mono_t deadline;
    pg_done_fn *done; /* NULL: detached */
    void *arg;
    pg_source_fn *source; /* of a load */
    int copies;           /* COPY statements begun */
    bool copying;         /* the server waits for the source's bytes */
    /* on the wire */
    unsigned prepared_id;
    bool parse_pending; /* its Parse is still to be answered */
    PGresult *result;
};

/* A statement that this connection has prepared. */
struct prepared {
    const char *sql; /* the key: an address */
    unsigned id;
    UT_hash_handle hh;
};

struct pg {
    struct loop *loop;
    struct pg_options options;
    struct pg_conninfo *info;
    enum pg_state state;
    PGconn *conn;
    struct loop_io *io;
    struct loop_timer *state_timer, *deadline_timer;
    int64_t deadline_us; /* what the deadline timer is armed for; INT64_MAX: nothing */
    struct loop_task doom_task;
    bool doomed;
    bool up;         /* on_state(true) was told */
    bool announcing; /* inside on_state(true) */
    unsigned failures;
    unsigned next_prepared_id;
    struct prepared *prepared;
    struct request_list first, queue, wire, firing;
    int queued_count, wire_count;
    char sqlstate[6];
    char trouble[160]; /* why the connection is not there */
    int callbacks;     /* depth of enter_callbacks */
    bool closing;
};

/* ---- request.c ---- */

/* A request with a copy of the arguments behind it (copy), or without any. NULL without memory. */
struct pg_request *pg_request_new(const struct pg_args *args, bool copy);
void pg_request_free(struct pg_request *r);
/* Off its list; onto one; from one to another. The counts follow. */
void pg_request_unlist(struct pg_request *r);
void pg_request_enlist(struct pg_request *r, struct request_list *list, enum request_state state);
void pg_request_move(struct pg_request *r, struct request_list *list, enum request_state state);
/* Calls back once and frees. r is on no list. */
void pg_request_fire(struct pg_request *r, const struct pg_result *result, const struct err *err);
/* Fails everything on the firing list. Callbacks may detach others of that list meanwhile. */
void pg_requests_fire(struct pg *pg, const struct err *err);
void pg_requests_to_firing(struct pg *pg, struct request_list *from);
/* Frees without calling back. */
void pg_requests_free(struct request_list *list);

/* ---- pg.c: the guard around everything that the loop calls ---- */

void pg_callbacks_enter(struct pg *pg);
/* Sends what the callbacks queued. pg may be gone afterwards. */
void pg_callbacks_leave(struct pg *pg);

/* ---- connection.c ---- */

/* The one place that changes the state. */
void pg_enter(struct pg *pg, enum pg_state next);
void pg_note_trouble(struct pg *pg, const char *text);
/* The connection is unusable: it goes at the end of this turn. */
void pg_doom(struct pg *pg, const char *why);
/* The connection is gone or must go: what was sent fails, what was not stays. Only at the top of a loop
 * callback. */
void pg_lose(struct pg *pg);
void pg_drop_connection(struct pg *pg);
/* The state timer: connects, or gives up connecting. */
void pg_on_state_timer(void *arg);

/* ---- wire.c ---- */

void pg_flush(struct pg *pg);
/* Puts a statement that is on no list on the wire. A failure to send dooms the connection, which fails it. */
void pg_send_statement(struct pg *pg, struct pg_request *r, const struct pg_args *args);
struct pg_request *pg_next_queued(struct pg *pg);
/* Sends what may be sent. */
void pg_pump(struct pg *pg);
/* load.c: whether the script on the wire is in a COPY, and its next bytes. */
bool pg_load_copying(const struct pg *pg);
void pg_load_begin_copy(struct pg *pg);
void pg_load_continue(struct pg *pg);
/* Takes the answers that have come whole. */
void pg_drain(struct pg *pg);

#endif
