/* The connection's states: bringing it up, its settings, and its loss. */
#include "postgres/pg_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { LOCK_TIMEOUT_MS = 10000, BACKOFF_FIRST_MS = 100, BACKOFF_MOST_MS = 2000 };

/* ---- states ---- */

void pg_enter(struct pg *pg, enum pg_state next)
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

void pg_note_trouble(struct pg *pg, const char *text)
{
    str_copy(str_make(text, strnlen(text, sizeof pg->trouble - 1)), pg->trouble, sizeof pg->trouble);
    for (char *p = pg->trouble; *p != '\0'; p++)
        if (*p == '\n' || *p == '\t')
            *p = ' ';
}

static void doomed_turn(void *arg)
{
    struct pg *pg = arg;
    pg_callbacks_enter(pg);
    pg_lose(pg);
    pg_callbacks_leave(pg);
}

/* The connection is unusable: it goes at the end of this turn. */
void pg_doom(struct pg *pg, const char *why)
{
    if (pg->doomed)
        return;
    pg->doomed = true;
    pg_note_trouble(pg, why);
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

void pg_drop_connection(struct pg *pg)
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
void pg_lose(struct pg *pg)
{
    struct err err;
    err_set(&err, ERR_OUTCOME_UNKNOWN, "the database connection was lost: %s", pg->trouble);
    log_debug("database connection lost", LF_STR("why", pg->trouble));
    bool was_up = pg->up;
    pg->up = false;
    pg_drop_connection(pg);
    pg_requests_to_firing(pg, &pg->wire);
    pg->failures++;
    pg_enter(pg, PG_BACKOFF);
    loop_timer_start(pg->state_timer, backoff_ms(pg->failures));
    pg_requests_fire(pg, &err);
    if (was_up && !pg->closing && pg->options.on_state != NULL)
        pg->options.on_state(pg->options.arg, false);
}

static void on_io(void *arg, int fd, int events)
{
    (void)fd;
    struct pg *pg = arg;
    pg_callbacks_enter(pg);
    bool alive = (events & LOOP_READ) == 0 || PQconsumeInput(pg->conn) != 0;
    if (!alive)
        pg_note_trouble(pg, PQerrorMessage(pg->conn));
    pg_drain(pg); /* also what came before the end of a dead connection */
    if (!alive && !pg->closing)
        pg_lose(pg);
    pg_callbacks_leave(pg);
}

/* ---- connecting ---- */

static void setup_done(void *arg, const struct pg_result *result, const struct err *err)
{
    (void)result;
    struct pg *pg = arg;
    if (pg->state != PG_SETUP)
        return; /* lost meanwhile */
    if (err != NULL) {
        pg_doom(pg, err->msg);
        return;
    }
    loop_timer_stop(pg->state_timer);
    pg_enter(pg, PG_READY);
    pg->failures = 0;
    pg->trouble[0] = '\0';
    pg->up = true;
    pg->announcing = true;
    if (pg->options.on_state != NULL)
        pg->options.on_state(pg->options.arg, true);
    pg->announcing = false;
}

/* Statements are prepared, and a few index probes each. jit: compiling one takes 200 ms and saves nothing.
 * Parallel workers: starting one costs more than what it is given to do. Generic plans: planning over the
 * partitions costs more than running; executors prune by the parameters. */
static const char setup_sql[] =
    "SELECT set_config('statement_timeout', $1, false), set_config('lock_timeout', $2, false),"
    " set_config('idle_in_transaction_session_timeout', $1, false),"
    " set_config('standard_conforming_strings', 'on', false), set_config('jit', 'off', false),"
    " set_config('plan_cache_mode', 'force_generic_plan', false),"
    " set_config('max_parallel_workers_per_gather', '0', false)";

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
        pg_doom(pg, "no memory");
    } else {
        r->pg = pg;
        r->sql = setup_sql;
        r->deadline.us = INT64_MAX; /* the state timer is its deadline */
        r->done = setup_done;
        r->arg = pg;
        pg_send_statement(pg, r, &args);
    }
    pg_params_free(&params);
}

static void connected(struct pg *pg)
{
    pg_enter(pg, PG_SETUP);
    pg->io = loop_io_new(pg->loop, PQsocket(pg->conn), LOOP_READ, on_io, pg);
    if (pg->io == NULL || PQsetnonblocking(pg->conn, 1) != 0 || PQenterPipelineMode(pg->conn) == 0) {
        pg_doom(pg, PQerrorMessage(pg->conn));
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
        pg_doom(pg, "no memory");
}

static void connect_step(void *arg, int fd, int events)
{
    (void)fd, (void)events;
    struct pg *pg = arg;
    pg_callbacks_enter(pg);
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
        pg_doom(pg, PQerrorMessage(pg->conn));
        break;
    }
    pg_callbacks_leave(pg);
}

static void ignore_notice(void *arg, const char *message)
{
    (void)arg;
    log_debug("database notice", LF_STR("text", message));
}

static void start_connecting(struct pg *pg)
{
    pg_enter(pg, PG_CONNECTING);
    loop_timer_start(pg->state_timer, pg->options.connect_timeout_ms);
    pg->conn = pg_conninfo_start(pg->info);
    if (pg->conn == NULL || PQstatus(pg->conn) == CONNECTION_BAD) {
        pg_doom(pg, pg->conn != NULL ? PQerrorMessage(pg->conn) : "no memory");
        return;
    }
    PQsetNoticeProcessor(pg->conn, ignore_notice, NULL);
    watch_connect(pg, LOOP_WRITE);
}

void pg_on_state_timer(void *arg)
{
    struct pg *pg = arg;
    pg_callbacks_enter(pg);
    if (pg->state == PG_BACKOFF) {
        start_connecting(pg);
    } else if (pg->state == PG_CONNECTING || pg->state == PG_SETUP) {
        pg_note_trouble(pg, "connecting took too long");
        pg_lose(pg);
    }
    pg_callbacks_leave(pg);
}
