/* One connection to PostgreSQL: a machine that keeps it alive, and a queue of statements that flow through
 * it.
 *
 * States (pg_state), moved by enter() alone:
 *
 *     BACKOFF ──timer──▶ CONNECTING ──polled──▶ SETUP ──settings answered──▶ READY ◀──▶ SCRIPT
 *        ▲                   │                    │                            │           │
 *        └───────────────────┴────── lose() ──────┴────────────────────────────┴───────────┘
 *
 * A request is on one of four lists: `first` (issued inside on_state, goes before the rest), `queue`, `wire`
 * (sent, in order of sending), `firing` (its callback is due now). In pipeline mode each statement is
 * [Parse] Bind Describe Execute Sync, so each is a transaction of its own; its callback waits for the Sync's
 * answer, because only then it is committed (a deferred constraint fails there). A script waits until the
 * wire is empty, leaves pipeline mode, and comes back.
 *
 * What must stay true:
 *  - user callbacks run only from enter_callbacks/leave_callbacks pairs, never inside pg_query;
 *  - the connection is dropped only in lose(), and lose() runs only at the top of a loop callback: whoever
 * finds it dead deeper down calls doom(), which posts a task;
 *  - pg_close inside a callback marks and detaches; the memory goes when the outermost callback returns.
 *
 * Reading needs no budget of its own: one PQconsumeInput a wake-up, and at most max_inflight answers in it.
 */
#include "postgres/pg.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <uthash.h>

#include "base/log.h"
#include "postgres/conninfo.h"
#include "postgres/params.h"

enum {
    DEFAULT_INFLIGHT = 8,
    DEFAULT_QUEUED = 1024,
    DEFAULT_CONNECT_MS = 5000,
    DEFAULT_STATEMENT_MS = 30000,
    LOCK_TIMEOUT_MS = 10000,
    BACKOFF_FIRST_MS = 100,
    BACKOFF_MOST_MS = 2000,
};

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

static void pump(struct pg *pg);
static void lose(struct pg *pg);
static void destroy(struct pg *pg);

/* ---- callbacks: the guard around everything that the loop calls ---- */

static void enter_callbacks(struct pg *pg)
{
    pg->callbacks++;
}

/* Sends what the callbacks queued. pg may be gone afterwards. */
static void leave_callbacks(struct pg *pg)
{
    if (--pg->callbacks > 0)
        return;
    if (pg->closing)
        destroy(pg);
    else
        pump(pg);
}

/* ---- requests ---- */

static void request_free(struct pg_request *r)
{
    PQclear(r->result);
    free(r->script);
    free(r);
}

static void request_unlist(struct pg_request *r)
{
    TAILQ_REMOVE(r->list, r, link);
    if (r->state == REQUEST_SENT)
        r->pg->wire_count--;
    else if (r->state == REQUEST_QUEUED)
        r->pg->queued_count--;
}

static void request_enlist(struct pg_request *r, struct request_list *list, enum request_state state)
{
    TAILQ_INSERT_TAIL(list, r, link);
    r->list = list;
    r->state = state;
    if (state == REQUEST_SENT)
        r->pg->wire_count++;
    else if (state == REQUEST_QUEUED)
        r->pg->queued_count++;
}

static void request_move(struct pg_request *r, struct request_list *list, enum request_state state)
{
    request_unlist(r);
    request_enlist(r, list, state);
}

/* Calls back once and frees. r is on no list. */
static void request_fire(struct pg_request *r, const struct pg_result *result, const struct err *err)
{
    pg_done_fn *done = r->done;
    r->state = REQUEST_FIRING;
    if (done != NULL)
        done(r->arg, result, err);
    request_free(r);
}

/* Fails everything on the firing list. Callbacks may detach others of that list meanwhile. */
static void fire_all(struct pg *pg, const struct err *err)
{
    struct pg_request *r;
    while ((r = TAILQ_FIRST(&pg->firing)) != NULL) {
        TAILQ_REMOVE(&pg->firing, r, link);
        request_fire(r, NULL, err);
    }
}

static void move_all_to_firing(struct pg *pg, struct request_list *from)
{
    struct pg_request *r;
    while ((r = TAILQ_FIRST(from)) != NULL)
        request_move(r, &pg->firing, REQUEST_FIRING);
}

/* ---- states ---- */

static void enter(struct pg *pg, enum pg_state next)
{
    static const unsigned allowed[] = {
        [PG_BACKOFF] = 1u << PG_CONNECTING | 1u << PG_BACKOFF,
        [PG_CONNECTING] = 1u << PG_SETUP | 1u << PG_BACKOFF,
        [PG_SETUP] = 1u << PG_READY | 1u << PG_BACKOFF,
        [PG_READY] = 1u << PG_SCRIPT | 1u << PG_BACKOFF,
        [PG_SCRIPT] = 1u << PG_READY | 1u << PG_BACKOFF,
    };
    INVARIANT((allowed[pg->state] & 1u << next) != 0);
    pg->state = next;
}

static void note_trouble(struct pg *pg, const char *text)
{
    str_copy(str_make(text, strnlen(text, sizeof pg->trouble - 1)), pg->trouble, sizeof pg->trouble);
    for (char *p = pg->trouble; *p != '\0'; p++)
        if (*p == '\n' || *p == '\t')
            *p = ' ';
}

static void doomed_turn(void *arg)
{
    struct pg *pg = arg;
    enter_callbacks(pg);
    lose(pg);
    leave_callbacks(pg);
}

/* The connection is unusable: it goes at the end of this turn. */
static void doom(struct pg *pg, const char *why)
{
    if (pg->doomed)
        return;
    pg->doomed = true;
    note_trouble(pg, why);
    loop_task_post(pg->loop, &pg->doom_task, doomed_turn, pg);
}

static int64_t backoff_ms(unsigned failures)
{
    int64_t most = BACKOFF_FIRST_MS;
    for (unsigned i = 1; i < failures && most < BACKOFF_MOST_MS; i++)
        most *= 2;
    most = most < BACKOFF_MOST_MS ? most : BACKOFF_MOST_MS;
    uint32_t random;
    random_bytes(&random, sizeof random);
    return most / 2 + random % (uint32_t)(most / 2 + 1);
}

static void drop_connection(struct pg *pg)
{
    struct prepared *p, *next;
    loop_io_free(&pg->io); /* before the descriptor closes */
    PQfinish(pg->conn);
    pg->conn = NULL;
    HASH_ITER(hh, pg->prepared, p, next)
    {
        HASH_DEL(pg->prepared, p);
        free(p);
    }
    loop_task_cancel(pg->loop, &pg->doom_task);
    pg->doomed = false;
}

/* The connection is gone or must go: what was sent fails, what was not stays. */
static void lose(struct pg *pg)
{
    struct err err;
    err_set(&err, ERR_OUTCOME_UNKNOWN, "the database connection was lost: %s", pg->trouble);
    log_debug("database connection lost", LF_STR("why", pg->trouble));
    bool was_up = pg->up;
    pg->up = false;
    drop_connection(pg);
    move_all_to_firing(pg, &pg->wire);
    pg->failures++;
    enter(pg, PG_BACKOFF);
    loop_timer_start(pg->state_timer, backoff_ms(pg->failures));
    fire_all(pg, &err);
    if (was_up && !pg->closing && pg->options.on_state != NULL)
        pg->options.on_state(pg->options.arg, false);
}

/* ---- writing ---- */

static void flush(struct pg *pg)
{
    int more = PQflush(pg->conn);
    if (more < 0) {
        doom(pg, PQerrorMessage(pg->conn));
        return;
    }
    loop_io_set(pg->io, LOOP_READ | (more > 0 ? LOOP_WRITE : 0));
}

static void prepared_name(unsigned id, char out[16])
{
    snprintf(out, 16, "s%u", id);
}

/* The statement's id on this connection, sending its Parse on first use. 0 on failure. */
static unsigned ensure_prepared(struct pg *pg, struct pg_request *r, const struct pg_args *args)
{
    struct prepared *p;
    HASH_FIND_PTR(pg->prepared, &r->sql, p);
    if (p != NULL)
        return p->id;
    p = calloc(1, sizeof *p);
    if (p == NULL)
        return 0;
    p->sql = r->sql;
    p->id = ++pg->next_prepared_id;
    char name[16];
    prepared_name(p->id, name);
    if (PQsendPrepare(pg->conn, name, r->sql, args->count, args->types) == 0) {
        free(p);
        return 0;
    }
    HASH_ADD_PTR(pg->prepared, sql, p);
    r->parse_pending = true;
    return p->id;
}

/* After a failure that concerns the prepared form, the next use prepares anew. */
static void forget_prepared(struct pg *pg, const struct pg_request *r)
{
    struct prepared *p;
    HASH_FIND_PTR(pg->prepared, &r->sql, p);
    if (p == NULL || p->id != r->prepared_id)
        return;
    HASH_DEL(pg->prepared, p);
    free(p);
}

static bool send_execute(struct pg *pg, const struct pg_request *r, const struct pg_args *args)
{
    const char *values[PG_MAX_PARAMS];
    int formats[PG_MAX_PARAMS];
    char name[16];
    for (int i = 0; i < args->count; i++) {
        values[i] = args->lengths[i] >= 0 ? args->bytes + args->offsets[i] : NULL;
        formats[i] = 1;
    }
    prepared_name(r->prepared_id, name);
    return PQsendQueryPrepared(pg->conn, name, args->count, values, args->lengths, formats, 1) != 0 &&
           PQpipelineSync(pg->conn) != 0;
}

/* Puts a statement that is on no list on the wire. A failure to send dooms the connection, which fails it. */
static void send_statement(struct pg *pg, struct pg_request *r, const struct pg_args *args)
{
    request_enlist(r, &pg->wire, REQUEST_SENT);
    r->prepared_id = ensure_prepared(pg, r, args);
    if (r->prepared_id == 0 || !send_execute(pg, r, args))
        doom(pg, PQerrorMessage(pg->conn));
}

/* Leaves pipeline mode (nothing is on the wire) and sends the script. */
static void send_script(struct pg *pg, struct pg_request *r)
{
    request_enlist(r, &pg->wire, REQUEST_SENT);
    enter(pg, PG_SCRIPT);
    if (PQexitPipelineMode(pg->conn) == 0 || PQsendQuery(pg->conn, r->script) == 0)
        doom(pg, PQerrorMessage(pg->conn));
}

static struct pg_request *next_queued(struct pg *pg)
{
    struct pg_request *r = TAILQ_FIRST(&pg->first);
    return r != NULL ? r : TAILQ_FIRST(&pg->queue);
}

/* Sends what may be sent. */
static void pump(struct pg *pg)
{
    while (pg->state == PG_READY && !pg->doomed && !pg->announcing &&
           pg->wire_count < pg->options.max_inflight) {
        struct pg_request *r = next_queued(pg);
        if (r == NULL || (r->script != NULL && pg->wire_count > 0))
            break;
        request_unlist(r);
        if (r->script != NULL)
            send_script(pg, r);
        else
            send_statement(pg, r, &r->args);
    }
    if (pg->io != NULL && !pg->doomed && pg->state >= PG_SETUP)
        flush(pg);
}

/* ---- answers ---- */

static bool is_error(const PGresult *res)
{
    ExecStatusType st = PQresultStatus(res);
    return st != PGRES_EMPTY_QUERY && st != PGRES_COMMAND_OK && st != PGRES_TUPLES_OK;
}

static void describe_error(struct pg *pg, const PGresult *res, struct err *err)
{
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    str_copy(str_of(state), pg->sqlstate, sizeof pg->sqlstate);
    bool data = strncmp(pg->sqlstate, "22", 2) == 0 || strncmp(pg->sqlstate, "23", 2) == 0;
    err_set(err, data ? ERR_PG_DATA : ERR_PG, "database: %s (SQLSTATE %s)", text != NULL ? text : "no answer",
            pg->sqlstate[0] != '\0' ? pg->sqlstate : "none");
}

/* "cached plan must not change result type" and "prepared statement does not exist" */
static bool concerns_prepared(const char *sqlstate)
{
    return strcmp(sqlstate, "0A000") == 0 || strcmp(sqlstate, "26000") == 0;
}

/* The head of the wire has its whole answer. */
static void complete(struct pg *pg)
{
    struct pg_request *r = TAILQ_FIRST(&pg->wire);
    struct err err = ERR_INIT;
    bool failed = r->result == NULL || is_error(r->result);
    request_unlist(r);
    if (failed)
        describe_error(pg, r->result, &err);
    if (r->sql != NULL && concerns_prepared(pg->sqlstate))
        forget_prepared(pg, r);
    request_fire(r, failed ? NULL : (const struct pg_result *)(const void *)r->result, failed ? &err : NULL);
    pg->sqlstate[0] = '\0';
}

/* Keeps the first answer, or the first error: one may follow a success (COMMIT failed at the Sync). */
static void keep_result(struct pg_request *r, PGresult *res)
{
    bool replace = r->result == NULL || (is_error(res) && !is_error(r->result));
    PQclear(replace ? r->result : res);
    if (replace)
        r->result = res;
}

static bool is_copy(const PGresult *res)
{
    ExecStatusType st = PQresultStatus(res);
    return st == PGRES_COPY_IN || st == PGRES_COPY_OUT || st == PGRES_COPY_BOTH;
}

static void take_pipeline_result(struct pg *pg, PGresult *res)
{
    struct pg_request *r = TAILQ_FIRST(&pg->wire);
    if (PQresultStatus(res) == PGRES_PIPELINE_SYNC) {
        PQclear(res);
        complete(pg);
        return;
    }
    bool parse_answer = r->parse_pending;
    r->parse_pending = false;
    if (parse_answer && is_error(res))
        forget_prepared(pg, r);
    if (parse_answer && !is_error(res))
        PQclear(res);
    else
        keep_result(r, res);
}

/* In pipeline mode: NULL ends one command's results, the Sync's result ends one statement. Two NULLs in a row
 * with statements outstanding mean that libpq has given up. */
static void drain_pipeline(struct pg *pg)
{
    int nulls = 0;
    while (pg->wire_count > 0 && !pg->doomed && !pg->closing && PQisBusy(pg->conn) == 0) {
        PGresult *res = PQgetResult(pg->conn);
        nulls = res == NULL ? nulls + 1 : 0;
        if (nulls > 1 || is_copy(res)) {
            PQclear(res);
            doom(pg, PQerrorMessage(pg->conn));
            return;
        }
        if (res != NULL)
            take_pipeline_result(pg, res);
    }
}

static void script_ended(struct pg *pg)
{
    if (PQtransactionStatus(pg->conn) != PQTRANS_IDLE)
        doom(pg, "a script left a transaction open");
    else if (PQenterPipelineMode(pg->conn) == 0)
        doom(pg, PQerrorMessage(pg->conn));
    else
        enter(pg, PG_READY);
    complete(pg);
}

static void drain_script(struct pg *pg)
{
    while (!pg->doomed && PQisBusy(pg->conn) == 0) {
        PGresult *res = PQgetResult(pg->conn);
        if (res == NULL) {
            script_ended(pg);
            return;
        }
        if (is_copy(res)) {
            PQclear(res);
            doom(pg, "a script used COPY");
            return;
        }
        keep_result(TAILQ_FIRST(&pg->wire), res);
    }
}

static void drain(struct pg *pg)
{
    if (pg->state == PG_SCRIPT)
        drain_script(pg);
    else
        drain_pipeline(pg);
}

static void on_io(void *arg, int fd, int events)
{
    (void)fd;
    struct pg *pg = arg;
    enter_callbacks(pg);
    bool alive = (events & LOOP_READ) == 0 || PQconsumeInput(pg->conn) != 0;
    if (!alive)
        note_trouble(pg, PQerrorMessage(pg->conn));
    drain(pg); /* also what came before the end of a dead connection */
    if (!alive && !pg->closing)
        lose(pg);
    leave_callbacks(pg);
}

/* ---- connecting ---- */

static void setup_done(void *arg, const struct pg_result *result, const struct err *err)
{
    (void)result;
    struct pg *pg = arg;
    if (pg->state != PG_SETUP)
        return; /* lost meanwhile */
    if (err != NULL) {
        doom(pg, err->msg);
        return;
    }
    loop_timer_stop(pg->state_timer);
    enter(pg, PG_READY);
    pg->failures = 0;
    pg->trouble[0] = '\0';
    pg->up = true;
    pg->announcing = true;
    if (pg->options.on_state != NULL)
        pg->options.on_state(pg->options.arg, true);
    pg->announcing = false;
}

/* jit: all statements are a few index probes; compiling one takes 200 ms and saves nothing. */
static const char setup_sql[] =
    "SELECT set_config('statement_timeout', $1, false), set_config('lock_timeout', $2, false),"
    " set_config('idle_in_transaction_session_timeout', $1, false),"
    " set_config('standard_conforming_strings', 'on', false), set_config('jit', 'off', false)";

static int setup_params(const struct pg *pg, struct pg_params *p)
{
    char text[24];
    int64_t ms = pg->options.statement_timeout_ms;
    snprintf(text, sizeof text, "%lld", (long long)ms);
    pg_put_text(p, str_of(text));
    snprintf(text, sizeof text, "%lld", (long long)(ms < LOCK_TIMEOUT_MS ? ms : LOCK_TIMEOUT_MS));
    pg_put_text(p, str_of(text));
    return pg_params_bytes(p) > 0 ? 0 : -1;
}

/* The session's settings, in one statement. */
static void send_setup(struct pg *pg)
{
    struct pg_params *params = pg_params_new(256);
    struct pg_request *r = calloc(1, sizeof *r);
    struct pg_args args;
    if (params == NULL || r == NULL || setup_params(pg, params) != 0 || !pg_params_view(params, &args)) {
        free(r);
        doom(pg, "no memory");
    } else {
        r->pg = pg;
        r->sql = setup_sql;
        r->deadline.us = INT64_MAX; /* the state timer is its deadline */
        r->done = setup_done;
        r->arg = pg;
        send_statement(pg, r, &args);
    }
    pg_params_free(&params);
}

static void connected(struct pg *pg)
{
    enter(pg, PG_SETUP);
    pg->io = loop_io_new(pg->loop, PQsocket(pg->conn), LOOP_READ, on_io, pg);
    if (pg->io == NULL || PQsetnonblocking(pg->conn, 1) != 0 || PQenterPipelineMode(pg->conn) == 0) {
        doom(pg, PQerrorMessage(pg->conn));
        return;
    }
    send_setup(pg);
}

static void connect_step(void *arg, int fd, int events);

/* The socket may be another one after each poll: the watcher is made anew. */
static void watch_connect(struct pg *pg, int events)
{
    pg->io = loop_io_new(pg->loop, PQsocket(pg->conn), events, connect_step, pg);
    if (pg->io == NULL)
        doom(pg, "no memory");
}

static void connect_step(void *arg, int fd, int events)
{
    (void)fd, (void)events;
    struct pg *pg = arg;
    enter_callbacks(pg);
    loop_io_free(&pg->io);
    switch (PQconnectPoll(pg->conn)) {
    case PGRES_POLLING_READING:
        watch_connect(pg, LOOP_READ);
        break;
    case PGRES_POLLING_WRITING:
        watch_connect(pg, LOOP_WRITE);
        break;
    case PGRES_POLLING_OK:
        connected(pg);
        break;
    case PGRES_POLLING_FAILED:
    case PGRES_POLLING_ACTIVE:
        doom(pg, PQerrorMessage(pg->conn));
        break;
    }
    leave_callbacks(pg);
}

static void ignore_notice(void *arg, const char *message)
{
    (void)arg;
    log_debug("database notice", LF_STR("text", message));
}

static void start_connecting(struct pg *pg)
{
    enter(pg, PG_CONNECTING);
    loop_timer_start(pg->state_timer, pg->options.connect_timeout_ms);
    pg->conn = pg_conninfo_start(pg->info);
    if (pg->conn == NULL || PQstatus(pg->conn) == CONNECTION_BAD) {
        doom(pg, pg->conn != NULL ? PQerrorMessage(pg->conn) : "no memory");
        return;
    }
    PQsetNoticeProcessor(pg->conn, ignore_notice, NULL);
    watch_connect(pg, LOOP_WRITE);
}

static void on_state_timer(void *arg)
{
    struct pg *pg = arg;
    enter_callbacks(pg);
    if (pg->state == PG_BACKOFF) {
        start_connecting(pg);
    } else if (pg->state == PG_CONNECTING || pg->state == PG_SETUP) {
        note_trouble(pg, "connecting took too long");
        lose(pg);
    }
    leave_callbacks(pg);
}

/* ---- deadlines: one timer, armed for the earliest ---- */

static void arm_deadline(struct pg *pg, int64_t us)
{
    if (us >= pg->deadline_us)
        return;
    pg->deadline_us = us;
    int64_t left_us = us - loop_now(pg->loop).us;
    loop_timer_start(pg->deadline_timer, left_us > 0 ? (left_us + 999) / 1000 : 0);
}

/* Moves the list's expired requests to `firing` and takes note of the earliest deadline among the others. */
static void expire_queued(struct pg *pg, struct request_list *list, mono_t now, int64_t *earliest)
{
    struct pg_request *r, *next;
    for (r = TAILQ_FIRST(list); r != NULL; r = next) {
        next = TAILQ_NEXT(r, link);
        if (r->deadline.us <= now.us)
            request_move(r, &pg->firing, REQUEST_FIRING);
        else if (r->deadline.us < *earliest)
            *earliest = r->deadline.us;
    }
}

static bool wire_is_stuck(struct pg *pg, mono_t now, int64_t *earliest)
{
    struct pg_request *r;
    bool stuck = false;
    TAILQ_FOREACH(r, &pg->wire, link)
    {
        if (r->deadline.us <= now.us)
            stuck = true;
        else if (r->deadline.us < *earliest)
            *earliest = r->deadline.us;
    }
    return stuck;
}

static void on_deadline(void *arg)
{
    struct pg *pg = arg;
    mono_t now = loop_now(pg->loop);
    int64_t earliest = INT64_MAX;
    struct err err;
    enter_callbacks(pg);
    err_set(&err, ERR_TIMEOUT, "the statement was not sent before its deadline%s%s",
            pg->trouble[0] != '\0' ? ": " : "", pg->trouble);
    expire_queued(pg, &pg->first, now, &earliest);
    expire_queued(pg, &pg->queue, now, &earliest);
    bool stuck = wire_is_stuck(pg, now, &earliest);
    pg->deadline_us = INT64_MAX;
    if (earliest != INT64_MAX)
        arm_deadline(pg, earliest);
    fire_all(pg, &err);
    if (stuck && !pg->closing && pg->conn != NULL) {
        note_trouble(pg, "a statement passed its deadline");
        lose(pg);
    }
    leave_callbacks(pg);
}

/* ---- submitting ---- */

/* A request with a copy of the arguments behind it. */
static struct pg_request *request_new(const struct pg_args *args, bool copy)
{
    size_t n = copy ? (size_t)args->count : 0, size = copy ? args->size : 0;
    size_t tables = n * (sizeof *args->offsets + sizeof *args->types + sizeof *args->lengths);
    struct pg_request *r = malloc(sizeof *r + tables + size + 1);
    if (r == NULL)
        return NULL;
    memset(r, 0, sizeof *r);
    size_t *offsets = (size_t *)(void *)(r + 1);
    uint32_t *types = (uint32_t *)(void *)(offsets + n);
    int *lengths = (int *)(void *)(types + n);
    char *bytes = (char *)(lengths + n);
    if (n > 0) {
        memcpy(offsets, args->offsets, n * sizeof *offsets);
        memcpy(types, args->types, n * sizeof *types);
        memcpy(lengths, args->lengths, n * sizeof *lengths);
        memcpy(bytes, args->bytes, size);
    }
    r->args = (struct pg_args){.count = (int)n,
                               .types = types,
                               .lengths = lengths,
                               .offsets = offsets,
                               .bytes = bytes,
                               .size = size};
    return r;
}

static int check_room(const struct pg *pg, struct err *err)
{
    if (pg->closing)
        return err_set(err, ERR_CANCELED, "the database connection is closing");
    if (pg->queued_count >= pg->options.max_queued && !pg->announcing)
        return err_set(err, ERR_OVERLOADED, "too many statements wait for the database");
    return 0;
}

static void accept(struct pg *pg, struct pg_request *r, int64_t deadline_ms, pg_done_fn *done, void *arg)
{
    r->pg = pg;
    r->deadline = mono_add_ms(loop_now(pg->loop), deadline_ms > 0 ? deadline_ms : 1);
    r->done = done;
    r->arg = arg;
    arm_deadline(pg, r->deadline.us);
}

static void enqueue(struct pg *pg, struct pg_request *r)
{
    request_enlist(r, pg->announcing ? &pg->first : &pg->queue, REQUEST_QUEUED);
}

struct pg_request *pg_query(struct pg *pg, const char *sql, const struct pg_params *params,
                            int64_t deadline_ms, pg_done_fn *done, void *arg, struct err *err)
{
    struct pg_args args;
    if (!pg_params_view(params, &args)) {
        err_set(err, ERR_LIMIT, "the statement's parameters exceed their limit");
        return NULL;
    }
    if (check_room(pg, err) != 0)
        return NULL;
    /* with nothing ahead of it, it goes straight from the caller's buffer to libpq's */
    bool now = pg->state == PG_READY && !pg->doomed && !pg->announcing && next_queued(pg) == NULL &&
               pg->wire_count < pg->options.max_inflight;
    struct pg_request *r = request_new(&args, !now);
    if (r == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory for a statement");
        return NULL;
    }
    r->sql = sql;
    accept(pg, r, deadline_ms, done, arg);
    if (now) {
        send_statement(pg, r, &args);
        if (!pg->doomed)
            flush(pg);
    } else {
        enqueue(pg, r);
    }
    return r;
}

struct pg_request *pg_script(struct pg *pg, struct str sql, int64_t deadline_ms, pg_done_fn *done, void *arg,
                             struct err *err)
{
    static const struct pg_args none = {.bytes = ""};
    if (memchr(sql.p, '\0', sql.n) != NULL) {
        err_set(err, ERR_PG_DATA, "the script holds a NUL byte");
        return NULL;
    }
    if (check_room(pg, err) != 0)
        return NULL;
    struct pg_request *r = request_new(&none, false);
    if (r != NULL)
        r->script = str_dup(sql);
    if (r == NULL || r->script == NULL) {
        free(r);
        err_set(err, ERR_NO_MEMORY, "no memory for a script");
        return NULL;
    }
    accept(pg, r, deadline_ms, done, arg);
    enqueue(pg, r);
    if (pg->callbacks == 0)
        pump(pg);
    return r;
}

void pg_cancel(struct pg_request **r)
{
    if (r == NULL || *r == NULL)
        return;
    struct pg_request *req = *r;
    *r = NULL;
    req->done = NULL;
    if (req->state != REQUEST_QUEUED)
        return; /* freed when its answer has come */
    request_unlist(req);
    request_free(req);
}

/* ---- opening and closing ---- */

static int64_t or_default(int64_t v, int64_t fallback)
{
    return v > 0 ? v : fallback;
}

static void set_defaults(struct pg_options *o)
{
    o->max_inflight = (int)or_default(o->max_inflight, DEFAULT_INFLIGHT);
    o->max_queued = (int)or_default(o->max_queued, DEFAULT_QUEUED);
    o->connect_timeout_ms = or_default(o->connect_timeout_ms, DEFAULT_CONNECT_MS);
    o->statement_timeout_ms = or_default(o->statement_timeout_ms, DEFAULT_STATEMENT_MS);
    o->url = o->application = NULL; /* kept in conninfo */
}

struct pg *pg_open(struct loop *loop, const struct pg_options *options, struct err *err)
{
    struct pg_conninfo *info = pg_conninfo_new(options->url, options->application, err);
    struct pg *pg = info != NULL ? calloc(1, sizeof *pg) : NULL;
    if (pg == NULL) {
        if (info != NULL)
            err_set(err, ERR_NO_MEMORY, "no memory for a database connection");
        pg_conninfo_free(&info);
        return NULL;
    }
    pg->loop = loop;
    pg->options = *options;
    set_defaults(&pg->options);
    pg->info = info;
    pg->deadline_us = INT64_MAX;
    TAILQ_INIT(&pg->first);
    TAILQ_INIT(&pg->queue);
    TAILQ_INIT(&pg->wire);
    TAILQ_INIT(&pg->firing);
    pg->state_timer = loop_timer_new(loop, on_state_timer, pg);
    pg->deadline_timer = loop_timer_new(loop, on_deadline, pg);
    if (pg->state_timer == NULL || pg->deadline_timer == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory for a database connection");
        destroy(pg);
        return NULL;
    }
    loop_timer_start(pg->state_timer, 0); /* state BACKOFF: connects in the loop's first turn */
    return pg;
}

static void free_all(struct request_list *list)
{
    struct pg_request *r;
    while ((r = TAILQ_FIRST(list)) != NULL) {
        TAILQ_REMOVE(list, r, link);
        request_free(r);
    }
}

static void destroy(struct pg *pg)
{
    drop_connection(pg);
    free_all(&pg->first);
    free_all(&pg->queue);
    free_all(&pg->wire);
    free_all(&pg->firing);
    loop_timer_free(&pg->state_timer);
    loop_timer_free(&pg->deadline_timer);
    pg_conninfo_free(&pg->info);
    free(pg);
}

static void detach_all(struct request_list *list)
{
    struct pg_request *r;
    TAILQ_FOREACH(r, list, link)
    r->done = NULL;
}

void pg_close(struct pg **pgp)
{
    if (pgp == NULL || *pgp == NULL)
        return;
    struct pg *pg = *pgp;
    *pgp = NULL;
    if (pg->callbacks == 0) {
        destroy(pg);
        return;
    }
    pg->closing = true; /* inside one of our callbacks: the memory goes when it returns */
    detach_all(&pg->first);
    detach_all(&pg->queue);
    detach_all(&pg->wire);
    detach_all(&pg->firing);
}

bool pg_connected(const struct pg *pg)
{
    return pg->up;
}

int pg_backend_pid(const struct pg *pg)
{
    return pg->up ? PQbackendPID(pg->conn) : 0;
}

int pg_queue_length(const struct pg *pg)
{
    return pg->queued_count + pg->wire_count;
}

const char *pg_sqlstate(const struct pg *pg)
{
    return pg->sqlstate;
}
