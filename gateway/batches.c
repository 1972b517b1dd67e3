/* GET /v1/batches, GET /v1/batches/{id}, POST /v1/batches/{id}/cancel.
 *
 * What ended comes from PostgreSQL in one snapshot; which of the open items run, from Redis, asked for those
 * that the queue may have. A cancel is a mark on the batch; a dispatcher ends what waits and stops what runs.
 */
#include "batches.h"

#include <stdlib.h>

#include "page.h"

enum { STORE_MS = 5000, BODY_MAX = 16 << 20, LIST_MAX = 200, RECORD_BYTES = 64 * 1024 };

bool batch_id(struct call *c, struct uuid *id)
{
    if (id_parse("bat", c->arg, id))
        return true;
    call_fail_code(c, ERR_NOT_FOUND, "not a batch's id: they look like bat_…");
    return false;
}

/* ---- one ---- */

struct show {
    struct call *c;
    int open_status, ended_status;
    struct batch batch;
    struct buf metadata;
    struct uuid *ids; /* open ones that the queue may have */
    size_t n, at;
    struct batch_live live;
};

static void show_free(void *data)
{
    struct show *s = data;
    buf_deinit(&s->metadata);
    free(s->ids);
    free(s);
}

static void answer(struct show *s)
{
    struct call *c = s->c;
    struct buf body;
    buf_init(&body, RECORD_BYTES);
    batch_write(&s->batch, &s->live, &body);
    int status = batch_state_ended(s->batch.state) ? s->ended_status : s->open_status;
    if (status == 202) {
        char path[BATCH_PATH_BYTES];
        batch_path(s->batch.id, path);
        http_set_header(c->req, "Location", str_of(path));
    }
    call_reply_json(c, status, &body);
}

static void ask_live(struct show *s);

static void on_live(void *arg, const struct queue_live *live, size_t n, const struct err *err)
{
    struct show *s = arg;
    if (!call_leave(s->c))
        return;
    s->live.stale = err != NULL;
    for (size_t i = 0; err == NULL && i < n; i++) {
        s->live.starting += live[i].state == INV_STARTING ? 1 : 0;
        s->live.running += live[i].state == INV_RUNNING ? 1 : 0;
    }
    s->at += QUEUE_BATCH;
    ask_live(s);
}

static void ask_live(struct show *s)
{
    struct call *c = s->c;
    if (s->live.stale || s->at >= s->n) {
        if (s->live.stale)
            s->live.starting = s->live.running = 0;
        answer(s);
        return;
    }
    size_t n = s->n - s->at < QUEUE_BATCH ? s->n - s->at : QUEUE_BATCH;
    call_enter(c);
    if (queue_states(c->g->queue, s->ids + s->at, n, on_live, s, NULL) != 0) {
        struct err down;
        err_set(&down, ERR_REDIS, "not connected");
        on_live(s, NULL, 0, &down);
    }
}

/* The views die with the query's result. */
static bool keep(struct show *s, const struct batch *b)
{
    s->batch = *b;
    buf_str(&s->metadata, b->metadata);
    s->batch.metadata = buf_view(&s->metadata);
    s->n = b->open_fed.n / sizeof *s->ids;
    s->ids = calloc(s->n + 1, sizeof *s->ids);
    if (s->ids == NULL || s->metadata.failed)
        return false;
    if (s->n > 0)
        memcpy(s->ids, b->open_fed.p, s->n * sizeof *s->ids);
    s->batch.open_fed = STR("");
    return true;
}

static void on_batch(void *arg, const struct batch *batches, size_t n, const struct err *err)
{
    struct show *s = arg;
    struct call *c = s->c;
    if (!call_leave(c))
        return;
    if (err != NULL)
        call_fail_query(c, err);
    else if (n == 0)
        call_fail_code(c, ERR_NOT_FOUND, "there is no batch of that id");
    else if (!keep(s, &batches[0]))
        call_fail_code(c, ERR_OVERLOADED, NULL);
    else
        ask_live(s);
}

void batch_answer(struct call *c, struct uuid id, int open_status, int ended_status)
{
    struct err err = ERR_INIT;
    struct show *s = calloc(1, sizeof *s);
    if (s == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    *s = (struct show){.c = c, .open_status = open_status, .ended_status = ended_status};
    buf_init(&s->metadata, INV_METADATA_MAX_BYTES);
    if (c->free_data != NULL)
        c->free_data(c->data);
    c->data = s;
    c->free_data = show_free;
    call_enter(c);
    if (batch_get(c->g->read, id, c->tenant, STORE_MS, on_batch, s, &err) != 0 && call_leave(c))
        call_fail(c, &err);
}

void batch_show(struct call *c)
{
    struct uuid id;
    if (batch_id(c, &id))
        batch_answer(c, id, 200, 200);
}

/* ---- cancel ---- */

static void on_canceled(void *arg, bool found, const struct err *err)
{
    struct call *c = arg;
    struct uuid id;
    if (!call_leave(c))
        return;
    if (err != NULL)
        call_fail_query(c, err);
    else if (!found)
        call_fail_code(c, ERR_NOT_FOUND, "there is no batch of that id");
    else if (batch_id(c, &id))
        batch_answer(c, id, 202, 200);
}

void batch_cancel_call(struct call *c)
{
    struct uuid id;
    struct err err = ERR_INIT;
    if (!batch_id(c, &id))
        return;
    call_enter(c);
    if (batch_cancel(c->g->files, id, c->tenant, STORE_MS, on_canceled, c, &err) != 0 && call_leave(c))
        call_fail(c, &err);
}

/* ---- the list ---- */

struct list {
    struct call *c;
    struct page page;
};

/* Which items run is not asked for: open ones count as queued. */
static void write_row(const void *rows, size_t i, struct json_writer *w)
{
    static const struct batch_live none = {.stale = true}, ended;
    const struct batch *list = rows;
    jw_raw(w, STR("")); /* the comma */
    batch_write(&list[i], batch_state_ended(list[i].state) ? &ended : &none, w->out);
}

static struct str place_of(const void *rows, size_t i)
{
    const struct batch *list = rows;
    return str_make((const char *)list[i].id.b, sizeof list[i].id.b);
}

static void on_batches(void *arg, const struct batch *batches, size_t n, const struct err *err)
{
    struct list *l = arg;
    struct call *c = l->c;
    const struct page_rows rows = {.rows = batches, .n = n, .write = write_row, .place = place_of};
    if (!call_leave(c))
        return;
    if (err != NULL)
        call_fail_query(c, err);
    else
        page_reply(c, &l->page, "data", &rows, BODY_MAX);
}

void batches_list_call(struct call *c)
{
    struct err err = ERR_INIT;
    struct uuid before;
    struct list *l = calloc(1, sizeof *l);
    if (l == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    l->c = c;
    memset(&before, 0xFF, sizeof before);
    c->data = l;
    c->free_data = free;
    if (page_read_id(c, STR("batches"), LIST_MAX, &l->page, &before, &err) != 0) {
        call_fail(c, &err);
        return;
    }
    call_enter(c);
    if (batch_list(c->g->lists, c->tenant, before, l->page.limit + 1, STORE_MS, on_batches, l, &err) != 0 &&
        call_leave(c))
        call_fail(c, &err);
}
