/* GET /v1/agents/{name}/versions/{version}/log: what a build has written. With ?follow=true the answer goes
 * on as the log grows, until the build has ended; with ?offset=N it begins there.
 *
 *   find -> read some pieces -> send, as fast as the client takes them -> read …
 *                 └─ none left: the end; of one that is followed and being built: watched (build_watch.h)
 *
 * One read is held at most: a client that is slow is behind, and costs no memory. An answer that is followed
 * ends before its build when the gateway is being stopped, and after a quarter of an hour: whoever reads goes
 * on at the offset that it has come to, at any gateway. The version tells whether its build has ended, and
 * whoever saw that before it asked has all of the log. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "build_watch.h"
#include "store/build_logs.h"
#include "versions.h"

enum { STORE_MS = 10000, FOLLOWERS_MAX = 256, FOLLOW_MS = 900 * 1000 };

struct log {
    struct call *c;
    int64_t at; /* the next byte to send */
    int64_t bytes;
    bool follow, building, counted;
    struct build_watcher watcher;
};

static void go_on(struct log *l);

static void log_free(void *data)
{
    struct log *l = data;
    build_watch_remove(l->c->g->build_watch, &l->watcher);
    if (l->counted)
        l->c->g->build_followers--;
    free(l);
}

static void on_gone(struct call *c)
{
    struct log *l = c->data;
    build_watch_remove(c->g->build_watch, &l->watcher);
}

static void end(struct log *l)
{
    struct call *c = l->c;
    http_stream_end(c->req);
    call_streamed(c, 200);
}

/* What cannot be completed must not look complete. */
static void break_off(struct log *l, const struct err *err)
{
    struct call *c = l->c;
    if (err != NULL)
        log_warn("a build's log broke off; its reader goes on at an offset", LF_ERR(err));
    http_abort(c->req);
    call_streamed(c, 500);
}

/* ---- pieces ---- */

static void on_drained(void *arg, struct http_request *req)
{
    (void)req;
    go_on(arg);
}

static void on_read(void *arg, const struct str *pieces, size_t n, const struct err *err)
{
    struct log *l = arg;
    struct call *c = l->c;
    bool room = true;
    if (!call_leave(c))
        return;
    if (err != NULL || n == 0) { /* none: it was dropped with its version meanwhile */
        break_off(l, err);
        return;
    }
    for (size_t i = 0; i < n && l->at < l->bytes; i++) {
        int64_t left = l->bytes - l->at;
        size_t size = pieces[i].n < (size_t)left ? pieces[i].n : (size_t)left;
        room = http_stream_write(c->req, str_make(pieces[i].p, size));
        l->at += (int64_t)size;
    }
    if (room)
        go_on(l);
    else
        http_stream_on_drain(c->req, on_drained, l);
}

static void read_some(struct log *l)
{
    struct call *c = l->c;
    struct err err = ERR_INIT;
    call_enter(c);
    if (build_log_read(c->g->read, l->watcher.version, l->at, STORE_MS, on_read, l, &err) != 0 &&
        call_leave(c))
        break_off(l, &err);
}

static void on_news(void *arg, const struct build_news *news)
{
    struct log *l = arg;
    if (news->over) {
        end(l);
        return;
    }
    l->bytes = news->bytes;
    l->building = news->building;
    go_on(l);
}

static void go_on(struct log *l)
{
    struct gateway *g = l->c->g;
    bool time_up = g->draining || !mono_before(loop_now(g->loop), l->watcher.until);
    if (l->follow && time_up) {
        end(l);
    } else if (l->at < l->bytes) {
        read_some(l);
    } else if (l->follow && l->building) {
        l->watcher.seen = l->at;
        build_watch_add(g->build_watch, &l->watcher);
    } else {
        end(l);
    }
}

/* ---- the request ---- */

static void start(struct log *l, const struct build_log_place *place)
{
    struct call *c = l->c;
    bool head = http_method_of(c->req) == HTTP_M_HEAD;
    bool whole = !place->pieces && place->status != AGENT_BUILDING;
    char detail[96];
    l->bytes = place->bytes;
    l->building = place->status == AGENT_BUILDING;
    l->watcher.version = place->version;
    l->follow = l->follow && l->building && !head;
    if (l->at > l->bytes) {
        snprintf(detail, sizeof detail, "the log has %lld bytes", (long long)l->bytes);
        call_fail_code(c, ERR_RANGE, detail);
        return;
    }
    http_set_header(c->req, "Cache-Control", STR("no-store"));
    http_set_header(c->req, "X-Accel-Buffering", STR("no"));
    http_set_header(c->req, "X-Content-Type-Options", STR("nosniff"));
    if (whole) {
        call_reply_bytes(c, 200, "text/plain; charset=utf-8",
                         str_make(place->kept.p + l->at, place->kept.n - (size_t)l->at));
        return;
    }
    http_stream_start(c->req, 200, "text/plain; charset=utf-8", l->follow ? -1 : l->bytes - l->at);
    if (head)
        end(l);
    else
        go_on(l);
}

static void on_place(void *arg, const struct build_log_place *place, const struct err *err)
{
    struct log *l = arg;
    struct call *c = l->c;
    if (!call_leave(c))
        return;
    if (err != NULL)
        call_fail_query(c, err);
    else if (!place->found)
        call_fail_code(c, ERR_VERSION_NOT_FOUND, NULL);
    else
        start(l, place);
}

static int read_query(struct log *l, struct err *err)
{
    struct str v;
    uint64_t offset = 0;
    int got = http_query_get(l->c->req, "follow", &v, err);
    if (got < 0)
        return -1;
    l->follow = got > 0 && str_eq_c(v, "true");
    if (got > 0 && !l->follow && !str_eq_c(v, "false"))
        return err_set(err, ERR_BAD_QUERY, "follow must be true or false");
    got = http_query_get(l->c->req, "offset", &v, err);
    if (got > 0 && (!str_to_u64(v, &offset) || offset > INT64_MAX))
        return err_set(err, ERR_BAD_QUERY, "offset must be a number of bytes");
    l->at = (int64_t)offset;
    return got < 0 ? -1 : 0;
}

static int begin(struct log *l, int32_t version, struct err *err)
{
    struct gateway *g = l->c->g;
    if (read_query(l, err) != 0)
        return -1;
    if (l->follow && g->build_followers >= FOLLOWERS_MAX)
        return err_set(err, ERR_OVERLOADED, "too many callers follow builds here; try again later");
    l->counted = l->follow;
    g->build_followers += l->counted;
    call_enter(l->c);
    if (build_log_find(g->read, l->c->tenant, l->c->arg, version, STORE_MS, on_place, l, err) != 0 &&
        call_leave(l->c))
        return -1;
    return 0;
}

void version_log(struct call *c)
{
    struct err err = ERR_INIT;
    int32_t version;
    if (!version_of_path(c, &version))
        return;
    struct log *l = calloc(1, sizeof *l);
    if (l == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    *l = (struct log){
        .c = c, .watcher = {.until = mono_add_ms(loop_now(c->g->loop), FOLLOW_MS), .fn = on_news, .arg = l}};
    c->data = l;
    c->free_data = log_free;
    c->gone = on_gone;
    if (begin(l, version, &err) != 0)
        call_fail(c, &err);
}
