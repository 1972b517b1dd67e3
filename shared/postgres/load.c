/* Loads: what a script's COPY statements are given.
 *
 * libpq's buffer grows as it is written to, so the socket is the brake: the source is asked for a piece only
 * when the one before it has gone out whole, and for a bounded number of pieces a turn. What the server says
 * meanwhile (that it failed, say) libpq reads only after the COPY's end; until then the server drops what
 * comes. */
#include "postgres/pg_internal.h"

enum { PIECES_A_TURN = 8 };

bool pg_load_copying(const struct pg *pg)
{
    const struct pg_request *r = TAILQ_FIRST(&pg->wire);
    return pg->state == PG_SCRIPT && !pg->doomed && r != NULL && r->copying;
}

void pg_load_begin_copy(struct pg *pg)
{
    struct pg_request *r = TAILQ_FIRST(&pg->wire);
    r->copying = true;
    r->copies++;
    pg_load_continue(pg);
}

/* One piece, or the end. False: no more now. */
static bool give(struct pg *pg, struct pg_request *r)
{
    struct str piece;
    int more = PQflush(pg->conn);
    int got = more == 0 && r->done != NULL ? r->source(r->arg, r->copies - 1, &piece) : -1;
    if (more > 0)
        return false;
    if (more < 0 || (got > 0 && PQputCopyData(pg->conn, piece.p, (int)piece.n) != 1)) {
        pg_doom(pg, PQerrorMessage(pg->conn));
        return false;
    }
    if (got > 0)
        return true;
    r->copying = false;
    if (PQputCopyEnd(pg->conn, got < 0 ? "the load was given up" : NULL) != 1)
        pg_doom(pg, PQerrorMessage(pg->conn));
    else
        pg_flush(pg);
    return false;
}

void pg_load_continue(struct pg *pg)
{
    struct pg_request *r = TAILQ_FIRST(&pg->wire);
    for (int i = 0; i < PIECES_A_TURN && give(pg, r); i++)
        continue;
}
