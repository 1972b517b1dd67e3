/* GET /v1/invocations/{id} and POST …/cancel.
 *
 * A cancel is a durable row first. A job that nobody has claimed is settled here at once; a running one is
 * its executor's, told by pub/sub and again with each heartbeat; while Redis cannot say, the dispatcher
 * settles it. */
#include "invocations.h"

#include <stdlib.h>

#include "base/log.h"
#include "show.h"

enum { STORE_MS = 5000 };

bool invocation_id(struct call *c, struct uuid *id)
{
    if (id_parse("inv", c->arg, id))
        return true;
    call_fail_code(c, ERR_NOT_FOUND, "not an invocation's id: they look like inv_…");
    return false;
}

void invocation_get(struct call *c)
{
    struct uuid id;
    struct err err;
    if (!invocation_id(c, &id))
        return;
    int64_t wait_ms = show_wait(c, &err);
    if (wait_ms < 0)
        call_fail(c, &err);
    else
        show_invocation(c, id, wait_ms, 200);
}

/* ---- cancel ---- */

struct cancel {
    struct outcome outcome; /* first: the settler hands it back */
    struct gateway *g;
    struct call *c;
    struct uuid id;
    int32_t tenant;
};

/* The caller sees the record as it is now: 200 for one that has ended, 202 while its executor has yet to stop
 * it. */
static void show(struct cancel *k)
{
    struct call *c = k->c;
    struct uuid id = k->id;
    free(k);
    if (call_leave(c))
        show_invocation(c, id, 0, 202);
}

void invocation_settled(void *arg, struct outcome *o, const struct err *err)
{
    struct gateway *g = arg;
    struct cancel *k = (struct cancel *)o;
    if (err != NULL)
        log_warn("a cancel could not be settled; the dispatcher will", LF_ERR(err));
    if (err == NULL && o->won) {
        struct buf done;
        buf_init(&done, 64);
        queue_done_put(&done, k->id, INV_CANCELED, o->hooked);
        queue_release(g->queue, g->boot, NULL, 0, buf_view(&done), NULL, NULL);
        buf_deinit(&done);
    }
    show(k);
}

static void settle(struct cancel *k, const struct record *r)
{
    k->outcome = (struct outcome){.row.key = k->id,
                                  .tenant = k->tenant,
                                  .attempt = r->attempt,
                                  .boot = k->g->boot,
                                  .what = OUTCOME_RESULT,
                                  .state = INV_CANCELED,
                                  .finished_at = wall_now()};
    if (settle_put(k->g->settler, &k->outcome, STORE_MS, NULL) != 0)
        show(k);
}

static void on_record(void *arg, const struct record *records, size_t n, const struct err *err)
{
    struct cancel *k = arg;
    if (err == NULL && n == 1 && !inv_state_ended(records[0].state))
        settle(k, &records[0]);
    else
        show(k);
}

static void on_queue(void *arg, enum queue_cancel what, const struct err *err)
{
    struct cancel *k = arg;
    struct record_key key = {.id = k->id, .tenant = k->tenant};
    bool unclaimed = err == NULL && (what == QUEUE_CANCEL_ABSENT || what == QUEUE_CANCEL_REMOVED);
    if (!unclaimed || records_get(k->g->read, &key, 1, STORE_MS, on_record, k, NULL) != 0)
        show(k);
}

static void on_put(void *arg, bool found, enum inv_state ended, const struct err *err)
{
    struct cancel *k = arg;
    if (err != NULL) {
        struct call *c = k->c;
        free(k);
        if (call_leave(c))
            call_fail_query(c, err);
        return;
    }
    if (!found || ended != INV_NONE || queue_cancel(k->g->queue, k->id, on_queue, k, NULL) != 0)
        show(k);
}

void invocation_cancel(struct call *c)
{
    struct uuid id;
    struct err err = ERR_INIT;
    if (!invocation_id(c, &id))
        return;
    struct cancel *k = calloc(1, sizeof *k);
    if (k == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    *k = (struct cancel){.g = c->g, .c = c, .id = id, .tenant = c->tenant};
    call_enter(c);
    if (cancel_put(c->g->files, id, c->tenant, STORE_MS, on_put, k, &err) == 0)
        return;
    free(k);
    if (call_leave(c))
        call_fail(c, &err);
}
