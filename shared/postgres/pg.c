/* One connection to PostgreSQL: a machine that keeps it alive, and a queue of statements that flow through
 * it.
 *
 * States (pg_state), moved by pg_enter() alone:
 *
 *     BACKOFF ──timer──▶ CONNECTING ──polled──▶ SETUP ──settings answered──▶ READY ◀──▶ SCRIPT
 *        ▲                   │                    │                            │           │
 *        └───────────────────┴───── pg_lose() ────┴────────────────────────────┴───────────┘
 *
 * A request is on one of four lists: `first` (issued inside on_state, goes before the rest), `queue`, `wire`
 * (sent, in order of sending), `firing` (its callback is due now). In pipeline mode each statement is
 * [Parse] Bind Describe Execute Sync, so each is a transaction of its own; its callback waits for the Sync's
 * answer, because only then it is committed (a deferred constraint fails there). A script waits until the
 * wire is empty, leaves pipeline mode, and comes back.
 *
 * What must stay true:
 *  - user callbacks run only from pg_callbacks_enter/_leave pairs, never inside pg_query;
 *  - the connection is dropped only in pg_lose(), and pg_lose() runs only at the top of a loop callback:
 * whoever finds it dead deeper down calls pg_doom(), which posts a task;
 *  - pg_close inside a callback marks and detaches; the memory goes when the outermost callback returns.
 *
 * Reading needs no budget of its own: one PQconsumeInput a wake-up, and at most max_inflight answers in it.
 */
#include "postgres/pg_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_INFLIGHT = 8,
    DEFAULT_QUEUED = 1024,
    DEFAULT_CONNECT_MS = 5000,
    DEFAULT_STATEMENT_MS = 30000,
};

static void destroy(struct pg *pg);

/* ---- callbacks: the guard around everything that the loop calls ---- */

void pg_callbacks_enter(struct pg *pg)
{
    pg->callbacks++;
}

/* Sends what the callbacks queued. pg may be gone afterwards. */
void pg_callbacks_leave(struct pg *pg)
{
    if (--pg->callbacks > 0)
        return;
    if (pg->closing)
        destroy(pg);
    else
        pg_pump(pg);
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
            pg_request_move(r, &pg->firing, REQUEST_FIRING);
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
    pg_callbacks_enter(pg);
    err_set(&err, ERR_TIMEOUT, "the statement was not sent before its deadline%s%s",
            pg->trouble[0] != '\0' ? ": " : "", pg->trouble);
    expire_queued(pg, &pg->first, now, &earliest);
    expire_queued(pg, &pg->queue, now, &earliest);
    bool stuck = wire_is_stuck(pg, now, &earliest);
    pg->deadline_us = INT64_MAX;
    if (earliest != INT64_MAX)
        arm_deadline(pg, earliest);
    pg_requests_fire(pg, &err);
    if (stuck && !pg->closing && pg->conn != NULL) {
        pg_note_trouble(pg, "a statement passed its deadline");
        pg_lose(pg);
    }
    pg_callbacks_leave(pg);
}

/* ---- submitting ---- */

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
    pg_request_enlist(r, pg->announcing ? &pg->first : &pg->queue, REQUEST_QUEUED);
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
    bool now = pg->state == PG_READY && !pg->doomed && !pg->announcing && pg_next_queued(pg) == NULL &&
               pg->wire_count < pg->options.max_inflight;
    struct pg_request *r = pg_request_new(&args, !now);
    if (r == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory for a statement");
        return NULL;
    }
    r->sql = sql;
    accept(pg, r, deadline_ms, done, arg);
    if (now) {
        pg_send_statement(pg, r, &args);
        if (!pg->doomed)
            pg_flush(pg);
    } else {
        enqueue(pg, r);
    }
    return r;
}

static struct pg_request *script(struct pg *pg, struct str sql, pg_source_fn *source, int64_t deadline_ms,
                                 pg_done_fn *done, void *arg, struct err *err)
{
    static const struct pg_args none = {.bytes = ""};
    if (memchr(sql.p, '\0', sql.n) != NULL) {
        err_set(err, ERR_PG_DATA, "the script holds a NUL byte");
        return NULL;
    }
    if (check_room(pg, err) != 0)
        return NULL;
    struct pg_request *r = pg_request_new(&none, false);
    if (r != NULL)
        r->script = str_dup(sql);
    if (r == NULL || r->script == NULL) {
        free(r);
        err_set(err, ERR_NO_MEMORY, "no memory for a script");
        return NULL;
    }
    r->source = source;
    accept(pg, r, deadline_ms, done, arg);
    enqueue(pg, r);
    if (pg->callbacks == 0)
        pg_pump(pg);
    return r;
}

struct pg_request *pg_script(struct pg *pg, struct str sql, int64_t deadline_ms, pg_done_fn *done, void *arg,
                             struct err *err)
{
    return script(pg, sql, NULL, deadline_ms, done, arg, err);
}

struct pg_request *pg_load(struct pg *pg, struct str sql, pg_source_fn *source, int64_t deadline_ms,
                           pg_done_fn *done, void *arg, struct err *err)
{
    return script(pg, sql, source, deadline_ms, done, arg, err);
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
    pg_request_unlist(req);
    pg_request_free(req);
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
    pg->state_timer = loop_timer_new(loop, pg_on_state_timer, pg);
    pg->deadline_timer = loop_timer_new(loop, on_deadline, pg);
    if (pg->state_timer == NULL || pg->deadline_timer == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory for a database connection");
        destroy(pg);
        return NULL;
    }
    loop_timer_start(pg->state_timer, 0); /* state BACKOFF: connects in the loop's first turn */
    return pg;
}

static void destroy(struct pg *pg)
{
    pg_drop_connection(pg);
    pg_requests_free(&pg->first);
    pg_requests_free(&pg->queue);
    pg_requests_free(&pg->wire);
    pg_requests_free(&pg->firing);
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
