/* A build's log: bytes -> text -> `waiting` (its head) and `tail` (its end) -> pieces.
 *
 * One piece is on its way at a time, and is the beginning of `waiting` until it is stored: so it is the same
 * when it is sent again, and a reply that was lost costs nothing. Pieces go at most each 300 ms, unless there
 * is one full already.
 *
 * What PostgreSQL refuses as another try's ends the log, not the build: that hears it at its end, or from its
 * lease before. */
#include "build_log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/culprit.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/utf8.h"
#include "store/build_logs.h"

enum {
    STORE_MS = 30000,
    PACE_MS = 300,
    FIRST_MS = 10, /* what comes in one breath goes as one piece */
    AGAIN_MS = 500,
    WORDS_BYTES = 64 * 1024, /* room behind the bound, for what we have to say */
    LINE_BYTES = 512,
    TAIL_ROOM = 2 * BUILD_LOG_TAIL_BYTES,
};

enum log_state {
    LOG_NEW,
    LOG_OPENING, /* its try is asked for */
    LOG_OPEN,
    LOG_CLOSING, /* nothing more is put; what waits is being stored */
    LOG_CLOSED,  /* told */
};

struct build_log {
    struct executor *x;
    struct uuid version;
    enum log_state state;
    int32_t try;
    bool lost;   /* to another try */
    bool deaf;   /* nothing more is stored: lost, or refused */
    bool busy;   /* PostgreSQL owes an answer */
    bool orphan; /* freed as soon as it came */
    bool opened; /* the last word of this try, or of the one before, is missing */
    bool cut;    /* the bound is reached: from here on the end alone is kept */
    struct utf8_mend mend[BUILD_LOG_FROMS];
    struct buf text;    /* scratch: a piece, mended */
    struct buf waiting; /* not stored yet */
    struct buf tail;    /* the last of all text, and a little more */
    size_t on_way;      /* the piece that was sent, from the front of waiting */
    bool on_way_last;
    int64_t at;       /* where waiting begins */
    int64_t left_out; /* bytes beyond the bound */
    char last;        /* of all text: whether a line has begun */
    mono_t sent_at;
    struct loop_timer *timer;
    build_log_begun_fn *begun;
    build_log_closed_fn *closed;
};

static void pump(void *arg);

struct build_log *build_log_new(struct executor *x, struct uuid version)
{
    struct build_log *l = calloc(1, sizeof *l);
    if (l == NULL)
        return NULL;
    *l = (struct build_log){.x = x, .version = version, .last = '\n'};
    buf_init(&l->text, 8u << 20);
    buf_init(&l->waiting, BUILD_LOG_BYTES + BUILD_LOG_TAIL_BYTES + 2 * WORDS_BYTES);
    buf_init(&l->tail, TAIL_ROOM);
    l->timer = loop_timer_new(x->loop, pump, l);
    if (l->timer == NULL)
        build_log_free(&l);
    return l;
}

static void destroy(struct build_log *l)
{
    buf_deinit(&l->text);
    buf_deinit(&l->waiting);
    buf_deinit(&l->tail);
    loop_timer_free(&l->timer);
    free(l);
}

void build_log_free(struct build_log **pl)
{
    if (pl == NULL || *pl == NULL)
        return;
    struct build_log *l = *pl;
    *pl = NULL;
    loop_timer_free(&l->timer);
    l->orphan = true;
    if (!l->busy)
        destroy(l);
}

int32_t build_log_try(const struct build_log *l)
{
    return l->try;
}

/* ---- text ---- */

static void keep_tail(struct build_log *l, struct str text)
{
    if (text.n > BUILD_LOG_TAIL_BYTES)
        text = str_make(text.p + text.n - BUILD_LOG_TAIL_BYTES, BUILD_LOG_TAIL_BYTES);
    if (l->tail.len + text.n > TAIL_ROOM)
        buf_consume(&l->tail, l->tail.len - BUILD_LOG_TAIL_BYTES);
    buf_str(&l->tail, text);
}

/* The last n bytes of the tail, and less: it begins with a whole character. */
static struct str last_of(const struct build_log *l, size_t n)
{
    struct str all = buf_view(&l->tail);
    size_t from = all.n > n ? all.n - n : 0;
    while (from < all.n && ((unsigned char)all.p[from] & 0xC0) == 0x80)
        from++;
    return str_make(all.p + from, all.n - from);
}

struct str build_log_tail(const struct build_log *l)
{
    return last_of(l, BUILD_LOG_TAIL_BYTES);
}

static int64_t size_of(const struct build_log *l)
{
    return l->at + (int64_t)l->waiting.len;
}

/* What is in the scratch buffer. Our own words have room behind the bound. */
static void add(struct build_log *l, bool ours)
{
    struct str text = buf_view(&l->text);
    int64_t room = BUILD_LOG_BYTES + (ours ? WORDS_BYTES : 0) - size_of(l);
    size_t n = (l->cut && !ours) || room <= 0 ? 0 : utf8_floor(text, (size_t)room);
    if (text.n == 0)
        return;
    l->last = text.p[text.n - 1];
    keep_tail(l, text);
    if (l->deaf)
        return;
    buf_append(&l->waiting, text.p, n);
    if (ours)
        return;
    l->left_out += (int64_t)(text.n - n);
    l->cut = l->cut || n < text.n;
}

static void schedule(struct build_log *l)
{
    int64_t since = mono_ms_between(l->sent_at, loop_now(l->x->loop));
    bool full = l->waiting.len >= BUILD_LOG_PIECE_BYTES;
    if (l->busy || l->state < LOG_OPEN || (l->waiting.len == 0 && l->state == LOG_OPEN))
        return;
    if (l->state == LOG_CLOSING || full)
        loop_timer_start(l->timer, 0);
    else if (!loop_timer_active(l->timer))
        loop_timer_start(l->timer, since >= PACE_MS ? FIRST_MS : PACE_MS - since);
}

void build_log_put(struct build_log *l, enum build_log_from from, struct str piece)
{
    if (l->state >= LOG_CLOSING)
        return;
    buf_clear(&l->text);
    utf8_mend(&l->mend[from], piece, &l->text);
    add(l, false);
    schedule(l);
}

/* A character that a command left unfinished is none. */
static void end_characters(struct build_log *l)
{
    buf_clear(&l->text);
    for (int i = 0; i < BUILD_LOG_FROMS; i++)
        utf8_mend_end(&l->mend[i], &l->text);
    add(l, false);
}

/* A line of ours, at a line's beginning. */
static void say(struct build_log *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct build_log *l, const char *fmt, ...)
{
    char line[LINE_BYTES];
    struct utf8_mend m = {.held_n = 0};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    buf_clear(&l->text);
    if (l->last != '\n')
        buf_byte(&l->text, '\n');
    utf8_mend(&m, str_of(line), &l->text);
    utf8_mend_end(&m, &l->text);
    buf_byte(&l->text, '\n');
    add(l, true);
}

void build_log_command(struct build_log *l, const char *what, const char *text, const char *more)
{
    const struct str parts[] = {STR("$ "),    str_of(what), str_of(text), str_of(more[0] != '\0' ? " " : ""),
                                str_of(more), STR("\n")};
    end_characters(l);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        build_log_put(l, BUILD_LOG_STDOUT, parts[i]);
}

void build_log_flush(struct build_log *l)
{
    end_characters(l);
    if (!l->busy && l->state == LOG_OPEN && l->waiting.len > 0)
        loop_timer_start(l->timer, 0);
}

/* ---- beginning ---- */

static void on_begun(void *arg, const struct build_log_begun *b, const struct err *err)
{
    struct build_log *l = arg;
    CULPRIT(l->version);
    l->busy = false;
    if (l->orphan) {
        destroy(l);
        return;
    }
    if (l->state == LOG_CLOSING) {
        loop_timer_start(l->timer, 0);
        return;
    }
    if (err == NULL && b->building) {
        l->state = LOG_OPEN;
        l->try = b->try;
        l->at = b->bytes;
        l->opened = b->open;
        l->cut = b->bytes >= BUILD_LOG_BYTES;
        if (b->open)
            say(l, "-- the executor that built this is gone; the build begins again");
        schedule(l);
    }
    l->begun(l->x, l->version, err == NULL && b->building, err);
}

int build_log_open(struct build_log *l, build_log_begun_fn *fn, struct err *err)
{
    INVARIANT(l->state == LOG_NEW);
    l->begun = fn;
    if (build_log_begin(l->x->read, l->version, STORE_MS, on_begun, l, err) != 0)
        return -1;
    l->state = LOG_OPENING;
    l->busy = true;
    return 0;
}

/* ---- pieces ---- */

static void end(struct build_log *l)
{
    l->state = LOG_CLOSED;
    l->closed(l->x, l->version, !l->lost); /* the log may be gone */
}

static void on_stored(void *arg, bool taken, const struct err *err)
{
    struct build_log *l = arg;
    CULPRIT(l->version);
    l->busy = false;
    if (l->orphan) {
        destroy(l);
        return;
    }
    if (err != NULL && err->code != ERR_PG_DATA) {
        loop_timer_start(l->timer, AGAIN_MS);
        return;
    }
    if (err != NULL)
        log_warn("the database refused a piece of a build's log: the rest of it is not kept", LF_ERR(err));
    if (taken) {
        FAILPOINT(executor_build_log);
        l->at += (int64_t)l->on_way;
        l->opened = !l->on_way_last;
        buf_consume(&l->waiting, l->on_way);
    } else {
        l->lost = err == NULL;
        l->deaf = true;
        l->opened = false;
        buf_deinit(&l->waiting);
    }
    l->on_way = 0;
    schedule(l);
}

static void send(struct build_log *l)
{
    struct str all = buf_view(&l->waiting);
    if (l->on_way == 0) {
        l->on_way = utf8_floor(all, BUILD_LOG_PIECE_BYTES);
        l->on_way_last = l->state == LOG_CLOSING && l->on_way == all.n;
    }
    const struct build_log_piece piece = {.version = l->version,
                                          .try = l->try,
                                          .at = l->at,
                                          .data = str_make(all.p, l->on_way),
                                          .last = l->on_way_last};
    l->sent_at = loop_now(l->x->loop);
    if (build_log_append(l->x->read, &piece, STORE_MS, on_stored, l, NULL) == 0)
        l->busy = true;
    else
        loop_timer_start(l->timer, AGAIN_MS);
}

static void pump(void *arg)
{
    struct build_log *l = arg;
    CULPRIT(l->version);
    if (l->busy || l->state < LOG_OPEN || l->state == LOG_CLOSED)
        return;
    if (l->waiting.len > 0 || (l->state == LOG_CLOSING && l->opened))
        send(l);
    else if (l->state == LOG_CLOSING)
        end(l);
}

/* ---- the end ---- */

/* What did not fit: its end, from a line's beginning if there is one near, behind how much is missing. */
static void put_end(struct build_log *l)
{
    enum { NEAR = 4096 };
    bool whole = l->left_out <= BUILD_LOG_TAIL_BYTES;
    struct str end = last_of(l, whole ? (size_t)l->left_out : BUILD_LOG_TAIL_BYTES);
    const char *line = whole ? NULL : memchr(end.p, '\n', NEAR);
    if (line != NULL)
        end = str_make(line + 1, (size_t)(end.p + end.n - line - 1));
    if (!whole)
        buf_printf(&l->waiting,
                   "\n-- %lld bytes are left out here: of a log the first %d MiB are kept, and its end\n",
                   (long long)(l->left_out - (int64_t)end.n), BUILD_LOG_BYTES >> 20);
    buf_str(&l->waiting, end);
}

/* Why a build goes back: behind what is missing here. Its end is another try's. */
static void put_reason(struct build_log *l, const char *why)
{
    if (l->left_out > 0)
        say(l, "-- %lld bytes are left out here", (long long)l->left_out);
    say(l, "-- %s; the build will be tried again", why);
}

void build_log_close(struct build_log *l, const char *why, build_log_closed_fn *fn)
{
    INVARIANT(l->state < LOG_CLOSING);
    bool opened = l->state == LOG_OPEN;
    l->closed = fn;
    if (opened)
        end_characters(l);
    if (opened && why != NULL)
        put_reason(l, why);
    else if (opened && l->left_out > 0 && !l->deaf)
        put_end(l);
    l->lost = l->lost || !opened; /* nothing was written */
    l->state = LOG_CLOSING;
    if (!l->busy)
        loop_timer_start(l->timer, 0);
}
