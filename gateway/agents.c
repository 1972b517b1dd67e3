/* GET /v1/agents[/{slug}]. */
#include "agents.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cursor.h"
#include "json/writer.h"
#include "model/listing.h"
#include "store/agents.h"
#include "targets.h"

enum { STORE_MS = 5000, LIST_DEFAULT = 50, LIST_MAX = 1000, LOG_TAIL_BYTES = 16 * 1024 };
#define LIST_SCOPE STR("agents")

struct show {
    struct call *c;
    int status;
    int limit; /* 0: one agent */
};

static void write_build(struct json_writer *w, const struct agent_build *b)
{
    struct str log = b->log;
    if (log.n > LOG_TAIL_BYTES) { /* the tail, from a line's start: never inside a character */
        const char *from = memchr(log.p + log.n - LOG_TAIL_BYTES, '\n', LOG_TAIL_BYTES);
        log = from != NULL ? str_make(from + 1, (size_t)(log.p + log.n - from - 1)) : str_of(NULL);
    }
    jw_object(w);
    jw_kint(w, "version", b->version);
    jw_kcstr(w, "status", agent_status_name(b->status));
    jw_kstr(w, "runtime", b->runtime);
    jw_kstr(w, "entry", b->entry);
    jw_kstr(w, "install", b->install);
    jw_kint(w, "archive_bytes", b->archive_bytes);
    jw_ktime(w, "created_at", b->created_at);
    jw_ktime(w, "finished_at", b->finished_at);
    jw_key(w, "error");
    if (b->error_code.n > 0) {
        jw_object(w);
        jw_kstr(w, "code", b->error_code);
        jw_kstr(w, "message", b->error_message);
        jw_object_end(w);
    } else {
        jw_null(w);
    }
    jw_kstr(w, "log", log);
    jw_object_end(w);
}

static void write_agent(struct json_writer *w, const struct agent_record *a)
{
    jw_object(w);
    jw_kid(w, "id", "agt", a->id);
    jw_kstr(w, "name", a->slug);
    jw_kcstr(w, "status", agent_status_name(a->status));
    jw_key(w, "version");
    if (a->serving > 0)
        jw_int(w, a->serving);
    else
        jw_null(w);
    jw_key(w, "latest_build");
    write_build(w, &a->latest);
    jw_ktime(w, "created_at", a->created_at);
    jw_object_end(w);
}

/* The position is the last name shown. */
static void write_cursor(const struct call *c, struct json_writer *w, struct str last)
{
    struct buf text;
    buf_init(&text, CURSOR_TEXT_MAX);
    cursor_write(&c->g->cursor_key, c->tenant, LIST_SCOPE, last, &text);
    jw_kstr(w, "next_cursor", buf_view(&text));
    buf_deinit(&text);
}

static void write_list(const struct call *c, struct json_writer *w, const struct agent_record *agents,
                       size_t n, int limit)
{
    size_t shown = n > (size_t)limit ? (size_t)limit : n;
    jw_object(w);
    jw_key(w, "agents");
    jw_array(w);
    for (size_t i = 0; i < shown; i++)
        write_agent(w, &agents[i]);
    jw_array_end(w);
    if (n > shown)
        write_cursor(c, w, agents[shown - 1].slug);
    else
        jw_knull(w, "next_cursor");
    jw_object_end(w);
}

static void on_agents(void *arg, const struct agent_record *agents, size_t n, const struct err *err)
{
    struct show *s = arg;
    struct call *c = s->c;
    int status = s->status, limit = s->limit;
    free(s);
    if (!call_leave(c))
        return;
    if (err != NULL) {
        call_fail_query(c, err);
        return;
    }
    if (limit == 0 && n == 0) {
        call_fail_code(c, ERR_AGENT_NOT_FOUND, NULL);
        return;
    }
    if (limit ==
        0) /* who looks at an agent may be waiting for its new version: what is submitted next runs that */
        targets_forget(c->g->targets, c->tenant, agents[0].slug);
    struct buf body;
    buf_init(&body, 32 * 1024 * 1024);
    struct json_writer w = json_writer(&body);
    if (limit == 0)
        write_agent(&w, &agents[0]);
    else
        write_list(c, &w, agents, n, limit);
    call_reply_json(c, status, &body);
}

static void ask(struct call *c, struct str slug, struct str after, int limit, int status)
{
    struct err err = ERR_INIT;
    struct show *s = calloc(1, sizeof *s);
    if (s == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    *s = (struct show){.c = c, .status = status, .limit = limit};
    call_enter(c);
    if (agents_get(c->g->read, c->tenant, slug, after, limit > 0 ? limit + 1 : 1, STORE_MS, on_agents, s,
                   &err) == 0)
        return;
    free(s);
    if (call_leave(c))
        call_fail(c, &err);
}

void agent_answer(struct call *c, struct str slug, int status)
{
    ask(c, slug, str_of(NULL), 0, status);
}

void agent_show(struct call *c)
{
    if (agent_slug_valid(c->arg))
        ask(c, c->arg, str_of(NULL), 0, 200);
    else
        call_fail_code(c, ERR_AGENT_NOT_FOUND, NULL);
}

void agents_list(struct call *c)
{
    struct err err = ERR_INIT;
    struct str text;
    struct buf after;
    int limit = LIST_DEFAULT;
    buf_init(&after, CURSOR_POSITION_MAX);
    int got = http_query_get(c->req, "limit", &text, &err);
    if (got > 0)
        got = listing_limit(text, LIST_MAX, &limit, &err);
    if (got >= 0)
        got = http_query_get(c->req, "cursor", &text, &err);
    if (got > 0)
        got = cursor_read(&c->g->cursor_key, c->tenant, LIST_SCOPE, text, &after, &err);
    if (got < 0)
        call_fail(c, &err);
    else
        ask(c, str_of(NULL), buf_view(&after), limit, 200);
    buf_deinit(&after);
}
