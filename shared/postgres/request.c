/* Requests and their lists. */
#include "postgres/pg_internal.h"

#include <stdlib.h>
#include <string.h>

/* A request with a copy of the arguments behind it. */
struct pg_request *pg_request_new(const struct pg_args *args, bool copy)
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

void pg_request_free(struct pg_request *r)
{
    PQclear(r->result);
    free(r->script);
    free(r);
}

void pg_request_unlist(struct pg_request *r)
{
    TAILQ_REMOVE(r->list, r, link);
    if (r->state == REQUEST_SENT)
        r->pg->wire_count--;
    else if (r->state == REQUEST_QUEUED)
        r->pg->queued_count--;
}

void pg_request_enlist(struct pg_request *r, struct request_list *list, enum request_state state)
{
    TAILQ_INSERT_TAIL(list, r, link);
    r->list = list;
    r->state = state;
    if (state == REQUEST_SENT)
        r->pg->wire_count++;
    else if (state == REQUEST_QUEUED)
        r->pg->queued_count++;
}

void pg_request_move(struct pg_request *r, struct request_list *list, enum request_state state)
{
    pg_request_unlist(r);
    pg_request_enlist(r, list, state);
}

/* Calls back once and frees. r is on no list. */
void pg_request_fire(struct pg_request *r, const struct pg_result *result, const struct err *err)
{
    pg_done_fn *done = r->done;
    r->state = REQUEST_FIRING;
    if (done != NULL)
        done(r->arg, result, err);
    pg_request_free(r);
}

/* Fails everything on the firing list. Callbacks may detach others of that list meanwhile. */
void pg_requests_fire(struct pg *pg, const struct err *err)
{
    struct pg_request *r;
    while ((r = TAILQ_FIRST(&pg->firing)) != NULL) {
        TAILQ_REMOVE(&pg->firing, r, link);
        pg_request_fire(r, NULL, err);
    }
}

void pg_requests_to_firing(struct pg *pg, struct request_list *from)
{
    struct pg_request *r;
    while ((r = TAILQ_FIRST(from)) != NULL)
        pg_request_move(r, &pg->firing, REQUEST_FIRING);
}

void pg_requests_free(struct request_list *list)
{
    struct pg_request *r;
    while ((r = TAILQ_FIRST(list)) != NULL) {
        TAILQ_REMOVE(list, r, link);
        pg_request_free(r);
    }
}
