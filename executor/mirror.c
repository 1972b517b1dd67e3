/* Output to those who watch.
 *
 *   ask ──▶ tail of the attempt ──▶ watch of the gateway ──turn──▶ PUBLISH (a few under way at a time)
 *
 * A tail exists while somebody watches an attempt: of a running job (job.tail), or of one that is over and
 * lingers with its spools. A watch is what one gateway wants of it: to be told of more (once, until it asks
 * again), and at most one piece. It is forgotten when the gateway did not ask for OUTPUT_WATCH_MS, a tail
 * with its last watch.
 *
 * What must stay true: bounded memory (no bytes wait here; they are read when their turn to be published has
 * come), and no work for an attempt without a tail. Lost messages are the asker's business: it asks again. */
#include "mirror.h"

#include <stdlib.h>
#include <utlist.h>

#include "base/culprit.h"
#include "base/log.h"
#include "store/queue_output.h"

enum {
    UNDER_WAY = 16,   /* answers that Redis has not confirmed */
    WATCHES_MAX = 64, /* gateways watching one attempt */
    LINGER_MAX = 64,  /* attempts that are over */
    LINGER_MS = 5000, /* an attempt that is over keeps its output so long */
    SWEEP_MS = 1000,
    MESSAGE_BYTES = OUTPUT_PIECE_BYTES + 2 * OUTPUT_INLINE_BYTES + 256,
};

struct watch {
    struct watch *prev, *next;
    struct uuid gateway;
    mono_t until;
    bool armed; /* wants to be told of what differs from `seen` and `phase` */
    enum output_phase phase;
    int64_t seen[OUTPUT_STREAMS];
    bool fetch; /* wants a piece */
    enum output_stream fetch_from;
    int64_t offset;
};

struct tail {
    struct tail *prev, *next;   /* of all tails */
    struct tail *dprev, *dnext; /* of the dirty ones */
    bool dirty;
    struct uuid id;
    int16_t attempt;
    struct job *job; /* NULL: over */
    struct spool out, err;
    mono_t until; /* over: until then */
    struct watch *watches;
    int watching;
};

struct mirror {
    struct executor *x;
    struct redis_sub *sub;
    struct tail *tails, *dirty;
    int lingering, under_way;
    struct loop_task turn;
    struct loop_timer *sweep;
    struct buf message;
};

static void serve(void *arg);

/* ---- tails ---- */

static const struct spool *spool_of(const struct tail *t, int stream)
{
    if (t->job != NULL)
        return stream == OUTPUT_STDOUT ? &t->job->out : &t->job->err;
    return stream == OUTPUT_STDOUT ? &t->out : &t->err;
}

static enum output_phase phase_of(const struct tail *t)
{
    if (t->job == NULL)
        return OUTPUT_OVER;
    return t->job->started_at.us != 0 ? OUTPUT_RUNNING : OUTPUT_STARTING;
}

static void mark(struct mirror *m, struct tail *t)
{
    if (!t->dirty) {
        t->dirty = true;
        DL_APPEND2(m->dirty, t, dprev, dnext);
    }
    if (m->under_way < UNDER_WAY)
        loop_task_post(m->x->loop, &m->turn, serve, m);
}

static void unmark(struct mirror *m, struct tail *t)
{
    if (t->dirty)
        DL_DELETE2(m->dirty, t, dprev, dnext);
    t->dirty = false;
}

static void drop_watch(struct tail *t, struct watch *w)
{
    DL_DELETE(t->watches, w);
    t->watching--;
    free(w);
}

static void tail_free(struct mirror *m, struct tail *t)
{
    while (t->watches != NULL)
        drop_watch(t, t->watches);
    unmark(m, t);
    DL_DELETE(m->tails, t);
    if (t->job != NULL) {
        t->job->tail = NULL;
    } else {
        m->lingering--;
        spool_deinit(&t->out);
        spool_deinit(&t->err);
    }
    free(t);
}

static struct tail *tail_new(struct mirror *m, struct job *j)
{
    struct tail *t = calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    *t = (struct tail){.id = j->lease.id, .attempt = j->lease.attempt, .job = j};
    DL_APPEND(m->tails, t);
    j->tail = t;
    if (!loop_timer_active(m->sweep))
        loop_timer_every(m->sweep, SWEEP_MS);
    return t;
}

/* The attempt's, made when it runs here; NULL when it does not. */
static struct tail *tail_of(struct mirror *m, struct uuid id, int16_t attempt)
{
    struct job *j = jobs_find(m->x->jobs, id);
    CULPRIT(id);
    struct tail *t;
    if (j != NULL && j->entry.kind == ENTRY_INVOCATION && j->lease.attempt == attempt)
        return j->tail != NULL ? j->tail : tail_new(m, j);
    if (m->lingering == 0)
        return NULL;
    DL_FOREACH(m->tails, t)
    {
        if (t->job == NULL && t->attempt == attempt && uuid_eq(t->id, id))
            return t;
    }
    return NULL;
}

static struct watch *watch_of(struct mirror *m, struct tail *t, struct uuid gateway)
{
    struct watch *w;
    DL_FOREACH(t->watches, w)
    {
        if (uuid_eq(w->gateway, gateway))
            break;
    }
    if (w == NULL && t->watching < WATCHES_MAX && (w = calloc(1, sizeof *w)) != NULL) {
        w->gateway = gateway;
        DL_APPEND(t->watches, w);
        t->watching++;
    }
    if (w != NULL)
        w->until = mono_add_ms(loop_now(m->x->loop), OUTPUT_WATCH_MS);
    return w;
}

/* Whoever no longer asks is forgotten. */
static void sweep(void *arg)
{
    struct mirror *m = arg;
    mono_t now = loop_now(m->x->loop);
    struct tail *t, *t_next;
    DL_FOREACH_SAFE(m->tails, t, t_next)
    {
        struct watch *w, *w_next;
        DL_FOREACH_SAFE(t->watches, w, w_next)
        {
            if (mono_before(w->until, now))
                drop_watch(t, w);
        }
        if (t->watches == NULL || (t->job == NULL && mono_before(t->until, now)))
            tail_free(m, t);
    }
    if (m->tails == NULL)
        loop_timer_stop(m->sweep);
}

/* ---- answering ---- */

static void on_published(void *arg, const struct err *err)
{
    struct mirror *m = arg;
    (void)err; /* who does not hear of it asks again */
    m->under_way--;
    if (m->dirty != NULL)
        loop_task_post(m->x->loop, &m->turn, serve, m);
}

static void answer(struct mirror *m, struct uuid gateway, const struct output_part *part)
{
    buf_clear(&m->message);
    if (output_part_encode(part, &m->message) &&
        queue_output_answer(m->x->queue, gateway, buf_view(&m->message), on_published, m) == 0)
        m->under_way++;
}

static struct output_part part_of(const struct tail *t, enum output_ask_kind to)
{
    struct output_part p = {.id = t->id, .attempt = t->attempt, .to = to, .phase = phase_of(t)};
    for (int k = 0; k < OUTPUT_STREAMS; k++)
        p.size[k] = p.offset[k] = spool_of(t, k)->size;
    return p;
}

/* Up to n bytes of a stream from an offset; none when the disk fails: they are asked for again. */
static void read_into(const struct tail *t, int stream, int64_t offset, size_t n, char *to,
                      struct output_part *p)
{
    const struct spool *s = spool_of(t, stream);
    if (offset >= s->size)
        return;
    int64_t left = s->size - offset;
    int64_t got = spool_read(s, offset, to, left < (int64_t)n ? (size_t)left : n);
    p->offset[stream] = offset;
    p->bytes[stream] = str_make(to, got > 0 ? (size_t)got : 0);
}

static bool differs(const struct tail *t, const struct watch *w)
{
    return w->phase != phase_of(t) || w->seen[OUTPUT_STDOUT] != spool_of(t, OUTPUT_STDOUT)->size ||
           w->seen[OUTPUT_STDERR] != spool_of(t, OUTPUT_STDERR)->size;
}

static void send_piece(struct mirror *m, struct tail *t, struct watch *w)
{
    char bytes[OUTPUT_PIECE_BYTES];
    struct output_part p =
        part_of(t, w->fetch_from == OUTPUT_STDOUT ? OUTPUT_FETCH_STDOUT : OUTPUT_FETCH_STDERR);
    p.offset[w->fetch_from] = w->offset;
    read_into(t, w->fetch_from, w->offset, sizeof bytes, bytes, &p);
    w->fetch = false;
    answer(m, w->gateway, &p);
}

static void send_news(struct mirror *m, struct tail *t, struct watch *w)
{
    char bytes[OUTPUT_STREAMS][OUTPUT_INLINE_BYTES];
    struct output_part p = part_of(t, OUTPUT_WATCH);
    for (int k = 0; k < OUTPUT_STREAMS; k++)
        read_into(t, k, w->seen[k], sizeof bytes[k], bytes[k], &p);
    w->armed = false;
    answer(m, w->gateway, &p);
}

/* False when there was no room for all that is wanted. */
static bool serve_tail(struct mirror *m, struct tail *t)
{
    struct watch *w;
    DL_FOREACH(t->watches, w)
    {
        if (w->fetch && m->under_way < UNDER_WAY)
            send_piece(m, t, w);
        if (w->armed && m->under_way < UNDER_WAY && differs(t, w))
            send_news(m, t, w);
        if (m->under_way >= UNDER_WAY)
            return false;
    }
    return true;
}

/* In turn: a tail that is not served whole goes to the end. */
static void serve(void *arg)
{
    struct mirror *m = arg;
    while (m->dirty != NULL && m->under_way < UNDER_WAY) {
        struct tail *t = m->dirty;
        unmark(m, t);
        if (!serve_tail(m, t))
            mark(m, t);
    }
}

/* ---- asks ---- */

static void take_ask(struct mirror *m, struct uuid gateway, const struct output_ask *ask)
{
    struct tail *t = tail_of(m, ask->id, ask->attempt);
    struct watch *w = t != NULL ? watch_of(m, t, gateway) : NULL;
    if (w == NULL) {
        const struct output_part gone = {
            .id = ask->id, .attempt = ask->attempt, .to = ask->kind, .phase = OUTPUT_GONE};
        answer(m, gateway, &gone);
        return;
    }
    if (ask->kind == OUTPUT_WATCH) {
        w->armed = true;
        w->phase = ask->phase;
        for (int k = 0; k < OUTPUT_STREAMS; k++)
            w->seen[k] = ask->seen[k];
    } else {
        w->fetch = true;
        w->fetch_from = ask->kind == OUTPUT_FETCH_STDOUT ? OUTPUT_STDOUT : OUTPUT_STDERR;
        w->offset = ask->offset;
    }
    mark(m, t);
}

static void on_asks(void *arg, struct str channel, struct str message)
{
    (void)channel;
    struct mirror *m = arg;
    struct uuid gateway;
    struct output_ask ask;
    if (!output_asks_open(message, &gateway)) {
        log_debug("a message on the channel of asks was not understood");
        return;
    }
    for (size_t i = 0; i < output_asks_count(message); i++)
        if (output_asks_get(message, i, &ask))
            take_ask(m, gateway, &ask);
}

/* ---- the job's side ---- */

void mirror_moved(struct job *j)
{
    if (j->tail != NULL)
        mark(j->x->mirror, j->tail);
}

/* Whether an attempt's output is kept though the attempt is over: there is another one to come, and room. */
static bool may_linger(const struct mirror *m, const struct job *j)
{
    const struct spool_budget *disk = m->x->spool;
    return j->outcome.what != OUTCOME_RESULT && j->started_at.us != 0 && m->lingering < LINGER_MAX &&
           disk->used < disk->max / 2;
}

void mirror_over(struct job *j)
{
    struct mirror *m = j->x->mirror;
    struct tail *t = j->tail;
    if (t == NULL)
        return;
    if (!may_linger(m, j)) {
        tail_free(m, t);
        return;
    }
    t->job = NULL;
    j->tail = NULL;
    t->out = j->out;
    t->err = j->err;
    spool_init(&j->out, m->x->spool, 0);
    spool_init(&j->err, m->x->spool, 0);
    t->until = mono_add_ms(loop_now(m->x->loop), LINGER_MS);
    m->lingering++;
    mark(m, t);
}

/* ---- the mirror ---- */

struct mirror *mirror_new(struct executor *x, struct err *err)
{
    struct mirror *m = calloc(1, sizeof *m);
    if (m == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory");
        return NULL;
    }
    char channel[OUTPUT_CHANNEL_BYTES];
    const char *const channels[] = {channel};
    m->x = x;
    buf_init(&m->message, MESSAGE_BYTES);
    output_ask_channel(x->boot, channel);
    m->sweep = loop_timer_new(x->loop, sweep, m);
    m->sub = redis_sub_open(x->loop,
                            &(struct redis_options){.url = x->settings->redis_url, .name = x->client_name},
                            channels, 1, on_asks, m, err);
    if (m->sweep == NULL || m->sub == NULL)
        mirror_free(&m);
    return m;
}

void mirror_free(struct mirror **pm)
{
    if (pm == NULL || *pm == NULL)
        return;
    struct mirror *m = *pm;
    redis_sub_close(&m->sub);
    loop_task_cancel(m->x->loop, &m->turn);
    while (m->tails != NULL)
        tail_free(m, m->tails);
    loop_timer_free(&m->sweep);
    buf_deinit(&m->message);
    free(m);
    *pm = NULL;
}
