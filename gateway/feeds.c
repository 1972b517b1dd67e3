/* Watched jobs.
 *
 *   tick ──▶ look: who has it (queue_states, many at once) ──▶ owner ──▶ ask ──▶ its executor
 *                                                                              │
 *   readers ◀── pieces, state ◀───────────────────────────── answer ◀──────────┘
 *
 * What is to be done next is decided in one place, `advance`, from the feed's state alone: so a lost message,
 * an outage or a new owner need no case of their own, only that the feed is advanced again. It is called from
 * the turn's task for feeds marked by wake().
 *
 * A feed has at most one fetch under way, and all feeds together at most FETCHES, so that what Redis has to
 * hold for this gateway's subscription is bounded; feeds beyond it wait in line. A watch is armed when no
 * reader lacks anything that is known to be there.
 *
 * The next attempt is gone over to when the readers have all that there was of the one before, or when that
 * cannot be had any more, or has not come for LINGER_MS. */
#include "feeds.h"

#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

#include "base/log.h"
#include "waiters.h"

enum {
    TICK_MS = 50,
    REFRESH_MS = 3000, /* a watch is renewed: executors forget it after OUTPUT_WATCH_MS */
    FETCH_MS = 1000,   /* an answer that has not come by then is asked for again */
    LOOK_SOON_MS = 50, /* who has it: while young or between attempts, while nobody has it, and else */
    LOOK_MS = 250,
    LOOK_OWNED_MS = 1000,
    YOUNG_MS = 1000,
    LINGER_MS = 2000,
    FETCHES = 64,
    LOOK_BATCH = 500,
    WAIT_MS = 3600 * 1000,
    MESSAGE_BYTES = 64 * 1024,
};

struct feed {
    struct feed *dprev, *dnext; /* to be advanced */
    struct feed *wprev, *wnext; /* in line for a fetch */
    struct feeds *fs;
    struct uuid id;
    int32_t tenant;
    struct feed_reader *readers;
    struct waiter *waiter;
    bool dirty, in_line;
    mono_t born;

    bool known, stale;
    enum inv_state state;
    int16_t attempt;
    struct uuid owner; /* zero: nobody has it */
    enum output_phase phase;
    int64_t size[OUTPUT_STREAMS];

    bool looking;
    mono_t look_at;
    bool armed; /* a watch was sent and not answered */
    mono_t asked_at;
    bool fetching;
    enum output_stream fetch_of;
    int64_t fetch_from;
    mono_t fetch_at;

    /* Seen to follow this attempt. */
    int16_t next_attempt;
    struct uuid next_owner;
    enum inv_state next_state;
    mono_t next_seen;
    UT_hash_handle hh;
};

/* Asks on their way to one executor. */
struct post {
    struct uuid owner;
    struct buf message;
    UT_hash_handle hh;
};

/* A question about many: who has them. */
struct look {
    struct feeds *fs;
    size_t n;
    struct uuid ids[LOOK_BATCH];
};

struct feeds {
    struct gateway *g;
    const struct feed_events *events;
    struct feed *all, *dirty, *line;
    struct post *posts;
    struct redis_sub *sub;
    struct look *look; /* of this turn */
    int fetches;
    struct loop_task turn;
    struct loop_timer *tick;
};

static void advance_all(void *arg);
static void look_add(struct feeds *fs, struct feed *f);
static void look_send(struct feeds *fs);
static void on_told(void *arg, const struct record *record);

static struct feed *find(struct feeds *fs, struct uuid id)
{
    struct feed *f;
    HASH_FIND(hh, fs->all, &id, sizeof id, f);
    return f;
}

static void wake(struct feed *f)
{
    struct feeds *fs = f->fs;
    if (!f->dirty) {
        f->dirty = true;
        DL_APPEND2(fs->dirty, f, dprev, dnext);
    }
    loop_task_post(fs->g->loop, &fs->turn, advance_all, fs);
}

static void tell_moved(struct feed *f)
{
    struct feed_reader *r, *next;
    DL_FOREACH_SAFE(f->readers, r, next)
    {
        f->fs->events->moved(r);
    }
}

/* ---- asking ---- */

static void post_send(struct feeds *fs, struct post *p)
{
    queue_output_ask(fs->g->queue, p->owner, buf_view(&p->message)); /* lost ones are repeated */
    HASH_DEL(fs->posts, p);
    buf_deinit(&p->message);
    free(p);
}

static void ask(struct feed *f, struct output_ask *a)
{
    struct feeds *fs = f->fs;
    struct post *p;
    a->id = f->id;
    a->attempt = f->attempt;
    HASH_FIND(hh, fs->posts, &f->owner, sizeof f->owner, p);
    if (p == NULL) {
        p = calloc(1, sizeof *p);
        if (p == NULL)
            return;
        p->owner = f->owner;
        buf_init(&p->message, MESSAGE_BYTES);
        output_asks_begin(&p->message, fs->g->boot);
        HASH_ADD(hh, fs->posts, owner, sizeof p->owner, p);
    }
    output_asks_put(&p->message, a);
    if (output_asks_count(buf_view(&p->message)) >= OUTPUT_ASKS_MAX)
        post_send(fs, p);
    f->asked_at = loop_now(fs->g->loop);
    loop_task_post(fs->g->loop, &fs->turn, advance_all, fs);
}

static void ask_watch(struct feed *f)
{
    struct output_ask a = {
        .kind = OUTPUT_WATCH, .phase = f->phase, .seen = {f->size[OUTPUT_STDOUT], f->size[OUTPUT_STDERR]}};
    f->armed = true;
    ask(f, &a);
}

static void ask_fetch(struct feed *f, enum output_stream stream, int64_t from)
{
    struct output_ask a = {.kind = stream == OUTPUT_STDOUT ? OUTPUT_FETCH_STDOUT : OUTPUT_FETCH_STDERR,
                           .offset = from};
    f->fetching = true;
    f->fetch_of = stream;
    f->fetch_from = from;
    f->fetch_at = loop_now(f->fs->g->loop);
    f->fs->fetches++;
    ask(f, &a);
}

static void leave_line(struct feed *f)
{
    if (f->in_line)
        DL_DELETE2(f->fs->line, f, wprev, wnext);
    f->in_line = false;
}

/* The fetch is answered or given up: this turn's task gives its place to the next in line. */
static void fetch_over(struct feed *f)
{
    struct feeds *fs = f->fs;
    if (!f->fetching)
        return;
    f->fetching = false;
    fs->fetches--;
    loop_task_post(fs->g->loop, &fs->turn, advance_all, fs);
}

/* ---- attempts and owners ---- */

static void forget_owner(struct feed *f)
{
    f->owner = (struct uuid){0};
    f->phase = OUTPUT_GONE;
    f->armed = false;
    fetch_over(f);
    leave_line(f);
}

static bool has_all(const struct feed *f, const struct feed_reader *r)
{
    return r->at[OUTPUT_STDOUT] == f->size[OUTPUT_STDOUT] && r->at[OUTPUT_STDERR] == f->size[OUTPUT_STDERR];
}

/* Readers that are closed are not waited for: their clients are slow. */
static bool may_switch(const struct feed *f)
{
    const struct feed_reader *r;
    if (uuid_is_zero(f->owner) || mono_ms_between(f->next_seen, loop_now(f->fs->g->loop)) >= LINGER_MS)
        return true;
    if (f->phase != OUTPUT_OVER)
        return false;
    DL_FOREACH(f->readers, r)
    {
        if (r->open && r->attempt == f->attempt && !has_all(f, r))
            return false;
    }
    return true;
}

/* The readers leave the attempt: who has seen all of it? */
static void note_whole(struct feed *f)
{
    struct feed_reader *r;
    DL_FOREACH(f->readers, r)
    {
        r->whole = f->phase == OUTPUT_OVER && r->attempt == f->attempt && has_all(f, r);
    }
}

static void switch_attempt(struct feed *f)
{
    note_whole(f);
    forget_owner(f);
    f->attempt = f->next_attempt;
    f->owner = f->next_owner;
    f->state = f->next_state;
    f->size[OUTPUT_STDOUT] = f->size[OUTPUT_STDERR] = 0;
    tell_moved(f);
}

static void note_next(struct feed *f, int16_t attempt, struct uuid owner, enum inv_state state)
{
    if (f->next_attempt <= f->attempt)
        f->next_seen = loop_now(f->fs->g->loop);
    if (attempt < f->next_attempt)
        return;
    f->next_attempt = attempt;
    f->next_owner = owner;
    f->next_state = state;
    wake(f);
}

/* ---- what to do next ---- */

static bool lacks(const struct feed *f, const struct feed_reader *r, enum output_stream *stream)
{
    if (!r->open || r->attempt != f->attempt)
        return false;
    for (int i = 1; i <= OUTPUT_STREAMS; i++) { /* the streams in turn: neither waits for the other's end */
        *stream = (enum output_stream)((f->fetch_of + i) % OUTPUT_STREAMS);
        if (r->at[*stream] < f->size[*stream])
            return true;
    }
    return false;
}

/* The next reader that lacks something; it then stands last, so that each place has its turn. */
static struct feed_reader *pick(struct feed *f, enum output_stream *stream)
{
    struct feed_reader *r;
    DL_FOREACH(f->readers, r)
    {
        if (lacks(f, r, stream))
            break;
    }
    if (r != NULL && r->next != NULL) {
        DL_DELETE(f->readers, r);
        DL_APPEND(f->readers, r);
    }
    return r;
}

static void advance(struct feed *f)
{
    enum output_stream stream;
    if (!f->known && !f->looking)
        look_add(f->fs, f);
    if (f->next_attempt > f->attempt && may_switch(f))
        switch_attempt(f);
    if (uuid_is_zero(f->owner) || f->fetching || f->in_line)
        return;
    struct feed_reader *r = pick(f, &stream);
    if (r == NULL) {
        if (!f->armed && f->phase != OUTPUT_OVER)
            ask_watch(f);
    } else if (f->fs->fetches < FETCHES) {
        ask_fetch(f, stream, r->at[stream]);
    } else {
        f->in_line = true;
        DL_APPEND2(f->fs->line, f, wprev, wnext);
    }
}

static void advance_all(void *arg)
{
    struct feeds *fs = arg;
    struct feed *f;
    struct post *p, *next;
    while ((f = fs->dirty) != NULL) {
        DL_DELETE2(fs->dirty, f, dprev, dnext);
        f->dirty = false;
        advance(f);
    }
    while ((f = fs->line) != NULL && fs->fetches < FETCHES) {
        leave_line(f);
        advance(f); /* it may lack nothing any more */
    }
    HASH_ITER(hh, fs->posts, p, next)
    {
        post_send(fs, p);
    }
    look_send(fs);
}

/* ---- answers ---- */

/* To all who stand inside these bytes. */
static void deliver(struct feed *f, enum output_stream stream, int64_t offset, struct str bytes)
{
    struct feed_reader *r, *next;
    DL_FOREACH_SAFE(f->readers, r, next)
    {
        int64_t skip = r->at[stream] - offset;
        if (r->open && r->attempt == f->attempt && skip >= 0 && skip < (int64_t)bytes.n)
            f->fs->events->piece(r, stream, str_make(bytes.p + skip, bytes.n - (size_t)skip));
    }
}

static void take_phase(struct feed *f, enum output_phase phase)
{
    enum inv_state state = phase == OUTPUT_STARTING ? INV_STARTING : INV_RUNNING;
    bool changed = !f->known || (phase != OUTPUT_OVER && f->state != state);
    f->phase = phase;
    f->known = true;
    f->stale = false;
    if (phase == OUTPUT_OVER)
        f->look_at = loop_now(f->fs->g->loop);
    else
        f->state = state;
    if (changed)
        tell_moved(f);
}

static void take_part(struct feed *f, const struct output_part *part)
{
    bool fetched = f->fetching && part->to != OUTPUT_WATCH &&
                   (part->to == OUTPUT_FETCH_STDOUT) == (f->fetch_of == OUTPUT_STDOUT) &&
                   part->offset[f->fetch_of] == f->fetch_from;
    if (part->phase == OUTPUT_GONE) { /* ended, or handed on */
        forget_owner(f);
        f->look_at = mono_add_ms(loop_now(f->fs->g->loop), LOOK_SOON_MS);
        wake(f);
        return;
    }
    if (part->to == OUTPUT_WATCH)
        f->armed = false;
    take_phase(f, part->phase);
    for (int k = 0; k < OUTPUT_STREAMS; k++)
        f->size[k] = part->size[k];
    for (int k = 0; k < OUTPUT_STREAMS; k++)
        if (part->bytes[k].n > 0)
            deliver(f, (enum output_stream)k, part->offset[k], part->bytes[k]);
    /* One that brought nothing of what is there (a disk's failure) is repeated by the tick, not at once. */
    if (fetched && (part->bytes[f->fetch_of].n > 0 || f->fetch_from >= f->size[f->fetch_of]))
        fetch_over(f);
    wake(f);
}

static void on_part(void *arg, struct str channel, struct str message)
{
    (void)channel;
    struct feeds *fs = arg;
    struct output_part part;
    if (!output_part_decode(message, &part)) {
        log_debug("a message of live output was not understood");
        return;
    }
    struct feed *f = find(fs, part.id);
    if (f != NULL && part.attempt == f->attempt && !uuid_is_zero(f->owner))
        take_part(f, &part);
}

/* ---- looking ---- */

static void take_owner(struct feed *f, const struct queue_live *live)
{
    bool same = uuid_eq(live->owner, f->owner), told = same && f->phase != OUTPUT_GONE;
    if (!same) {
        forget_owner(f);
        f->owner = live->owner;
        wake(f);
    }
    if (told || (f->known && !f->stale && f->state == live->state))
        return; /* what its executor said is newer */
    f->known = true;
    f->stale = false;
    f->state = live->state;
    tell_moved(f);
}

static void looked(struct feed *f, const struct queue_live *live)
{
    mono_t now = loop_now(f->fs->g->loop);
    f->looking = false;
    if (live != NULL && live->state != INV_NONE && live->attempt == f->attempt) {
        take_owner(f, live);
    } else if (live != NULL && live->state != INV_NONE && live->attempt > f->attempt) {
        note_next(f, live->attempt, live->owner, live->state);
    } else if (!f->known) { /* it waits in PostgreSQL; or Redis cannot say */
        f->known = true;
        f->stale = live == NULL;
        tell_moved(f);
    } else if (live != NULL) {
        f->stale = false;
    }
    bool soon = f->phase == OUTPUT_OVER || mono_ms_between(f->born, now) < YOUNG_MS;
    int64_t wait = soon ? LOOK_SOON_MS : uuid_is_zero(f->owner) ? LOOK_MS : LOOK_OWNED_MS;
    f->look_at = mono_add_ms(now, wait);
}

static void on_states(void *arg, const struct queue_live *items, size_t n, const struct err *err)
{
    struct look *l = arg;
    for (size_t i = 0; i < l->n; i++) {
        struct feed *f = find(l->fs, l->ids[i]);
        if (f != NULL && f->looking)
            looked(f, err == NULL && i < n ? &items[i] : NULL);
    }
    free(l);
}

static void look_send(struct feeds *fs)
{
    struct err err = ERR_INIT;
    struct look *l = fs->look;
    fs->look = NULL;
    if (l != NULL && queue_states(fs->g->queue, l->ids, l->n, on_states, l, &err) != 0)
        on_states(l, NULL, 0, &err);
}

/* Adds a feed to the batch; a full one is sent. */
static void look_add(struct feeds *fs, struct feed *f)
{
    if (fs->look == NULL && (fs->look = calloc(1, sizeof *fs->look)) == NULL)
        return; /* at the next tick */
    fs->look->fs = fs;
    fs->look->ids[fs->look->n++] = f->id;
    f->looking = true;
    if (fs->look->n == LOOK_BATCH)
        look_send(fs);
}

static void on_tick(void *arg)
{
    struct feeds *fs = arg;
    struct feed *f, *next;
    mono_t now = loop_now(fs->g->loop);
    HASH_ITER(hh, fs->all, f, next)
    {
        if (!f->looking && !mono_before(now, f->look_at))
            look_add(fs, f);
        if (f->fetching && mono_ms_between(f->fetch_at, now) >= FETCH_MS) {
            fetch_over(f);
            wake(f);
        }
        if (!uuid_is_zero(f->owner) && mono_ms_between(f->asked_at, now) >= REFRESH_MS)
            ask_watch(f);
        if (f->next_attempt > f->attempt)
            wake(f);
    }
    look_send(fs);
    if (fs->all == NULL)
        loop_timer_stop(fs->tick);
}

/* ---- readers ---- */

static void feed_free(struct feed *f)
{
    struct feeds *fs = f->fs;
    waiter_remove(&f->waiter);
    fetch_over(f);
    leave_line(f);
    if (f->dirty)
        DL_DELETE2(fs->dirty, f, dprev, dnext);
    HASH_DEL(fs->all, f);
    free(f);
}

/* Its waiter tells of the end, of the gateway's stop, or (after a long time) nothing. */
static void on_told(void *arg, const struct record *record)
{
    struct feed *f = arg;
    const struct feed_events *events = f->fs->events;
    f->waiter = NULL;
    if (record == NULL && !waiters_draining(f->fs->g->waiters))
        f->waiter = waiter_add(f->fs->g->waiters, f->id, f->tenant, WAIT_MS, on_told, f);
    if (f->waiter != NULL)
        return;
    struct feed_reader *readers = f->readers, *r, *next;
    note_whole(f);
    DL_FOREACH(readers, r)
    {
        r->feed = NULL;
    }
    f->readers = NULL;
    feed_free(f);
    for (r = readers; r != NULL; r = next) {
        next = r->next;
        events->ended(r, record);
    }
}

static struct feed *feed_new(struct feeds *fs, struct uuid id, int32_t tenant, int16_t attempt,
                             enum inv_state state)
{
    struct feed *f = calloc(1, sizeof *f);
    if (f == NULL)
        return NULL;
    mono_t now = loop_now(fs->g->loop);
    *f = (struct feed){.fs = fs,
                       .id = id,
                       .tenant = tenant,
                       .attempt = attempt,
                       .state = state,
                       .born = now,
                       .look_at = now};
    f->waiter = waiter_add(fs->g->waiters, id, tenant, WAIT_MS, on_told, f);
    if (f->waiter == NULL) {
        free(f);
        return NULL;
    }
    HASH_ADD(hh, fs->all, id, sizeof f->id, f);
    if (!loop_timer_active(fs->tick))
        loop_timer_every(fs->tick, TICK_MS);
    return f;
}

bool feed_join(struct feeds *fs, struct feed_reader *r, struct uuid id, int32_t tenant, int16_t attempt,
               enum inv_state state)
{
    struct feed *f = find(fs, id);
    if (f == NULL)
        f = feed_new(fs, id, tenant, attempt, state);
    if (f == NULL)
        return false;
    if (attempt > f->attempt)
        note_next(f, attempt, (struct uuid){0}, state);
    r->feed = f;
    DL_APPEND(f->readers, r);
    wake(f);
    return true;
}

void feed_leave(struct feed_reader *r)
{
    struct feed *f = r->feed;
    if (f == NULL)
        return;
    r->feed = NULL;
    r->open = false;
    DL_DELETE(f->readers, r);
    if (f->readers == NULL)
        feed_free(f);
}

void feed_wake(struct feed_reader *r)
{
    if (r->feed != NULL)
        wake(r->feed);
}

struct feed_state feed_state_of(const struct feed_reader *r)
{
    const struct feed *f = r->feed;
    return (struct feed_state){
        .known = f->known, .stale = f->stale, .state = f->state, .attempt = f->attempt};
}

/* ---- connections ---- */

/* What was asked or answered meanwhile is lost: all of it again. */
static void again(struct feeds *fs)
{
    struct feed *f, *next;
    HASH_ITER(hh, fs->all, f, next)
    {
        f->armed = false;
        fetch_over(f);
        wake(f);
    }
}

static void sub_state(void *arg, bool connected)
{
    if (connected)
        again(arg);
}

void feeds_redis_up(struct feeds *fs)
{
    again(fs);
}

struct feeds *feeds_new(struct gateway *g, const struct feed_events *events, struct err *err)
{
    struct feeds *fs = calloc(1, sizeof *fs);
    if (fs == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory to start");
        return NULL;
    }
    char channel[OUTPUT_CHANNEL_BYTES];
    const char *const channels[] = {channel};
    fs->g = g;
    fs->events = events;
    output_part_channel(g->boot, channel);
    fs->tick = loop_timer_new(g->loop, on_tick, fs);
    fs->sub = redis_sub_open(g->loop,
                             &(struct redis_options){.url = g->settings->redis_url,
                                                     .name = "sandpiper-gateway-output",
                                                     .on_state = sub_state,
                                                     .arg = fs},
                             channels, 1, on_part, fs, err);
    if (fs->tick == NULL || fs->sub == NULL)
        feeds_free(&fs);
    return fs;
}

void feeds_free(struct feeds **pfs)
{
    if (pfs == NULL || *pfs == NULL)
        return;
    struct feeds *fs = *pfs;
    struct feed *f, *fnext;
    struct post *p, *pnext;
    redis_sub_close(&fs->sub);
    HASH_ITER(hh, fs->all, f, fnext)
    {
        struct feed_reader *r;
        DL_FOREACH(f->readers, r)
        {
            r->feed = NULL;
        }
        feed_free(f);
    }
    HASH_ITER(hh, fs->posts, p, pnext)
    {
        HASH_DEL(fs->posts, p);
        buf_deinit(&p->message);
        free(p);
    }
    loop_task_cancel(fs->g->loop, &fs->turn);
    loop_timer_free(&fs->tick);
    free(fs->look);
    free(fs);
    *pfs = NULL;
}
