/* The outbox worked off.
 *
 *   due rows ──take──▶ in hand ──record, payload──▶ waiting in their lane ──▶ running ──▶ end on record
 *        full lanes' rows are parked ◀──give back──┘        (lane's limit)      │
 *                └────take by lane, as it has room────────────▲                 └─ retry: due again later
 *
 * What must stay true: a row in hand is owned by this process in PostgreSQL until its lease ends; nothing is
 * begun that could outlast the lease. What is in hand is bounded. Everything is done again by somebody if
 * this process dies: the receiver sees the same webhook-id. */
#include "webhooks.h"

#include <stdlib.h>

#include <utlist.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "crypto/crypto.h"
#include "webhook_delivery.h"

enum {
    TAKE = 256,     /* rows a query */
    POLL_MS = 1000, /* the look that needs no message */
    TICK_MS = 100,  /* breakers, stale rows */
    LOOK_MS = 2000, /* parked rows of lanes that nobody here knows */
    TRIM_MS = 60 * 1000,
    FULL_MAX = 1000,
    LANES_MAX = 20000,
    PARK_MAX = 256,
    LEAVE_MS = 3000,
    LEAVE_LOOK_MS = 20,
    LOG_DAYS = 14,
    OUTBOX_DAYS = 7, /* the schedule has about four */
    LEASE_MS = 20 * 1000,
    HOLD = 4, /* rows in hand for each place */
};

static void turn(void *arg);

static mono_t now_of(const struct webhooks *w)
{
    return loop_now(w->d->loop);
}

static void post_turn(struct webhooks *w)
{
    loop_task_post(w->d->loop, &w->turn, turn, w);
}

/* ---- giving rows back ---- */

static void on_parked(void *arg, const struct err *err)
{
    (void)arg;
    if (err != NULL)
        log_warn("webhooks could not be given back; their leases will end", LF_ERR(err));
}

/* Those of the lane that wait (only the stale ones, or all). */
static void park_waiting(struct webhooks *w, struct lane *l, bool all)
{
    struct webhook_ref refs[PARK_MAX];
    size_t n = 0;
    mono_t now = now_of(w);
    while (l->waiting != NULL && n < PARK_MAX &&
           (all || mono_ms_between(l->waiting->taken, now) > w->lease_ms / 4)) {
        struct webhook_delivery *d = l->waiting;
        refs[n++] = d->end.ref;
        DL_DELETE(l->waiting, d);
        l->waiting_n--;
        delivery_free(d);
    }
    if (n == 0)
        return;
    l->has_parked = true;
    if (webhook_park(w->pg, w->d->boot, refs, n, DB_MS, on_parked, NULL) != 0)
        log_warn("webhooks could not be given back; their leases will end");
}

/* ---- lanes' turns ---- */

static void on_lane_taken(void *arg, const struct webhook_due *rows, size_t n, int64_t examined,
                          const struct err *err);

struct lane_take {
    struct webhooks *w;
    int64_t lane;
    int limit;
};

static void touch(struct webhooks *w, struct lane *l)
{
    if (!l->dirty) {
        l->dirty = true;
        l->next_dirty = w->lanes.dirty;
        w->lanes.dirty = l;
    }
    post_turn(w);
}

static void take_lane(struct webhooks *w, struct lane *l)
{
    int room = l->state == LANE_CLOSED ? l->limit - l->running : 1;
    struct lane_take *t = calloc(1, sizeof *t);
    if (t == NULL)
        return;
    *t = (struct lane_take){.w = w, .lane = l->id, .limit = room < TAKE ? room : TAKE};
    l->taking =
        webhook_take_lane(w->pg, w->d->boot, l->id, t->limit, w->lease_ms, DB_MS, on_lane_taken, t) == 0;
    if (!l->taking)
        free(t);
}

static void run_lane(struct webhooks *w, struct lane *l)
{
    while (l->waiting != NULL && lane_may_start(&w->lanes, l)) {
        struct webhook_delivery *d = l->waiting;
        DL_DELETE(l->waiting, d);
        l->waiting_n--;
        d->state = DELIVERY_RUNNING;
        DL_APPEND(w->running, d);
        lane_started(&w->lanes, l, now_of(w));
        delivery_start(d); /* its end only posts a turn */
    }
    bool wants = l->waiting != NULL || (l->has_parked && !l->taking && !w->off);
    if (!wants)
        return;
    if (l->waiting == NULL && lane_may_start(&w->lanes, l))
        take_lane(w, l);
    else if (l->state == LANE_CLOSED && l->running < l->limit)
        w->lanes.starved = true; /* for want of places: it has its turn when there are some */
}

/* All lanes, in turn: where it ended for want of places it goes on the next time, so that none is left out.
 */
static void run_lanes(struct webhooks *w)
{
    struct lanes *ls = &w->lanes;
    struct lane *l;
    size_t left = HASH_COUNT(ls->all);
    HASH_FIND(hh, ls->all, &ls->cursor, sizeof ls->cursor, l);
    l = l != NULL ? l : ls->all;
    ls->starved = false;
    for (; left > 0 && ls->running < ls->max; left--) {
        run_lane(w, l);
        l = l->hh.next != NULL ? l->hh.next : ls->all;
    }
    ls->starved = ls->starved || left > 0;
    ls->cursor = l != NULL ? l->id : 0;
}

/* ---- rows in hand ---- */

static void give_up(struct webhooks *w, struct webhook_delivery *d, const char *why)
{
    delivery_give_up(d, why);
    webhook_ends_put(w->ends, d);
}

static void enter_lane(struct webhooks *w, struct webhook_delivery *d)
{
    d->lane =
        HASH_COUNT(w->lanes.all) < LANES_MAX || w->off ? lane_get(&w->lanes, d->due.lane, now_of(w)) : NULL;
    if (d->lane == NULL) { /* more receivers than we can keep apart: its lease will end */
        delivery_free(d);
        return;
    }
    d->state = DELIVERY_WAITING;
    DL_APPEND(d->lane->waiting, d);
    d->lane->waiting_n++;
    touch(w, d->lane);
}

/* Rows that were taken together, while their records are being fetched in one query. */
struct reading {
    struct webhooks *w;
    struct reading *next, *prev;
    struct webhook_delivery *list;
    size_t n;
};

static void drop_list(struct webhook_delivery **list)
{
    while (*list != NULL) {
        struct webhook_delivery *d = *list;
        DL_DELETE(*list, d);
        delivery_free(d);
    }
}

static void reading_free(struct reading *r)
{
    drop_list(&r->list);
    DL_DELETE(r->w->readings, r);
    free(r);
}

static void on_records(void *arg, const struct record *records, size_t n, const struct err *err)
{
    struct reading *r = arg;
    struct webhooks *w = r->w;
    if (err != NULL)
        log_warn("records for webhooks could not be read; their leases will end", LF_ERR(err));
    while (err == NULL && r->list != NULL) {
        struct webhook_delivery *d = r->list;
        DL_DELETE(r->list, d);
        for (size_t i = 0; i < n && d->body.len == 0; i++)
            if (uuid_eq(records[i].id, d->due.event))
                delivery_write_record(d, &records[i]);
        if (d->body.len == 0)
            give_up(w, d, "there is no such invocation");
        else
            enter_lane(w, d);
    }
    reading_free(r);
}

static void read_records(struct reading *r)
{
    struct record_key keys[TAKE];
    struct webhook_delivery *d;
    size_t n = 0;
    DL_FOREACH(r->list, d)
    keys[n++] = (struct record_key){.id = d->due.event, .tenant = d->due.tenant};
    if (n == 0 || records_get_event(r->w->pg, keys, n, DB_MS, on_records, r, NULL) != 0)
        reading_free(r);
}

static void take_in(struct webhooks *w, const struct webhook_due *rows, size_t n)
{
    struct reading *r = calloc(1, sizeof *r);
    if (r == NULL)
        return; /* their leases will end */
    r->w = w;
    DL_APPEND(w->readings, r);
    for (size_t i = 0; i < n; i++) {
        struct webhook_delivery *d = delivery_new(w, &rows[i]);
        if (d == NULL)
            continue;
        if (!rows[i].there || !rows[i].enabled) {
            give_up(w, d, rows[i].there ? "the endpoint is disabled" : "the endpoint was deleted");
        } else if (delivery_needs_record(d)) {
            DL_APPEND(r->list, d);
        } else {
            delivery_write_data(d);
            enter_lane(w, d);
        }
    }
    read_records(r);
}

/* ---- taking ---- */

static int held_at_most(const struct webhooks *w)
{
    return w->lanes.max * HOLD;
}

static int room(const struct webhooks *w)
{
    int left = held_at_most(w) - w->in_hand;
    return left < TAKE ? left : TAKE;
}

static void on_taken(void *arg, const struct webhook_due *rows, size_t n, int64_t examined,
                     const struct err *err);

static size_t full_lanes(struct webhooks *w, int64_t full[FULL_MAX])
{
    struct lane *l, *next;
    size_t n = 0;
    HASH_ITER(hh, w->lanes.all, l, next)
    {
        l->asked_full = n < FULL_MAX && lane_is_full(&w->lanes, l);
        if (l->asked_full)
            full[n++] = l->id;
    }
    return n;
}

/* Some rows were parked: of which of the full lanes, their next take tells. */
static void note_parked(struct webhooks *w)
{
    struct lane *l, *next;
    HASH_ITER(hh, w->lanes.all, l, next)
    {
        if (!l->asked_full)
            continue;
        l->has_parked = true;
        touch(w, l);
    }
}

static void take(struct webhooks *w)
{
    int64_t full[FULL_MAX];
    int limit = room(w);
    if (w->off)
        return;
    w->again = w->again || w->taking;
    w->hungry = limit <= 0;
    if (w->taking || w->hungry)
        return;
    w->again = false;
    w->asked = limit;
    w->taking = webhook_take(w->pg, w->d->boot, limit, full, full_lanes(w, full), w->lease_ms, DB_MS,
                             on_taken, w) == 0;
}

static void on_taken(void *arg, const struct webhook_due *rows, size_t n, int64_t examined,
                     const struct err *err)
{
    struct webhooks *w = arg;
    w->taking = false;
    if (err != NULL) {
        log_warn("looking for due webhooks failed; trying again", LF_ERR(err));
        return;
    }
    if (examined > (int64_t)n)
        note_parked(w);
    if (n > 0) {
        FAILPOINT(dispatcher_webhook);
        take_in(w, rows, n);
    }
    if (examined >= w->asked || w->again)
        take(w);
}

static void on_lane_taken(void *arg, const struct webhook_due *rows, size_t n, int64_t examined,
                          const struct err *err)
{
    struct lane_take *t = arg;
    struct webhooks *w = t->w;
    struct lane *l = lane_get(&w->lanes, t->lane, now_of(w));
    if (l != NULL) {
        l->taking = false;
        l->has_parked = err != NULL || examined >= t->limit;
        touch(w, l);
    }
    free(t);
    if (err != NULL)
        log_warn("taking parked webhooks failed; trying again", LF_ERR(err));
    else if (n > 0)
        take_in(w, rows, n);
}

static void turn(void *arg)
{
    struct webhooks *w = arg;
    struct lane *dirty = w->lanes.dirty;
    w->lanes.dirty = NULL;
    for (struct lane *l = dirty, *next; l != NULL; l = next) {
        next = l->next_dirty;
        l->dirty = false;
        if (!w->lanes.starved)
            run_lane(w, l);
    }
    if (w->lanes.starved)
        run_lanes(w); /* the lane that gave a place back must not be the one that gets it, always */
    if (w->again)
        take(w);
}

void webhooks_wake(struct webhooks *w)
{
    if (w->private != NULL)
        take(w);
}

/* ---- ends ---- */

static void on_disabled(void *arg, const struct err *err)
{
    (void)arg;
    if (err != NULL)
        log_warn("a webhook endpoint could not be disabled; its next failure will", LF_ERR(err));
}

static void disable(struct webhooks *w, const struct webhook_delivery *d, const char *reason)
{
    char id[ID_TEXT_BYTES];
    id_format("whk", d->due.endpoint, id);
    log_warn("webhook endpoint disabled", LF_STR("endpoint", id), LF_INT("tenant", d->due.tenant),
             LF_STR("reason", reason));
    webhook_disable(w->pg, d->due.endpoint, str_of(reason), DB_MS, on_disabled, NULL);
}

/* A standing endpoint's health follows from its deliveries. */
static void note_health(struct webhooks *w, struct webhook_delivery *d)
{
    if (uuid_eq(d->due.endpoint, d->due.event))
        return;
    bool success = d->end.verdict == WEBHOOK_DELIVERED;
    d->end.mood = success && d->due.failing ? 1 : !success && !d->due.failing ? -1 : 0;
    if (d->end.verdict == WEBHOOK_GONE)
        disable(w, d, "the receiver answered 410 Gone");
    else if (!success && d->due.failing &&
             wall_now().us - d->due.failing_since.us > w->d->settings->webhook_disable_ms * 1000)
        disable(w, d,
                "it has failed for too long: see its deliveries, mend the receiver, enable it and replay");
}

void webhooks_ended(struct webhooks *w, struct webhook_delivery *d, int64_t asked_ms)
{
    struct lane *l = d->lane;
    uint8_t jitter;
    FAILPOINT(dispatcher_webhook_sent);
    random_bytes(&jitter, sizeof jitter);
    note_health(w, d);
    if (lane_ended(&w->lanes, l, d->end.verdict == WEBHOOK_DELIVERED, asked_ms, jitter % 100, now_of(w)))
        log_info("a webhook receiver keeps failing: left alone for a while", LF_VIEW("url", d->due.url),
                 LF_INT("failures", l->failures), LF_STR("error", d->error), LF_INT("status", d->end.status));
    if (l->state == LANE_OPEN)
        park_waiting(w, l, true);
    DL_DELETE(w->running, d);
    d->lane = NULL;
    webhook_ends_put(w->ends, d);
    touch(w, l);
}

void webhooks_gone(struct webhooks *w)
{
    w->in_hand--;
    int enough = held_at_most(w) < TAKE ? held_at_most(w) / 2 : TAKE / 2;
    if (!w->hungry || w->off || room(w) < enough)
        return;
    w->hungry = false;
    w->again = true;
    post_turn(w);
}

/* ---- timers ---- */

static void poll(void *arg)
{
    take(arg);
}

static void tick(void *arg)
{
    struct webhooks *w = arg;
    struct lane *l, *next;
    mono_t now = now_of(w);
    HASH_ITER(hh, w->lanes.all, l, next)
    {
        lane_wake(l, now);
        park_waiting(w, l, l->state == LANE_OPEN);
        lane_forget(&w->lanes, l, now);
    }
    run_lanes(w);
}

static void on_parked_lanes(void *arg, const int64_t *lanes, size_t n, const struct err *err)
{
    struct webhooks *w = arg;
    for (size_t i = 0; err == NULL && i < n && HASH_COUNT(w->lanes.all) < LANES_MAX; i++) {
        struct lane *l = lane_get(&w->lanes, lanes[i], now_of(w));
        if (l != NULL) {
            l->has_parked = true;
            touch(w, l);
        }
    }
    w->lanes_after = n == FULL_MAX ? lanes[n - 1] : INT64_MIN;
}

static void look(void *arg)
{
    struct webhooks *w = arg;
    webhook_parked_lanes(w->pg, w->lanes_after, FULL_MAX, DB_MS, on_parked_lanes, w);
}

static void on_trimmed(void *arg, const struct err *err)
{
    (void)arg;
    if (err != NULL)
        log_warn("tidying up after webhooks failed; trying again in a minute", LF_ERR(err));
}

static void trim(void *arg)
{
    struct webhooks *w = arg;
    webhook_log_trim(w->pg, LOG_DAYS, DB_MS, on_trimmed, NULL);
    webhook_tidy(w->pg, OUTBOX_DAYS, DB_MS, on_trimmed, NULL);
}

/* ---- leaving ---- */

static void leave_look(void *arg)
{
    struct webhooks *w = arg;
    struct lane *l, *next;
    HASH_ITER(hh, w->lanes.all, l, next)
    {
        park_waiting(w, l, true);
    }
    if (w->in_hand > 0 && mono_before(now_of(w), w->leave_until)) {
        loop_timer_start(w->leave, LEAVE_LOOK_MS);
        return;
    }
    w->left(w->left_arg);
}

void webhooks_leave(struct webhooks *w, void (*fn)(void *arg), void *arg)
{
    w->off = true;
    w->left = fn;
    w->left_arg = arg;
    w->leave_until = mono_add_ms(now_of(w), LEAVE_MS);
    loop_timer_start(w->leave, 0);
}

/* ---- the whole ---- */

static int read_settings(struct webhooks *w, struct err *err)
{
    const struct settings *s = w->d->settings;
    w->lanes = (struct lanes){.max = (int)s->webhook_concurrency,
                              .max_each = (int)s->webhook_endpoint_concurrency,
                              .pause_ms = s->webhook_pause_ms};
    w->lanes_after = INT64_MIN;
    w->lease_ms = LEASE_MS + 2 * s->webhook_timeout_ms;
    if (guard_read_ports(str_of(s->webhook_ports), &w->guard, err) != 0 ||
        guard_read_allowed(str_of(s->webhook_allow), &w->guard, err) != 0 ||
        webhook_schedule_read(str_of(s->webhook_schedule), &w->schedule, err) != 0)
        return -1;
    if (s->webhook_private_key == NULL) {
        log_info("webhooks are left to other dispatchers: SANDPIPER_WEBHOOK_PRIVATE_KEY is not set");
        return 0;
    }
    w->private = seal_private_new(secret_reveal(s->webhook_private_key), err);
    return w->private != NULL ? 0 : -1;
}

static void pg_state(void *arg, bool connected)
{
    struct webhooks *w = arg;
    if (connected)
        webhook_session(w->pg);
}

static int open_parts(struct webhooks *w, struct err *err)
{
    struct loop *loop = w->d->loop;
    const struct http_client_options http = {.user_agent = "Sandpiper-Webhooks/" SP_VERSION,
                                             .max_transfers = w->lanes.max};
    w->http = http_client_open(loop, &http, err);
    w->pg = pg_open(loop,
                    &(struct pg_options){.url = w->d->settings->database_url,
                                         .application = "sandpiper-dispatcher webhooks",
                                         .on_state = pg_state,
                                         .arg = w},
                    err);
    if (w->http == NULL || w->pg == NULL)
        return -1;
    w->keys = webhook_keys_new(w->private);
    w->ends = webhook_ends_new(w);
    w->poll = loop_timer_new(loop, poll, w);
    w->tick = loop_timer_new(loop, tick, w);
    w->look = loop_timer_new(loop, look, w);
    w->trim = loop_timer_new(loop, trim, w);
    w->leave = loop_timer_new(loop, leave_look, w);
    if (w->keys == NULL || w->ends == NULL || w->poll == NULL || w->tick == NULL || w->look == NULL ||
        w->trim == NULL || w->leave == NULL)
        return err_set(err, ERR_NO_MEMORY, "no memory for webhooks");
    return 0;
}

struct webhooks *webhooks_new(struct dispatcher *d, struct err *err)
{
    struct webhooks *w = calloc(1, sizeof *w);
    if (w == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory for webhooks");
        return NULL;
    }
    w->d = d;
    if (read_settings(w, err) != 0 || open_parts(w, err) != 0) {
        webhooks_free(&w);
        return NULL;
    }
    loop_timer_every(w->trim, TRIM_MS);
    if (w->private == NULL)
        return w;
    loop_timer_every(w->poll, POLL_MS);
    loop_timer_every(w->tick, TICK_MS);
    loop_timer_every(w->look, LOOK_MS);
    return w;
}

void webhooks_free(struct webhooks **webhooks)
{
    if (webhooks == NULL || *webhooks == NULL)
        return;
    struct webhooks *w = *webhooks;
    struct lane *l, *next;
    while (w->readings != NULL)
        reading_free(w->readings);
    HASH_ITER(hh, w->lanes.all, l, next)
    {
        drop_list(&l->waiting);
    }
    drop_list(&w->running);
    webhook_ends_free(&w->ends);
    lanes_free(&w->lanes);
    http_client_close(&w->http);
    pg_close(&w->pg);
    webhook_keys_free(&w->keys);
    seal_private_free(&w->private);
    loop_task_cancel(w->d->loop, &w->turn);
    loop_timer_free(&w->poll);
    loop_timer_free(&w->tick);
    loop_timer_free(&w->look);
    loop_timer_free(&w->trim);
    loop_timer_free(&w->leave);
    free(w);
    *webhooks = NULL;
}
