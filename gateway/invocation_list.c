/* GET /v1/invocations: a page of a tenant's invocations, newest first.
 *
 *   query -> (agent -> its id) -> (open: where open ones begin) -> steps -> live states -> records -> answer
 *
 * A page is a walk downwards over ids, in steps that each examine a bounded number of rows (store/lists.h).
 * It ends when the page is full, when the bottom is reached, or when its budget of rows or time is spent;
 * then it holds what was found, and its cursor goes on from the last row that was examined. So the work of a
 * page is bounded whatever is filtered for, and the same at any depth.
 *
 * Steps look at the days below the position first, then further down in windows that grow eightfold: the
 * bounds on ids let PostgreSQL leave alone the partitions of all other days.
 *
 * The cursor holds the position and the lower bound, for a window that was implied by "now" must not move
 * between pages. Live states are asked for before the records: what ends in between shows as ended. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cursor.h"
#include "invocations.h"
#include "json/writer.h"
#include "model/listing.h"
#include "store/batches.h"
#include "store/lists.h"
#include "store/record_json.h"
#include "targets.h"

enum {
    STEP_MS = 8000,      /* above the connection's own limit for statements */
    BUDGET_ROWS = 10000, /* examined for a page */
    BUDGET_MS = 1000,    /* after it no further step begins */
    STEP_FILTERED = 500, /* the first step's rows when rows are filtered; doubled for each further one */
    WINDOW_DAYS = 1,     /* the first window */
    WINDOW_GROWTH = 8,   /* of each further one */
    WINDOWS = 3,         /* then all the rest */
    FUTURE_MS = 5 * 60 * 1000, /* gateways' clocks differ by less */
    BODY_MAX = 16 << 20,
    SCOPE_MAX = 64 << 10,
};
#define DAY_US (INT64_C(24) * 3600 * 1000 * 1000)

struct list {
    struct call *c;
    struct listing filters;
    struct buf scope, metadata;
    struct uuid agent;
    struct uuid low, position; /* what is left to examine: low <= id < position */
    struct uuid window;        /* the lower bound of the steps at present */
    int windows;               /* how many there were */
    struct list_step step;
    int limit, examined;
    mono_t until;
    struct uuid ids[LISTING_LIMIT_MAX + 1];
    size_t n;
    bool more;
    struct queue_live live[LISTING_LIMIT_MAX];
    bool stale;
};

static void take_step(struct list *l);

static void list_free(void *data)
{
    struct list *l = data;
    buf_deinit(&l->scope);
    buf_deinit(&l->metadata);
    free(l);
}

/* ---- the query ---- */

static int unknown_parameter(struct str name, struct err *err)
{
    static const char *const known[] = {"status",         "agent",    "batch", "retry_of", "created_after",
                                        "created_before", "metadata", "limit", "cursor"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (name.n < 40 && str_distance(name, str_of(known[i])) <= 2)
            return err_set(err, ERR_BAD_QUERY, "unknown parameter \"%.*s\"; did you mean %s?", STR_ARG(name),
                           strcmp(known[i], "metadata") == 0 ? "metadata.KEY=VALUE" : known[i]);
    return err_set(err, ERR_BAD_QUERY,
                   "unknown parameter \"%.*s\"; there are status, agent, batch, retry_of, created_after, "
                   "created_before, "
                   "metadata.KEY, limit and cursor",
                   (int)(name.n < 40 ? name.n : 40), name.p);
}

static int take_parameter(struct list *l, struct str pair, struct str *cursor, struct err *err)
{
    struct http_request *req = l->c->req;
    struct str value = pair, raw, name;
    str_split(&value, '=', &raw);
    if (!http_decode(req, raw, true, &name) ||
        !http_decode(req, value.p != NULL ? value : STR(""), true, &value))
        return err_set(err, ERR_BAD_QUERY, "malformed query");
    int took = listing_take(&l->filters, name, value, err);
    if (took != 0)
        return took;
    if (!str_eq_c(name, "cursor"))
        return unknown_parameter(name, err);
    if (cursor->p != NULL)
        return err_set(err, ERR_BAD_QUERY, "cursor is given twice");
    *cursor = value;
    return 0;
}

static int take_cursor(struct list *l, struct str text, struct err *err)
{
    struct buf position;
    buf_init(&position, CURSOR_POSITION_MAX);
    int rc = cursor_read(&l->c->g->cursor_key, l->c->tenant, buf_view(&l->scope), text, &position, err);
    if (rc == 0 && position.len != sizeof l->position + sizeof l->low)
        rc = err_set(err, ERR_BAD_CURSOR, "the cursor is of another version");
    if (rc == 0) {
        memcpy(&l->position, position.data, sizeof l->position);
        memcpy(&l->low, position.data + sizeof l->position, sizeof l->low);
    }
    buf_deinit(&position);
    return rc;
}

static void write_cursor(const struct list *l, struct json_writer *w)
{
    char position[sizeof l->position + sizeof l->low];
    struct buf text;
    jw_key(w, "next_cursor");
    if (!l->more) {
        jw_null(w);
        return;
    }
    memcpy(position, &l->position, sizeof l->position);
    memcpy(position + sizeof l->position, &l->low, sizeof l->low);
    buf_init(&text, CURSOR_TEXT_MAX);
    cursor_write(&l->c->g->cursor_key, l->c->tenant, buf_view(&l->scope), str_make(position, sizeof position),
                 &text);
    jw_str(w, buf_view(&text));
    buf_deinit(&text);
}

static int read_query(struct list *l, struct err *err)
{
    struct str rest = http_query(l->c->req), pair, cursor = {0};
    wall_t now = wall_now();
    while (str_split(&rest, '&', &pair))
        if (pair.n > 0 && take_parameter(l, pair, &cursor, err) < 0)
            return -1;
    if (listing_bounds(&l->filters, now, &l->low, &l->position, err) != 0)
        return -1;
    struct uuid future = uuid_floor((wall_t){.us = now.us + FUTURE_MS * INT64_C(1000)});
    if (uuid_cmp(l->position, future) > 0)
        l->position = future;
    listing_scope(&l->filters, &l->scope);
    listing_metadata(&l->filters, &l->metadata);
    l->limit = l->filters.has_limit ? l->filters.limit : LISTING_LIMIT_DEFAULT;
    if (uuid_cmp(l->filters.retry_of, l->low) > 0)
        l->low = l->filters.retry_of; /* what repeats it is newer */
    return cursor.p != NULL ? take_cursor(l, cursor, err) : 0;
}

/* ---- the answer ---- */

static int newest_first(const void *a, const void *b)
{
    const struct record *const *x = a, *const *y = b;
    return uuid_cmp((*y)->id, (*x)->id);
}

static void write_record(const struct list *l, const struct record *r, struct buf *out)
{
    struct live_state state = {.stale = l->stale, .state = record_waiting_state(r, wall_now())};
    if (inv_state_ended(r->state)) {
        record_write_brief(r, NULL, out);
        return;
    }
    for (size_t i = 0; i < l->n && !l->stale; i++)
        if (uuid_eq(l->ids[i], r->id) && l->live[i].state != INV_NONE)
            state = (struct live_state){.state = l->live[i].state, .attempt = l->live[i].attempt};
    record_write_brief(r, &state, out);
}

/* Ended since the step that found it. */
static bool is_off(const struct list *l, const struct record *r)
{
    return l->filters.by_status && l->filters.status == INV_NONE && inv_state_ended(r->state);
}

static void reply(struct list *l, const struct record **records, size_t n)
{
    struct buf body;
    buf_init(&body, BODY_MAX);
    struct json_writer w = json_writer(&body);
    if (n > 1)
        qsort(records, n, sizeof *records, newest_first);
    jw_object(&w);
    jw_key(&w, "data");
    jw_array(&w);
    for (size_t i = 0; i < n; i++) {
        if (is_off(l, records[i]))
            continue;
        jw_raw(&w, STR("")); /* the comma */
        write_record(l, records[i], &body);
    }
    jw_array_end(&w);
    write_cursor(l, &w);
    jw_object_end(&w);
    call_reply_json(l->c, 200, &body);
}

/* A statement that was ended by its time limit is the caller's to narrow. That the outcome of a read is not
 * known is no news: it has none. */
static void fail(struct list *l, const struct err *err)
{
    struct call *c = l->c;
    bool late = err->code == ERR_PG && strcmp(pg_sqlstate(c->g->lists), "57014") == 0;
    if (late || err->code == ERR_TIMEOUT || err->code == ERR_OUTCOME_UNKNOWN)
        call_fail_code(c, ERR_UNAVAILABLE,
                       "the list took too long; ask for less of it by created_after and created_before");
    else
        call_fail(c, err);
}

static void on_records(void *arg, const struct record *records, size_t n, const struct err *err)
{
    struct list *l = arg;
    const struct record *sorted[LISTING_LIMIT_MAX];
    if (!call_leave(l->c))
        return;
    if (err != NULL) {
        fail(l, err);
        return;
    }
    INVARIANT(n <= LISTING_LIMIT_MAX);
    for (size_t i = 0; i < n; i++)
        sorted[i] = &records[i];
    reply(l, sorted, n);
}

static void fetch(struct list *l)
{
    struct call *c = l->c;
    struct record_key keys[LISTING_LIMIT_MAX];
    struct err err = ERR_INIT;
    for (size_t i = 0; i < l->n; i++)
        keys[i] = (struct record_key){.id = l->ids[i], .tenant = c->tenant};
    call_enter(c);
    if (records_get_brief(c->g->lists, keys, l->n, STEP_MS, on_records, l, &err) != 0 && call_leave(c))
        fail(l, &err);
}

static void on_live(void *arg, const struct queue_live *live, size_t n, const struct err *err)
{
    struct list *l = arg;
    if (!call_leave(l->c))
        return;
    l->stale = err != NULL;
    for (size_t i = 0; err == NULL && i < n && i < l->n; i++)
        l->live[i] = live[i];
    fetch(l);
}

static void finish(struct list *l, bool more)
{
    struct call *c = l->c;
    l->more = more;
    if (l->n == 0) {
        reply(l, NULL, 0);
    } else if (l->filters.by_status && l->filters.status != INV_NONE) {
        fetch(l); /* all of them have ended: Redis has nothing to add */
    } else {
        call_enter(c);
        if (queue_states(c->g->queue, l->ids, l->n, on_live, l, NULL) != 0) {
            struct err down;
            err_set(&down, ERR_REDIS, "not connected");
            on_live(l, NULL, 0, &down);
        }
    }
}

/* ---- steps ---- */

static bool is_filtered(const struct list *l)
{
    return l->filters.by_status || !uuid_is_zero(l->agent) || l->filters.has_batch ||
           !uuid_is_zero(l->filters.retry_of) || l->filters.pair_count > 0;
}

/* The next window ends where the steps are. */
static void widen(struct list *l)
{
    int64_t days = WINDOW_DAYS;
    for (int i = 0; i < l->windows; i++)
        days *= WINDOW_GROWTH;
    int64_t from = uuid_time(l->position).us - days * DAY_US;
    l->window = l->windows < WINDOWS && from > 0 ? uuid_floor((wall_t){.us = from}) : l->low;
    if (uuid_cmp(l->window, l->low) < 0)
        l->window = l->low;
    l->windows++;
}

static bool is_spent(const struct list *l)
{
    return l->examined >= BUDGET_ROWS || mono_before(l->until, mono_now());
}

static void on_step(void *arg, const struct list_found *found, const struct err *err)
{
    struct list *l = arg;
    if (!call_leave(l->c))
        return;
    if (err != NULL) {
        fail(l, err);
        return;
    }
    memcpy(&l->ids[l->n], found->ids, found->n * sizeof *found->ids); /* asked for no more than fit */
    l->n += found->n;
    l->examined += found->examined;
    if (l->n > (size_t)l->limit) {
        l->n = (size_t)l->limit;
        l->position = l->ids[l->n - 1];
        finish(l, true);
        return;
    }
    bool dry = found->examined < l->step.rows;
    if (dry && uuid_eq(l->window, l->low)) {
        finish(l, false);
        return;
    }
    l->position = dry ? l->window : found->last;
    if (dry)
        widen(l);
    if ((!dry && l->n == (size_t)l->limit) || is_spent(l))
        finish(l, true);
    else
        take_step(l);
}

static void take_step(struct list *l)
{
    struct call *c = l->c;
    struct err err = ERR_INIT;
    int left = BUDGET_ROWS - l->examined;
    int rows = !is_filtered(l) ? l->limit + 1 : l->step.rows == 0 ? STEP_FILTERED : l->step.rows * 2;
    l->step = (struct list_step){.tenant = c->tenant,
                                 .low = l->window,
                                 .high = l->position,
                                 .rows = rows < left ? rows : left,
                                 .matches = l->limit + 1 - (int)l->n,
                                 .by_status = l->filters.by_status,
                                 .status = l->filters.status,
                                 .agent = l->agent,
                                 .version = l->filters.version,
                                 .batch = l->filters.batch,
                                 .retry_of = l->filters.retry_of,
                                 .metadata = buf_view(&l->metadata)};
    call_enter(c);
    if (list_step(c->g->lists, &l->step, STEP_MS, on_step, l, &err) != 0 && call_leave(c))
        fail(l, &err);
}

static void begin(struct list *l)
{
    l->until = mono_add_ms(mono_now(), BUDGET_MS);
    widen(l);
    if (uuid_cmp(l->position, l->low) > 0)
        take_step(l);
    else
        finish(l, false);
}

static void on_open_low(void *arg, struct uuid low, const struct err *err)
{
    struct list *l = arg;
    if (!call_leave(l->c))
        return;
    if (err != NULL) {
        fail(l, err);
        return;
    }
    if (uuid_cmp(low, l->low) > 0)
        l->low = low;
    begin(l);
}

/* Nothing below the dispatchers' mark is open: a million ended ones need not be looked at. */
static void begin_open(struct list *l)
{
    struct call *c = l->c;
    struct err err = ERR_INIT;
    call_enter(c);
    if (list_open_low(c->g->lists, STEP_MS, on_open_low, l, &err) != 0 && call_leave(c))
        fail(l, &err);
}

static void on_agent(struct call *c, const struct agent_target *t, const struct err *err)
{
    struct list *l = c->data;
    struct err none = ERR_INIT;
    if (err == NULL && !t->found) {
        if (l->filters.version > 0)
            err_set(&none, ERR_AGENT_NOT_FOUND, "there is no version %d of an agent \"%s\"",
                    l->filters.version, l->filters.agent);
        else
            err_set(&none, ERR_AGENT_NOT_FOUND, "there is no agent \"%s\"", l->filters.agent);
        err = &none;
    }
    if (err != NULL) {
        call_fail(c, err);
        return;
    }
    l->agent = t->agent;
    if (l->filters.by_status && l->filters.status == INV_NONE)
        begin_open(l);
    else
        begin(l);
}

static void resolve_agent(struct list *l)
{
    struct call *c = l->c;
    if (l->filters.agent[0] != '\0')
        target_resolve(c->g->targets, c, str_of(l->filters.agent), l->filters.version, on_agent);
    else if (l->filters.by_status && l->filters.status == INV_NONE)
        begin_open(l);
    else
        begin(l);
}

/* Its items' ids are adjacent: the walk is over them alone. */
static void on_batch(void *arg, const struct batch *batches, size_t n, const struct err *err)
{
    struct list *l = arg;
    if (!call_leave(l->c))
        return;
    if (err != NULL) {
        fail(l, err);
        return;
    }
    if (n == 0) {
        call_fail_code(l->c, ERR_NOT_FOUND, "there is no batch of that id");
        return;
    }
    if (uuid_cmp(batches[0].first, l->low) > 0)
        l->low = batches[0].first;
    struct uuid behind = uuid_floor((wall_t){.us = uuid_time(batches[0].last).us + 1000});
    if (uuid_cmp(behind, l->position) < 0)
        l->position = behind;
    resolve_agent(l);
}

static void find_batch(struct list *l)
{
    struct call *c = l->c;
    struct err err = ERR_INIT;
    call_enter(c);
    if (batch_get(c->g->lists, l->filters.batch, c->tenant, STEP_MS, on_batch, l, &err) != 0 && call_leave(c))
        fail(l, &err);
}

void invocations_list(struct call *c)
{
    struct err err = ERR_INIT;
    struct list *l = calloc(1, sizeof *l);
    if (l == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    l->c = c;
    buf_init(&l->scope, SCOPE_MAX);
    buf_init(&l->metadata, SCOPE_MAX);
    c->data = l;
    c->free_data = list_free;
    if (read_query(l, &err) != 0)
        call_fail(c, &err);
    else if (l->filters.has_batch)
        find_batch(l);
    else
        resolve_agent(l);
}
