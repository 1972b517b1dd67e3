/* GET /v1/usage: sums by day, agent and key.
 *
 * Days are UTC's, both ends included. A page is of groups; totals are of all of them, on every page. Each
 * page adds up the tenant's rows of its days anew (store/usage.h), on the connection of lists, whose
 * statements have a short limit. The cursor has the days along with the place, for a default that was implied
 * by "now" must not move between pages. */
#include "usage.h"

#include <stdlib.h>
#include <string.h>

#include "model/agent.h"
#include "model/invocation.h"
#include "page.h"
#include "store/usage.h"

enum {
    STEP_MS = 8000, /* above the connection's own limit for statements */
    LIMIT_MAX = 1000,
    DAYS_MAX = 366,
    DAYS_DEFAULT = 30,
    ANSWER_MAX = 4 << 20,
    DATE_BYTES = 10,
    SCOPE_BYTES = 320,
};
#define DAY_US (INT64_C(24) * 3600 * 1000 * 1000)

/* A position: two days and a place. The same on every machine of a deployment. */
struct position {
    int32_t from, to;
    struct usage_place place;
};
_Static_assert(sizeof(struct position) <= CURSOR_POSITION_MAX, "it must fit into a cursor");

struct usage_call {
    struct call *c;
    struct page page;
    struct usage_query q;
    char scope[SCOPE_BYTES];
    const struct usage_answer *answer; /* while it is written */
    struct position last;
};

/* ---- the query ---- */

static bool read_day(struct str text, int32_t *out)
{
    char whole[sizeof "2026-11-21T00:00:00Z"];
    wall_t t;
    if (text.n != DATE_BYTES)
        return false;
    memcpy(whole, text.p, DATE_BYTES);
    memcpy(whole + DATE_BYTES, "T00:00:00Z", sizeof "T00:00:00Z");
    if (!wall_parse(str_of(whole), &t) || t.us < 0)
        return false;
    *out = (int32_t)(t.us / DAY_US);
    return true;
}

static void write_day(struct json_writer *w, int32_t day)
{
    char text[WALL_TEXT_BYTES];
    wall_format((wall_t){.us = day * DAY_US}, text);
    jw_str(w, str_make(text, DATE_BYTES));
}

/* 1 when the parameter is there, 0 when not. */
static int take_day(const struct call *c, const char *name, int32_t *out, struct err *err)
{
    struct str text;
    int got = http_query_get(c->req, name, &text, err);
    if (got > 0 && !read_day(text, out))
        return err_set(err, ERR_BAD_QUERY, "%s must be a day, as in 2026-11-21 (UTC), not \"%.*s\"", name,
                       (int)(text.n < 40 ? text.n : 40), text.p);
    return got;
}

static int take_days(const struct call *c, struct usage_query *q, struct err *err)
{
    int has_to = take_day(c, "to", &q->to, err);
    int has_from = has_to < 0 ? -1 : take_day(c, "from", &q->from, err);
    if (has_from < 0)
        return -1;
    if (has_to == 0)
        q->to = (int32_t)(wall_now().us / DAY_US);
    if (has_from == 0)
        q->from = q->to >= DAYS_DEFAULT - 1 ? q->to - (DAYS_DEFAULT - 1) : 0;
    if (q->from > q->to)
        return err_set(err, ERR_BAD_QUERY, "from is later than %s",
                       has_to > 0 ? "to" : "today, which is where it ends without to");
    if (q->to - q->from >= DAYS_MAX)
        return err_set(err, ERR_BAD_QUERY, "%d days are too many; at most %d are summed at a time",
                       q->to - q->from + 1, DAYS_MAX);
    return 0;
}

static int take_by(const struct call *c, struct usage_query *q, struct err *err)
{
    struct str by = STR("day"), name = STR("");
    if (http_query_get(c->req, "by", &by, err) < 0)
        return -1;
    do {
        str_split(&by, ',', &name);
        bool *to = str_eq_c(name, "day")     ? &q->by_day
                   : str_eq_c(name, "agent") ? &q->by_agent
                   : str_eq_c(name, "key")   ? &q->by_key
                                             : NULL;
        if (to == NULL)
            return err_set(err, ERR_BAD_QUERY,
                           "by takes day, agent and key, with commas between, not \"%.*s\"",
                           (int)(name.n < 40 ? name.n : 40), name.p);
        if (*to)
            return err_set(err, ERR_BAD_QUERY, "by names %.*s twice", STR_ARG(name));
        *to = true;
    } while (by.p != NULL);
    return 0;
}

static int take_filters(const struct call *c, struct usage_query *q, struct err *err)
{
    struct str key;
    int has_agent = http_query_get(c->req, "agent", &q->agent, err);
    if (has_agent == 0)
        q->agent = STR("");
    if (has_agent > 0 && !agent_slug_valid(q->agent))
        return err_set(err, ERR_BAD_QUERY, "agent must be an agent's name; usage is not summed by version");
    int has_key = has_agent < 0 ? -1 : http_query_get(c->req, "key", &key, err);
    q->has_key = has_key > 0;
    if (q->has_key && !id_parse("key", key, &q->key)) /* not shown: it may be the key itself */
        return err_set(err, ERR_BAD_QUERY, "key must be the id of an API key, key_…, not the key itself");
    return has_key < 0 ? -1 : 0;
}

/* What a cursor is bound to: the parameters as they were given. */
static int take_scope(struct usage_call *u, struct err *err)
{
    static const char *const names[] = {"from", "to", "by", "agent", "key"};
    struct buf scope;
    struct str text;
    int rc = 0;
    buf_init(&scope, sizeof u->scope);
    buf_cstr_append(&scope, "usage");
    for (size_t i = 0; i < sizeof names / sizeof *names && rc >= 0; i++)
        if ((rc = http_query_get(u->c->req, names[i], &text, err)) > 0)
            buf_printf(&scope, "\n%s %.*s", names[i], STR_ARG(text));
    if (rc >= 0)
        str_copy(buf_view(&scope), u->scope, sizeof u->scope);
    buf_deinit(&scope);
    return rc < 0 ? -1 : 0;
}

static int take_page(struct usage_call *u, struct err *err)
{
    struct str text;
    struct position at;
    if (page_read(u->c, str_of(u->scope), LIMIT_MAX, &u->page, err) != 0)
        return -1;
    if (http_query_get(u->c->req, "limit", &text, err) == 0)
        u->page.limit = LIMIT_MAX;
    u->q.after.day = -1;
    if (u->page.position_len == 0)
        return 0;
    if (u->page.position_len != sizeof at)
        return err_set(err, ERR_BAD_CURSOR, "the cursor is of another version");
    memcpy(&at, u->page.position, sizeof at);
    u->q.from = at.from;
    u->q.to = at.to;
    u->q.after = at.place;
    return 0;
}

/* ---- the answer ---- */

static void write_sums(struct json_writer *w, const struct usage_sums *s)
{
    int64_t total = 0;
    for (int i = 0; i < USAGE_STATES; i++)
        total += s->ended[i];
    jw_key(w, "invocations");
    jw_object(w);
    jw_kint(w, "total", total);
    for (int i = 0; i < USAGE_STATES; i++)
        jw_kint(w, inv_state_name((enum inv_state)(INV_SUCCEEDED + i)), s->ended[i]);
    jw_object_end(w);
    jw_kint(w, "attempts", s->attempts);
    jw_kint(w, "sandbox_ms", s->sandbox_ms);
    jw_kint(w, "run_ms", s->run_ms);
    jw_kint(w, "cpu_ms", s->cpu_ms);
    jw_key(w, "input_tokens");
    jw_raw(w, s->input_tokens);
    jw_key(w, "output_tokens");
    jw_raw(w, s->output_tokens);
    jw_key(w, "cost_usd");
    jw_raw(w, s->cost_usd);
}

static void write_name(struct json_writer *w, const char *prefix, struct uuid id, struct str name)
{
    jw_object(w);
    jw_kid(w, "id", prefix, id);
    jw_key(w, "name");
    if (name.n > 0)
        jw_str(w, name);
    else
        jw_null(w);
    jw_object_end(w);
}

static void write_group(const void *rows, size_t i, struct json_writer *w)
{
    const struct usage_call *u = rows;
    const struct usage_group *g = &u->answer->groups[i];
    jw_object(w);
    if (u->q.by_day) {
        jw_key(w, "day");
        write_day(w, g->place.day);
    }
    if (u->q.by_agent) {
        jw_key(w, "agent");
        write_name(w, "agt", g->place.agent, g->agent);
    }
    if (u->q.by_key) {
        jw_key(w, "key");
        write_name(w, "key", g->place.key, g->key);
    }
    write_sums(w, &g->sums);
    jw_object_end(w);
}

static void write_head(const void *rows, struct json_writer *w)
{
    const struct usage_call *u = rows;
    jw_key(w, "from");
    write_day(w, u->q.from);
    jw_key(w, "to");
    write_day(w, u->q.to);
    jw_key(w, "totals");
    jw_object(w);
    write_sums(w, &u->answer->totals);
    jw_object_end(w);
}

static struct str place_of(const void *rows, size_t i)
{
    struct usage_call *u = (struct usage_call *)(uintptr_t)rows; /* `last` is where the text stays */
    u->last = (struct position){.from = u->q.from, .to = u->q.to, .place = u->answer->groups[i].place};
    return str_make((const char *)&u->last, sizeof u->last);
}

static void answer(struct usage_call *u, const struct usage_answer *a)
{
    const struct page_rows rows = {
        .rows = u, .n = a->n, .head = write_head, .write = write_group, .place = place_of};
    u->answer = a;
    if (!a->agent_found)
        call_fail_code(u->c, ERR_AGENT_NOT_FOUND, NULL);
    else if (!a->key_found)
        call_fail_code(u->c, ERR_NOT_FOUND, "there is no API key of that id");
    else
        page_reply(u->c, &u->page, "data", &rows, ANSWER_MAX);
}

static void on_sums(void *arg, const struct usage_answer *a, const struct err *err)
{
    struct usage_call *u = arg;
    struct call *c = u->c;
    if (call_leave(c)) {
        bool late = err != NULL && (err->code == ERR_TIMEOUT || err->code == ERR_OUTCOME_UNKNOWN ||
                                    (err->code == ERR_PG && strcmp(pg_sqlstate(c->g->lists), "57014") == 0));
        if (late)
            call_fail_code(c, ERR_UNAVAILABLE, "adding it up took too long; ask for fewer days");
        else if (err != NULL)
            call_fail(c, err);
        else
            answer(u, a);
    }
    free(u);
}

void usage_call(struct call *c)
{
    struct err err = ERR_INIT;
    struct usage_call *u = calloc(1, sizeof *u);
    if (u == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    u->c = c;
    u->q.tenant = c->tenant;
    if (take_days(c, &u->q, &err) == 0 && take_by(c, &u->q, &err) == 0 && take_filters(c, &u->q, &err) == 0 &&
        take_scope(u, &err) == 0 && take_page(u, &err) == 0) {
        u->q.limit = u->page.limit + 1;
        call_enter(c);
        if (usage_get(c->g->lists, &u->q, STEP_MS, on_sums, u, &err) == 0)
            return;
        if (!call_leave(c)) {
            free(u);
            return;
        }
    }
    free(u);
    call_fail(c, &err);
}
