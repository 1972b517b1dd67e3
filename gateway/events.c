/* Live streams: from the request to the last live event.
 *
 *   GET:  waiter added -> record read ─┬─ open:  head, feed joined ─▶ status, pieces ─┐
 *   POST: committed ───────────────────┘                                              ▼ told of its end
 *                                      └─ ended: head ───────────────────▶ events_end.c
 *
 * A stream is the call's data. What the client has not taken is bounded: past STREAM_BYTES the stream is
 * paused, which closes its reader, until the client has taken nearly all; its bytes stay where they are kept.
 * What was missed meanwhile is caught up with in order: status first, then pieces.
 *
 * Silence is broken by a comment, so that a dead connection is found by its client and by us. */
#include "events.h"

#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/log.h"
#include "invocations.h"
#include "json/writer.h"
#include "store/record_json.h"

enum {
    STORE_MS = 5000,
    OPENING_MS = 60000,
    STREAM_BYTES = 64 * 1024,
    HEARTBEAT_MS = 15000,
    BEAT_MS = 1000,
    EVENT_BYTES = 256 * 1024, /* a piece of control characters grows sixfold */
};

struct streams {
    struct gateway *g;
    struct feeds *feeds;
    struct stream *list;
    int count;
    struct loop_timer *beat;
};

static void sync_status(struct stream *s);
static void read_record(struct stream *s);

/* ---- writing ---- */

struct event_position stream_position(const struct stream *s)
{
    struct event_position p = {.attempt = s->reader.attempt > 0 ? s->reader.attempt : 1};
    for (int k = 0; k < OUTPUT_STREAMS; k++)
        p.at[k] = s->reader.at[k] - s->carried[k];
    return p;
}

/* Goes on when the client has taken nearly all; at once when the pause had another reason. */
static void on_drained(void *arg, struct http_request *req)
{
    (void)req;
    struct stream *s = arg;
    s->paused = false;
    s->unsent = 0;
    if (s->ending)
        stream_finish_later(s);
    else if (s->stopping)
        stream_close(s);
    else
        sync_status(s);
}

void stream_pause(struct stream *s)
{
    if (s->paused)
        return;
    s->paused = true;
    s->reader.open = false;
    http_stream_on_drain(s->c->req, on_drained, s);
}

void stream_write(struct stream *s, struct str text)
{
    bool room = http_stream_write(s->c->req, text);
    s->unsent += text.n;
    s->wrote = loop_now(s->all->g->loop);
    DL_DELETE(s->all->list, s);
    DL_APPEND(s->all->list, s);
    if (!room || s->unsent >= STREAM_BYTES)
        stream_pause(s);
}

/* One event of bytes; `size` of them end where the stream then stands. */
static bool write_bytes(struct stream *s, enum output_stream stream, struct str bytes)
{
    struct buf text;
    struct event_position p = stream_position(s);
    buf_init(&text, EVENT_BYTES);
    event_write_bytes(&text, &p, stream == OUTPUT_STDOUT ? "stdout" : "stderr", bytes);
    bool whole = !text.failed;
    if (whole)
        stream_write(s, buf_view(&text));
    buf_deinit(&text);
    return whole;
}

bool stream_put(struct stream *s, enum output_stream stream, struct str bytes, bool last)
{
    char *joined = NULL;
    size_t had = s->carried[stream];
    struct str all = bytes;
    if (had > 0) {
        joined = malloc(had + bytes.n);
        if (joined == NULL)
            return false;
        memcpy(joined, s->carry[stream], had);
        memcpy(joined + had, bytes.p, bytes.n);
        all = str_make(joined, had + bytes.n);
    }
    size_t cut = last ? 0 : event_cut(all);
    s->reader.at[stream] += (int64_t)bytes.n;
    s->carried[stream] = (uint8_t)cut;
    bool ok = all.n == cut || write_bytes(s, stream, str_make(all.p, all.n - cut));
    if (ok) {
        memcpy(s->carry[stream], all.p + all.n - cut, cut);
    } else { /* as before: it is tried again */
        s->reader.at[stream] -= (int64_t)bytes.n;
        s->carried[stream] = (uint8_t)had;
    }
    free(joined);
    return ok;
}

void stream_gap(struct stream *s, const int64_t from[OUTPUT_STREAMS], const int64_t to[OUTPUT_STREAMS])
{
    static const char *const names[] = {"stdout", "stderr"};
    struct buf data, text;
    struct event_position p = stream_position(s);
    buf_init(&data, 1024);
    buf_init(&text, 2048);
    struct json_writer w = json_writer(&data);
    jw_object(&w);
    jw_kint(&w, "attempt", p.attempt);
    for (int k = 0; k < OUTPUT_STREAMS; k++) {
        if (from[k] == to[k])
            continue;
        jw_key(&w, names[k]);
        jw_object(&w);
        jw_kint(&w, "from", from[k]);
        if (to[k] >= 0)
            jw_kint(&w, "to", to[k]);
        else
            jw_knull(&w, "to");
        jw_object_end(&w);
    }
    jw_object_end(&w);
    event_write(&text, &p, "gap", buf_view(&data));
    stream_write(s, buf_view(&text));
    buf_deinit(&data);
    buf_deinit(&text);
    metric_add(&s->all->g->metrics.row[M_STREAM_GAPS], 1);
}

void stream_close(struct stream *s)
{
    struct call *c = s->c;
    feed_leave(&s->reader);
    http_stream_end(c->req);
    call_streamed(c, 200);
}

/* ---- status ---- */

void stream_status(struct stream *s, struct feed_state state)
{
    struct buf data, text;
    struct event_position p = stream_position(s);
    buf_init(&data, 1024);
    buf_init(&text, 2048);
    struct json_writer w = json_writer(&data);
    jw_object(&w);
    jw_kid(&w, "id", "inv", s->id);
    jw_kcstr(&w, "status", inv_state_name(state.state));
    jw_kbool(&w, "status_stale", state.stale);
    jw_kint(&w, "attempt", state.attempt);
    jw_object_end(&w);
    event_write(&text, &p, "status", buf_view(&data));
    stream_write(s, buf_view(&text));
    buf_deinit(&data);
    buf_deinit(&text);
    s->sent = state.state;
    s->sent_attempt = state.attempt;
}

void stream_leave(struct stream *s)
{
    static const int64_t unknown[OUTPUT_STREAMS] = {-1, -1};
    for (int k = 0; s->reader.whole && k < OUTPUT_STREAMS; k++)
        if (s->carried[k] > 0)
            stream_put(s, (enum output_stream)k, STR(""), true);
    struct event_position p = stream_position(s);
    if (!s->reader.whole)
        stream_gap(s, p.at, unknown);
}

void stream_enter(struct stream *s, int16_t attempt)
{
    s->reader.attempt = attempt;
    s->reader.whole = false;
    for (int k = 0; k < OUTPUT_STREAMS; k++) {
        s->reader.at[k] = 0;
        s->carried[k] = 0;
    }
}

/* Tells what has changed; then the reader is open, unless the client has much to take. */
static void sync_status(struct stream *s)
{
    struct feed_state state = feed_state_of(&s->reader);
    if (s->paused || !state.known || state.attempt < s->reader.attempt)
        return; /* the feed has yet to come to the attempt that the client has seen */
    if (state.attempt > s->reader.attempt) {
        if (s->reader.attempt > 0)
            stream_leave(s);
        stream_enter(s, state.attempt);
    }
    if (s->sent_attempt != state.attempt || s->sent != state.state)
        stream_status(s, state);
    s->reader.open = !s->paused;
    feed_wake(&s->reader);
}

/* ---- what feeds tell ---- */

static void on_moved(struct feed_reader *r)
{
    sync_status((struct stream *)r);
}

static void on_piece(struct feed_reader *r, enum output_stream stream, struct str bytes)
{
    struct stream *s = (struct stream *)r;
    if (!stream_put(s, stream, bytes, false))
        stream_pause(s); /* no memory: again in a moment */
}

/* record NULL: the client resumes elsewhere. */
static void on_ended(struct feed_reader *r, const struct record *record)
{
    struct stream *s = (struct stream *)r;
    s->stopping = record == NULL;
    if (record != NULL)
        stream_finish(s, record);
    else if (!s->paused)
        stream_close(s);
}

static const struct feed_events feed_events = {.moved = on_moved, .piece = on_piece, .ended = on_ended};

/* ---- heartbeats ---- */

static void on_beat(void *arg)
{
    struct streams *all = arg;
    mono_t now = loop_now(all->g->loop);
    struct stream *s;
    for (int left = all->count; left > 0; left--) {
        s = all->list;
        if (mono_ms_between(s->wrote, now) < HEARTBEAT_MS)
            break;
        if (s->started && !s->paused && !s->c->ended) {
            stream_write(s, STR(":\n\n"));
        } else {
            s->wrote = now;
            DL_DELETE(all->list, s);
            DL_APPEND(all->list, s);
        }
    }
}

/* ---- a stream's life ---- */

static void stream_free(void *data)
{
    struct stream *s = data;
    struct streams *all = s->all;
    feed_leave(&s->reader);
    waiter_remove(&s->waiter);
    DL_DELETE(all->list, s);
    all->count--;
    metric_add(&all->g->metrics.row[M_STREAMS], -1);
    free(s);
}

static void on_gone(struct call *c)
{
    struct stream *s = c->data;
    feed_leave(&s->reader);
    waiter_remove(&s->waiter);
}

bool events_room(const struct gateway *g)
{
    return g->streams->count < g->settings->max_streams;
}

/* NULL when there is no room, or no memory. */
static struct stream *stream_new(struct call *c, struct uuid id)
{
    struct streams *all = c->g->streams;
    struct stream *s = events_room(c->g) ? calloc(1, sizeof *s) : NULL;
    if (s == NULL)
        return NULL;
    *s = (struct stream){.all = all, .c = c, .id = id, .wrote = loop_now(c->g->loop)};
    DL_APPEND(all->list, s);
    all->count++;
    metric_add(&all->g->metrics.row[M_STREAMS], 1);
    if (c->free_data != NULL)
        c->free_data(c->data);
    c->data = s;
    c->free_data = stream_free;
    c->gone = on_gone;
    return s;
}

/* The head, and how long a client should wait before it resumes. False: that was all (HEAD). */
static bool start(struct stream *s)
{
    struct http_request *req = s->c->req;
    bool head_only = http_method_of(req) == HTTP_M_HEAD;
    http_set_header(req, "Cache-Control", STR("no-store"));
    http_set_header(req, "X-Accel-Buffering", STR("no"));
    http_stream_start(req, 200, "text/event-stream", -1);
    s->started = true;
    if (head_only)
        stream_close(s);
    else
        stream_write(s, STR("retry: 1000\n\n"));
    return !head_only;
}

static void join(struct stream *s, int16_t attempt, enum inv_state state)
{
    if (!start(s))
        return;
    if (!feed_join(s->all->feeds, &s->reader, s->id, s->c->tenant, attempt, state)) {
        stream_close(s); /* no memory: the client tries again */
        return;
    }
    if (feed_state_of(&s->reader).known)
        sync_status(s);
}

/* It has ended before the stream began. */
static void finish_at_once(struct stream *s, const struct record *r)
{
    if (!start(s))
        return;
    if (s->posted) {
        stream_enter(s, r->result_attempt);
        stream_status(s, (struct feed_state){.known = true, .state = r->state, .attempt = r->result_attempt});
    }
    stream_finish(s, r);
}

static void take_record(struct stream *s, const struct record *r)
{
    waiter_remove(&s->waiter);
    int16_t newest = r->result_attempt > r->attempt ? r->result_attempt : r->attempt;
    if (s->reader.attempt > newest) {
        call_fail_code(s->c, ERR_BAD_HEADER,
                       "Last-Event-ID is not of this invocation: it has no such attempt");
    } else if (inv_state_ended(r->state)) {
        finish_at_once(s, r);
    } else if (s->told) { /* it ended after this was read */
        read_record(s);
    } else if (s->stopping) {
        if (start(s))
            stream_close(s);
    } else {
        join(s, r->attempt, record_waiting_state(r, wall_now()));
    }
}

static void on_record(void *arg, const struct record *records, size_t n, const struct err *err)
{
    struct stream *s = arg;
    struct call *c = s->c;
    if (!call_leave(c))
        return;
    if (err != NULL)
        call_fail_query(c, err);
    else if (n == 0)
        call_fail_code(c, ERR_NOT_FOUND, "there is no invocation of that id");
    else
        take_record(s, &records[0]);
}

static void read_record(struct stream *s)
{
    struct call *c = s->c;
    struct err err = ERR_INIT;
    struct record_key key = {.id = s->id, .tenant = c->tenant};
    call_enter(c);
    if (records_get(c->g->read, &key, 1, STORE_MS, on_record, s, &err) != 0 && call_leave(c))
        call_fail(c, &err);
}

/* While the record is read: it may end between that and the joining of its feed. */
static void on_told(void *arg, const struct record *record)
{
    struct stream *s = arg;
    s->waiter = NULL;
    s->told = record != NULL;
    s->stopping = record == NULL;
}

static void open_stream(struct stream *s)
{
    s->waiter = waiter_add(s->all->g->waiters, s->id, s->c->tenant, OPENING_MS, on_told, s);
    if (s->waiter == NULL)
        call_fail_code(s->c, ERR_OVERLOADED, NULL);
    else
        read_record(s);
}

/* False: refused, and answered. */
static bool read_last_id(struct stream *s)
{
    struct str text;
    struct event_position p;
    if (!http_header(s->c->req, "Last-Event-ID", &text) || text.n == 0)
        return true;
    if (http_header_count(s->c->req, "Last-Event-ID") != 1 || !event_id_parse(text, &p)) {
        call_fail_code(s->c, ERR_BAD_HEADER,
                       "Last-Event-ID must be the id of an event of this stream: attempt.stdout.stderr");
        return false;
    }
    s->reader.attempt = p.attempt;
    for (int k = 0; k < OUTPUT_STREAMS; k++)
        s->reader.at[k] = p.at[k];
    return true;
}

void events_get(struct call *c)
{
    struct uuid id;
    if (!invocation_id(c, &id))
        return;
    struct stream *s = stream_new(c, id);
    if (s == NULL)
        call_fail_code(c, ERR_OVERLOADED, "this gateway has as many live streams as it may have");
    else if (read_last_id(s))
        open_stream(s);
}

bool events_after_commit(struct call *c, struct uuid id, bool replayed)
{
    char text[ID_TEXT_BYTES], location[ID_TEXT_BYTES + 24];
    struct stream *s = stream_new(c, id);
    if (s == NULL)
        return false;
    s->posted = true;
    id_format("inv", id, text);
    snprintf(location, sizeof location, "/v1/invocations/%s", text);
    http_set_header(c->req, "Location", str_of(location));
    if (replayed)
        open_stream(s);
    else
        join(s, 1, INV_QUEUED);
    return true;
}

/* ---- all of them ---- */

struct streams *streams_new(struct gateway *g, struct err *err)
{
    struct streams *all = calloc(1, sizeof *all);
    if (all == NULL) {
        err_set(err, ERR_NO_MEMORY, "no memory to start");
        return NULL;
    }
    all->g = g;
    all->feeds = feeds_new(g, &feed_events, err);
    all->beat = all->feeds != NULL ? loop_timer_new(g->loop, on_beat, all) : NULL;
    if (all->beat == NULL)
        streams_free(&all);
    else
        loop_timer_every(all->beat, BEAT_MS);
    return all;
}

void streams_free(struct streams **all)
{
    if (all == NULL || *all == NULL)
        return;
    feeds_free(&(*all)->feeds);
    loop_timer_free(&(*all)->beat);
    free(*all);
    *all = NULL;
}

void streams_redis_up(struct streams *s)
{
    feeds_redis_up(s->feeds);
}
