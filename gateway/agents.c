/* GET /v1/agents[/{slug}], DELETE /v1/agents/{slug}.
 *
 * A deleted agent is found no more by this gateway from the answer on; by the others within a second
 * (targets.h). What they accept until then runs, as what was accepted before. */
#include "agents.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json/writer.h"
#include "page.h"
#include "store/agent_delete.h"
#include "store/agents.h"
#include "targets.h"

enum { STORE_MS = 5000, LIST_MAX = 1000, LOG_TAIL_BYTES = 16 * 1024, ANSWER_MAX = 32 * 1024 * 1024 };
#define LIST_SCOPE STR("agents")

struct show {
    struct call *c;
    int status;
    int32_t deployed; /* 0: it answers no deploy */
    bool listed;      /* else one agent */
    struct page page;
};

static void write_or_null(struct json_writer *w, const char *key, struct str s)
{
    jw_key(w, key);
    if (s.n > 0)
        jw_str(w, s);
    else
        jw_null(w);
}

void agent_write_source(struct json_writer *w, const struct agent_origin *origin)
{
    jw_key(w, "source");
    jw_object(w);
    jw_kcstr(w, "type", origin->url.n > 0 ? "git" : origin->template.n > 0 ? "template" : "archive");
    if (origin->url.n > 0) {
        jw_kstr(w, "url", origin->url);
        write_or_null(w, "ref", origin->ref);
        write_or_null(w, "commit", origin->commit);
    }
    if (origin->template.n > 0)
        jw_kstr(w, "template", origin->template);
    jw_object_end(w);
}

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
    agent_write_source(w, &b->origin);
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
    if (b->manifest.n > 0) {
        jw_key(w, "manifest");
        jw_raw(w, b->manifest);
    }
    jw_kstr(w, "log", log);
    jw_object_end(w);
}

/* deployed: the version that a deploy made or found; 0: it answers none. */
static void write_agent(struct json_writer *w, const struct agent_record *a, int32_t deployed)
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
    jw_key(w, "rolled_back_from");
    if (a->rolled_back_from > 0)
        jw_int(w, a->rolled_back_from);
    else
        jw_null(w);
    if (deployed > 0)
        jw_kint(w, "deployed_version", deployed);
    jw_key(w, "latest_build");
    write_build(w, &a->latest);
    jw_ktime(w, "created_at", a->created_at);
    jw_object_end(w);
}

static void write_row(const void *rows, size_t i, struct json_writer *w)
{
    const struct agent_record *agents = rows;
    write_agent(w, &agents[i], 0);
}

/* The last name shown. */
static struct str place_of(const void *rows, size_t i)
{
    const struct agent_record *agents = rows;
    return agents[i].slug;
}

/* Who looks at an agent may be waiting for its new version: what is submitted next runs that. */
static void answer_one(struct call *c, const struct agent_record *a, const struct show *s)
{
    struct buf body;
    targets_forget(c->g->targets, c->tenant, a->slug);
    buf_init(&body, ANSWER_MAX);
    struct json_writer w = json_writer(&body);
    write_agent(&w, a, s->deployed);
    call_reply_json(c, s->status, &body);
}

static void on_agents(void *arg, const struct agent_record *agents, size_t n, const struct err *err)
{
    struct show *s = arg;
    struct call *c = s->c;
    const struct page_rows rows = {.rows = agents, .n = n, .write = write_row, .place = place_of};
    if (call_leave(c)) {
        if (err != NULL)
            call_fail_query(c, err);
        else if (s->listed)
            page_reply(c, &s->page, "agents", &rows, ANSWER_MAX);
        else if (n == 0)
            call_fail_code(c, ERR_AGENT_NOT_FOUND, NULL);
        else
            answer_one(c, &agents[0], s);
    }
    free(s);
}

/* page NULL: the agent of that slug. */
static void ask(struct call *c, struct str slug, const struct page *page, int32_t deployed, int status)
{
    struct err err = ERR_INIT;
    struct show *s = calloc(1, sizeof *s);
    if (s == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    *s = (struct show){.c = c, .status = status, .deployed = deployed, .listed = page != NULL};
    if (page != NULL)
        s->page = *page;
    call_enter(c);
    if (agents_get(c->g->read, c->tenant, slug, page_after(&s->page), s->page.limit + 1, STORE_MS, on_agents,
                   s, &err) == 0)
        return;
    free(s);
    if (call_leave(c))
        call_fail(c, &err);
}

void agent_answer(struct call *c, struct str slug, int status)
{
    ask(c, slug, NULL, 0, status);
}

void agent_answer_deploy(struct call *c, struct str slug, int32_t version, int status)
{
    ask(c, slug, NULL, version, status);
}

void agent_show(struct call *c)
{
    if (agent_slug_valid(c->arg))
        ask(c, c->arg, NULL, 0, 200);
    else
        call_fail_code(c, ERR_AGENT_NOT_FOUND, NULL);
}

void agents_list(struct call *c)
{
    struct err err = ERR_INIT;
    struct page page;
    if (page_read(c, LIST_SCOPE, LIST_MAX, &page, &err) != 0)
        call_fail(c, &err);
    else
        ask(c, str_of(NULL), &page, 0, 200);
}

/* ---- DELETE ---- */

static void refuse_scheduled(struct call *c, const struct agent_deleted *what)
{
    char detail[5 * (AGENT_SLUG_BYTES + 2) + 80], more[40] = "";
    if (what->schedule_count > 5)
        snprintf(more, sizeof more, " and %lld more", (long long)what->schedule_count - 5);
    snprintf(detail, sizeof detail, "schedules name it: %.*s%s. Delete these first",
             STR_ARG(what->schedule_names), more);
    call_fail_code(c, ERR_AGENT_SCHEDULED, detail);
}

static void on_deleted(void *arg, const struct agent_deleted *what, const struct err *err)
{
    struct call *c = arg;
    targets_forget(c->g->targets, c->tenant, c->arg);
    if (!call_leave(c))
        return;
    if (err != NULL) /* it may be repeated: so that its outcome is not known is no news */
        call_fail_query(c, err);
    else if (!what->there)
        call_fail_code(c, ERR_AGENT_NOT_FOUND, NULL);
    else if (what->schedule_count > 0)
        refuse_scheduled(c, what);
    else
        call_reply_bytes(c, 204, NULL, STR(""));
}

void agent_delete_call(struct call *c)
{
    struct err err = ERR_INIT;
    if (!agent_slug_valid(c->arg)) {
        call_fail_code(c, ERR_AGENT_NOT_FOUND, NULL);
        return;
    }
    call_enter(c);
    if (agent_delete(c->g->files, c->tenant, c->arg, STORE_MS, on_deleted, c, &err) != 0 && call_leave(c))
        call_fail(c, &err);
}
