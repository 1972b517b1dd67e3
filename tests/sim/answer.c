/* Answers on their way out, and what goes wrong with them there.
 *
 * Everything that the simulator answers passes here. A request without a fault goes straight to the HTTP
 * server. One whose answer is to be held, or told slowly, has a `line`: what was said and not sent yet, and
 * one timer. A line lives from the fault to the request's end; healing lets go of all of them.
 *
 * What must stay true: a request that is broken off here, and not by its client, is `gone` for its owner
 * first, who forgets it; and nobody touches a call after its answer is complete (it is in the request's
 * arena). */
#include <stdlib.h>
#include <utlist.h>

#include "sim.h"

enum {
    FLUSH_MS = 20, /* what was written is on the wire by then: a reset takes back what is not */
    QUEUE_MAX_BYTES = 1024 * 1024,
    QUEUE_FULL_BYTES = 64 * 1024,
    TICK_MS = 100,
    TICK_MAX_BYTES = 16 * 1024,
};

struct line {
    struct line *prev, *next; /* sim.lines */
    struct call *call;
    enum {
        LINE_ASKED,  /* hang: not served yet */
        LINE_WHOLE,  /* mute: an answer in one piece waits */
        LINE_STREAM, /* a stream; `queue` waits */
        LINE_CUT,    /* about to be broken off */
    } shape;
    struct loop_timer *timer;
    int status;
    const char *type;
    struct buf queue;
    bool begun; /* its head is out */
    bool ended; /* no more comes into queue */
    bool full;  /* the client has to catch up */
    answer_drain_fn *drain;
    void *drain_arg;
};

/* ---- lines ---- */

static void line_drop(struct call *c)
{
    struct line *l = c->line;
    if (l == NULL)
        return;
    c->line = NULL;
    DL_DELETE(c->sim->lines, l);
    loop_timer_free(&l->timer);
    buf_deinit(&l->queue);
    free(l);
}

void answer_abort(struct call *c)
{
    line_drop(c);
    http_abort(c->req);
}

/* Broken off by us: its owner hears of it as of a client's hang-up. */
static void line_break(void *arg)
{
    struct line *l = arg;
    struct call *c = l->call;
    call_gone(c);
    answer_abort(c);
}

static struct line *line_new(struct call *c, int shape, loop_timer_fn *fn)
{
    struct line *l = calloc(1, sizeof *l);
    if (l == NULL)
        return NULL;
    l->timer = loop_timer_new(c->sim->loop, fn, l);
    if (l->timer == NULL) {
        free(l);
        return NULL;
    }
    l->call = c;
    l->shape = shape;
    buf_init(&l->queue, QUEUE_MAX_BYTES);
    DL_APPEND(c->sim->lines, l);
    c->line = l;
    return l;
}

void call_gone(struct call *c)
{
    void (*gone)(void *owner) = c->gone;
    c->gone = NULL;
    if (gone != NULL)
        gone(c->owner);
}

void call_lost(struct call *c)
{
    call_gone(c);
    line_drop(c);
}

size_t answer_held(const struct sim *s)
{
    const struct line *l;
    size_t n = 0;
    DL_FOREACH(s->lines, l)
    {
        n++;
    }
    return n;
}

/* ---- before the request is served ---- */

static void refuse(struct call *c, int status)
{
    static const struct {
        enum fault_kind kind;
        const char *text;
    } texts[] = {
        {FAULT_429_RATE, "Rate limit exceeded"},
        {FAULT_429_LIMIT, "you have reached the maximum number of concurrent E2B sandboxes (0)"},
        {FAULT_403, "Team '0' does not have access to the template"},
        {FAULT_404, "template not found"},
        {FAULT_503, "Failed to place sandbox: no node has room"},
        {FAULT_504, "Failed to place sandbox: it took too long"},
    };
    const char *text = "an injected fault";
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].kind == c->fault.kind)
            text = texts[i].text;
    if (c->fault.kind == FAULT_429_RATE)
        http_set_header_int(c->req, "Retry-After", 1);
    c->fault.kind = FAULT_NONE; /* this is its answer */
    api_error(c->req, status, text);
}

bool answer_before(struct call *c)
{
    int status = fault_status(c->fault.kind);
    if (status != 0) {
        refuse(c, status);
        return true;
    }
    if (c->fault.kind == FAULT_HANG) {
        struct line *l = line_new(c, LINE_ASKED, line_break);
        if (l != NULL) {
            loop_timer_start(l->timer, c->fault.for_ms);
            return true;
        }
    }
    if (c->fault.kind != FAULT_RESET && c->fault.kind != FAULT_HANG)
        return false;
    http_abort(c->req);
    return true;
}

/* ---- streams with a line ---- */

static void finish_stream(struct call *c)
{
    struct http_request *r = c->req;
    line_drop(c);
    http_stream_end(r);
}

static void tell_drained(struct line *l)
{
    answer_drain_fn *drain = l->drain;
    l->drain = NULL;
    if (drain != NULL)
        drain(l->drain_arg, l->call->req);
}

static void on_caught_up(void *arg, struct http_request *r)
{
    (void)r;
    struct call *c = arg;
    if (c->line != NULL)
        c->line->full = false;
}

static void put(struct line *l, size_t n)
{
    struct call *c = l->call;
    if (!http_stream_write(c->req, str_make(l->queue.data, n)) && !l->full) {
        l->full = true;
        http_stream_on_drain(c->req, on_caught_up, c);
    }
    buf_consume(&l->queue, n);
}

/* A trickle's turn. */
static void on_tick(void *arg)
{
    struct line *l = arg;
    int64_t n = l->call->fault.rate * TICK_MS / 1000;
    n = n < 1 ? 1 : n < TICK_MAX_BYTES ? n : TICK_MAX_BYTES;
    if (l->queue.failed) {
        line_break(l);
        return;
    }
    if (l->queue.len > 0 && !l->full)
        put(l, l->queue.len < (size_t)n ? l->queue.len : (size_t)n);
    if (l->queue.len == 0 && l->ended)
        finish_stream(l->call);
    else if (l->queue.len < QUEUE_FULL_BYTES / 2)
        tell_drained(l);
}

static void begin(struct line *l)
{
    if (!l->begun)
        http_stream_start(l->call->req, l->status, l->type,
                          l->shape == LINE_WHOLE ? (int64_t)l->queue.len : -1);
    l->begun = true;
}

static void tick(struct line *l)
{
    int64_t rate = l->call->fault.rate;
    loop_timer_every(l->timer, rate < 1000 / TICK_MS ? 1000 / rate : TICK_MS);
}

/* False without memory. */
static bool cut_soon(struct call *c)
{
    struct line *l = line_new(c, LINE_CUT, line_break);
    if (l != NULL)
        loop_timer_start(l->timer, FLUSH_MS);
    return l != NULL;
}

/* ---- whole answers ---- */

static void hold_answer(struct call *c, int status, const char *type, struct str body)
{
    bool trickle = c->fault.kind == FAULT_TRICKLE;
    struct line *l = line_new(c, LINE_WHOLE, trickle ? on_tick : line_break);
    if (l == NULL || !buf_str(&l->queue, body)) {
        answer_abort(c);
        return;
    }
    l->status = status;
    l->type = type;
    l->ended = true;
    if (trickle) {
        begin(l);
        tick(l);
    } else {
        loop_timer_start(l->timer, c->fault.for_ms);
    }
}

static void cut_answer(struct call *c, int status, const char *type, struct str body)
{
    size_t n = (size_t)c->fault.bytes < body.n ? (size_t)c->fault.bytes : body.n - (body.n > 0);
    if (body.n == 0) {
        http_abort(c->req);
        return;
    }
    http_stream_start(c->req, status, type, (int64_t)body.n);
    http_stream_write(c->req, str_make(body.p, n));
    if (!cut_soon(c))
        http_abort(c->req);
}

void answer(struct http_request *r, int status, const char *type, struct str body)
{
    struct call *c = http_data(r);
    enum fault_kind kind = c != NULL ? c->fault.kind : FAULT_NONE;
    if (kind == FAULT_LOST)
        http_abort(r);
    else if (kind == FAULT_CUT)
        cut_answer(c, status, type, body);
    else if (kind == FAULT_BAD_JSON)
        http_reply(r, status == 204 ? 200 : status, "application/json",
                   STR("{\"sandboxID\": \"i0, \"metadata\""));
    else if (kind == FAULT_MUTE || (kind == FAULT_TRICKLE && body.n > 0))
        hold_answer(c, status, type, body);
    else
        http_reply(r, status, type, body);
}

/* ---- streams ---- */

static bool has_line(enum fault_kind kind)
{
    return kind == FAULT_MUTE || kind == FAULT_TRICKLE || kind == FAULT_STALL;
}

bool answer_stream(struct http_request *r, int status, const char *type)
{
    struct call *c = http_data(r);
    struct line *l = NULL;
    enum fault_kind kind = c->fault.kind;
    if (has_line(kind))
        l = line_new(c, LINE_STREAM, kind == FAULT_TRICKLE ? on_tick : line_break);
    if (kind == FAULT_LOST || (has_line(kind) && l == NULL)) {
        http_abort(r);
        return false;
    }
    if (l == NULL) {
        http_stream_start(r, status, type, -1);
        return true;
    }
    l->status = status;
    l->type = type;
    if (kind != FAULT_MUTE)
        begin(l);
    if (kind == FAULT_TRICKLE)
        tick(l);
    else
        loop_timer_start(l->timer, c->fault.for_ms);
    return true;
}

/* A frame that no decoder should take, before the write whose turn it is. */
static void spoil(struct call *c)
{
    static const struct {
        enum fault_kind kind;
        struct str frame;
    } frames[] = {
        {FAULT_BAD_JSON, {"\0\0\0\0\x0a{\"event\":{", 15}},
        {FAULT_BAD_LENGTH, {"\0\xff\xff\xff\xff{\"event\":{}}", 17}},
        {FAULT_BAD_FLAGS, {"\x70\0\0\0\x0c{\"event\":{}}", 17}},
    };
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++)
        if (frames[i].kind == c->fault.kind) {
            http_stream_write(c->req, frames[i].frame);
            c->fault.kind = FAULT_NONE;
        }
}

static bool is_spoiled(enum fault_kind kind)
{
    return kind == FAULT_BAD_JSON || kind == FAULT_BAD_LENGTH || kind == FAULT_BAD_FLAGS;
}

/* What is left until the cut; what comes after it goes nowhere, for the little while it takes. */
static bool write_until_cut(struct call *c, struct str piece)
{
    if (c->line != NULL)
        return true;
    size_t n = (size_t)c->fault.bytes < piece.n ? (size_t)c->fault.bytes : piece.n;
    bool room = http_stream_write(c->req, str_make(piece.p, n));
    c->fault.bytes -= (int64_t)n;
    if (c->fault.bytes == 0)
        cut_soon(c);
    return room || c->line != NULL;
}

bool answer_write(struct http_request *r, struct str piece)
{
    struct call *c = http_data(r);
    uint64_t turn = c->writes++;
    if (is_spoiled(c->fault.kind) && turn == (uint64_t)c->fault.bytes)
        spoil(c);
    if (c->fault.kind == FAULT_CUT)
        return write_until_cut(c, piece);
    if (c->line == NULL || (c->fault.kind == FAULT_STALL && turn == 0))
        return http_stream_write(r, piece);
    buf_str(&c->line->queue, piece);
    return c->line->queue.len < QUEUE_FULL_BYTES;
}

void answer_on_drain(struct http_request *r, answer_drain_fn *fn, void *arg)
{
    struct call *c = http_data(r);
    if (c->line == NULL) {
        http_stream_on_drain(r, fn, arg);
        return;
    }
    c->line->drain = fn;
    c->line->drain_arg = arg;
}

void answer_end(struct http_request *r)
{
    struct call *c = http_data(r);
    c->gone = NULL;
    if (is_spoiled(c->fault.kind))
        spoil(c);
    bool cut = c->fault.kind == FAULT_CUT;
    if (cut && (c->line != NULL || cut_soon(c)))
        return; /* the line breaks it off */
    if (c->line != NULL) {
        c->line->ended = true;
        c->line->drain = NULL;
    } else {
        http_stream_end(r);
    }
}

/* ---- healing ---- */

static void heal_whole(struct line *l)
{
    struct call *c = l->call;
    struct buf body = l->queue;
    int status = l->status;
    const char *type = l->type;
    bool begun = l->begun;
    buf_init(&l->queue, 1);
    line_drop(c);
    if (begun) {
        http_stream_write(c->req, buf_view(&body));
        http_stream_end(c->req);
    } else {
        http_reply(c->req, status, type, buf_view(&body));
    }
    buf_deinit(&body);
}

static void heal_stream(struct line *l)
{
    struct call *c = l->call;
    answer_drain_fn *drain = l->drain;
    void *drain_arg = l->drain_arg;
    begin(l);
    http_stream_write(c->req,
                      buf_view(&l->queue)); /* below what breaks a connection: the queue is kept short */
    if (l->ended) {
        finish_stream(c);
        return;
    }
    line_drop(c);
    if (drain != NULL)
        drain(drain_arg, c->req);
}

void answer_heal(struct sim *s)
{
    while (s->lines != NULL) {
        struct line *l = s->lines;
        struct call *c = l->call;
        bool cut = l->shape == LINE_CUT || l->queue.failed;
        if (cut) {
            line_break(l);
            continue;
        }
        c->fault.kind = FAULT_NONE;
        if (l->shape == LINE_ASKED) {
            line_drop(c);
            api_serve(c);
        } else if (l->shape == LINE_WHOLE) {
            heal_whole(l);
        } else {
            heal_stream(l);
        }
    }
}

void answer_close(struct sim *s)
{
    while (s->lines != NULL)
        line_drop(s->lines->call);
}
