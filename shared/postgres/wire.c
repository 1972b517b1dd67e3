/* What goes over the connection: statements out, answers in. */
#include "postgres/pg_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- writing ---- */

void pg_flush(struct pg *pg)
{
    int more = PQflush(pg->conn);
    if (more < 0) {
        pg_doom(pg, PQerrorMessage(pg->conn));
        return;
    }
    loop_io_set(pg->io, LOOP_READ | (more > 0 || pg_load_copying(pg) ? LOOP_WRITE : 0));
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
void pg_send_statement(struct pg *pg, struct pg_request *r, const struct pg_args *args)
{
    pg_request_enlist(r, &pg->wire, REQUEST_SENT);
    r->prepared_id = ensure_prepared(pg, r, args);
    if (r->prepared_id == 0 || !send_execute(pg, r, args))
        pg_doom(pg, PQerrorMessage(pg->conn));
}

/* Leaves pipeline mode (nothing is on the wire) and sends the script. */
static void send_script(struct pg *pg, struct pg_request *r)
{
    pg_request_enlist(r, &pg->wire, REQUEST_SENT);
    pg_enter(pg, PG_SCRIPT);
    if (PQexitPipelineMode(pg->conn) == 0 || PQsendQuery(pg->conn, r->script) == 0)
        pg_doom(pg, PQerrorMessage(pg->conn));
}

struct pg_request *pg_next_queued(struct pg *pg)
{
    struct pg_request *r = TAILQ_FIRST(&pg->first);
    return r != NULL ? r : TAILQ_FIRST(&pg->queue);
}

/* Sends what may be sent. */
void pg_pump(struct pg *pg)
{
    while (pg->state == PG_READY && !pg->doomed && !pg->announcing &&
           pg->wire_count < pg->options.max_inflight) {
        struct pg_request *r = pg_next_queued(pg);
        if (r == NULL || (r->script != NULL && pg->wire_count > 0))
            break;
        pg_request_unlist(r);
        if (r->script != NULL)
            send_script(pg, r);
        else
            pg_send_statement(pg, r, &r->args);
    }
    if (pg->io != NULL && !pg->doomed && pg->state >= PG_SETUP)
        pg_flush(pg);
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
    pg_request_unlist(r);
    if (failed)
        describe_error(pg, r->result, &err);
    if (r->sql != NULL && concerns_prepared(pg->sqlstate))
        forget_prepared(pg, r);
    pg_request_fire(r, failed ? NULL : (const struct pg_result *)(const void *)r->result,
                    failed ? &err : NULL);
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
            pg_doom(pg, PQerrorMessage(pg->conn));
            return;
        }
        if (res != NULL)
            take_pipeline_result(pg, res);
    }
}

static void script_ended(struct pg *pg)
{
    if (PQtransactionStatus(pg->conn) != PQTRANS_IDLE)
        pg_doom(pg, "a script left a transaction open");
    else if (PQenterPipelineMode(pg->conn) == 0)
        pg_doom(pg, PQerrorMessage(pg->conn));
    else
        pg_enter(pg, PG_READY);
    complete(pg);
}

static void drain_script(struct pg *pg)
{
    if (pg_load_copying(pg))
        pg_load_continue(pg);
    while (!pg->doomed && !pg_load_copying(pg) && PQisBusy(pg->conn) == 0) {
        PGresult *res = PQgetResult(pg->conn);
        if (res == NULL) {
            script_ended(pg);
            return;
        }
        if (PQresultStatus(res) == PGRES_COPY_IN && TAILQ_FIRST(&pg->wire)->source != NULL) {
            PQclear(res);
            pg_load_begin_copy(pg);
            continue;
        }
        if (is_copy(res)) {
            PQclear(res);
            pg_doom(pg, "a script used COPY");
            return;
        }
        keep_result(TAILQ_FIRST(&pg->wire), res);
    }
}

void pg_drain(struct pg *pg)
{
    if (pg->state == PG_SCRIPT)
        drain_script(pg);
    else
        drain_pipeline(pg);
}
