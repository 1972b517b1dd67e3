/* The ledger: every sandbox that came to be, whether or not anybody was told of it.
 *
 * A line is written when a sandbox has ended; to the file that was named, else to one without a name, which
 * goes with the process. /sim/ledger shows first those that live, by number, then what the file holds by
 * then: so none is missed while they come and go, and one that ends meanwhile comes twice, its end last. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "sim.h"

enum { LINE_BYTES = 128 * 1024, WRITE_BYTES = 64 * 1024, READ_BYTES = 32 * 1024 };
enum { WAITING_BYTES = WRITE_BYTES + LINE_BYTES };

#define UNNAMED_MAX_BYTES (4LL << 30) /* of a file that nobody asked for */

static const char *const ends[] = {[BOX_DELETED] = "deleted",
                                   [BOX_EXPIRED] = "expired",
                                   [BOX_VANISHED] = "vanished",
                                   [BOX_SHUTDOWN] = "shutdown"};

static void lost(struct sim *s, const char *why)
{
    if (!s->ledger_failed)
        log_error("the ledger cannot be kept; it is not complete", LF_STR("file", s->o.ledger),
                  LF_STR("why", why));
    s->ledger_failed = true;
}

static int open_unnamed(struct err *err)
{
    const char *dir = getenv("TMPDIR");
    int fd = open(dir != NULL ? dir : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return fd >= 0
               ? fd
               : err_set(err, ERR_IO, "a file in %s for the ledger: %s; SANDPIPER_SIM_LEDGER names another",
                         dir != NULL ? dir : "/tmp", strerror(errno));
}

int ledger_open(struct sim *s, struct err *err)
{
    buf_init(&s->ledger_lines, WAITING_BYTES);
    if (s->o.ledger[0] == '\0') {
        s->ledger = open_unnamed(err);
        return s->ledger >= 0 ? 0 : -1;
    }
    s->ledger = open(s->o.ledger, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (s->ledger < 0)
        return err_set(err, ERR_IO, "%s: %s", s->o.ledger, strerror(errno));
    s->ledger_from = lseek(s->ledger, 0, SEEK_END);
    return 0;
}

void ledger_flush(struct sim *s)
{
    struct str rest = buf_view(&s->ledger_lines);
    if (s->o.ledger[0] == '\0' && s->ledger_bytes > UNNAMED_MAX_BYTES && rest.n > 0) {
        lost(s, "4 GiB are enough for a file without a name: SANDPIPER_SIM_LEDGER names one");
        rest.n = 0;
    }
    while (rest.n > 0) {
        ssize_t n = write(s->ledger, rest.p, rest.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            lost(s, strerror(errno));
            break;
        }
        s->ledger_bytes += n;
        rest = str_make(rest.p + n, rest.n - (size_t)n);
    }
    buf_clear(&s->ledger_lines);
}

void ledger_close(struct sim *s)
{
    ledger_flush(s);
    buf_deinit(&s->ledger_lines);
    if (s->ledger >= 0 && close(s->ledger) != 0)
        lost(s, strerror(errno));
    s->ledger = -1;
}

/* What was made for whom, and how long it lived. */
static void write_line(struct buf *line, const struct box *b, const char *ended_by)
{
    wall_t now = wall_now(), ended = ended_by != NULL ? now : (wall_t){0};
    struct json_writer w = json_writer(line);
    jw_object(&w);
    jw_kcstr(&w, "sandbox", b->id);
    jw_kcstr(&w, "template", b->template_id);
    box_write_metadata(&w, b);
    jw_ktime(&w, "created_at", b->started);
    jw_ktime(&w, "ended_at", ended);
    jw_kint(&w, "lived_ms", (now.us - b->started.us) / 1000);
    jw_kcstr(&w, "ended_by", ended_by);
    jw_kint(&w, "programs", b->programs);
    jw_object_end(&w);
    buf_byte(line, '\n');
}

void ledger_put(struct sim *s, const struct box *b, enum box_end how)
{
    struct buf line;
    if (s->ledger < 0)
        return;
    buf_init(&line, LINE_BYTES);
    write_line(&line, b, ends[how]);
    if (line.failed || !buf_str(&s->ledger_lines, buf_view(&line)))
        lost(s, "too much waits");
    if (s->ledger_lines.len > WRITE_BYTES)
        ledger_flush(s);
    buf_deinit(&line);
}

/* ---- shown ---- */

struct reading {
    struct call *call;
    uint64_t next;   /* the number of the next living one */
    bool living;     /* some may be left */
    int64_t at, end; /* in the file */
};

static void on_gone(void *owner)
{
    free(owner);
}

/* False when the client has to catch up first. */
static bool show_living(struct reading *g)
{
    struct sim *s = g->call->sim;
    for (struct box *b = s->boxes; b != NULL; b = b->hh.next) {
        struct buf line;
        if (b->number < g->next)
            continue;
        buf_init(&line, LINE_BYTES);
        write_line(&line, b, NULL);
        bool room = answer_write(g->call->req, buf_view(&line));
        buf_deinit(&line);
        g->next = b->number + 1;
        if (!room)
            return false;
    }
    ledger_flush(s);
    g->living = false;
    g->at = s->ledger_from;
    g->end = s->ledger_from + s->ledger_bytes;
    return true;
}

/* 1 there is more, 0 the end, -1 it cannot be read. */
static int show_piece(struct reading *g, bool *room)
{
    char piece[READ_BYTES];
    int64_t left = g->end - g->at;
    if (left == 0)
        return 0;
    ssize_t n = pread(g->call->sim->ledger, piece, left < READ_BYTES ? (size_t)left : READ_BYTES, g->at);
    if (n <= 0)
        return -1;
    g->at += n;
    *room = answer_write(g->call->req, str_make(piece, (size_t)n));
    return 1;
}

static void show_more(void *arg, struct http_request *r)
{
    struct reading *g = arg;
    struct call *c = g->call;
    bool room = !g->living || show_living(g);
    int more = 1;
    while (room && more > 0)
        more = show_piece(g, &room);
    if (more > 0) {
        answer_on_drain(r, show_more, g);
        return;
    }
    free(g);
    c->gone = NULL;
    if (more < 0)
        answer_abort(c); /* half a ledger must not look whole */
    else
        answer_end(r);
}

void ledger_show(struct sim *s, struct http_request *r)
{
    struct call *c = http_data(r);
    struct reading *g = malloc(sizeof *g);
    if (g == NULL || s->ledger_failed) {
        free(g);
        api_error(r, 503, s->ledger_failed ? "the ledger is not complete: see the log" : "no memory");
        return;
    }
    *g = (struct reading){.call = c, .living = true};
    c->gone = on_gone;
    c->owner = g;
    answer_stream(r, 200, "application/x-ndjson");
    show_more(g, r);
}
