/* Schedules.
 *
 *   POST: body -> a submission's fields, and cron, time zone, name -> what the wall shows there now
 * (PostgreSQL) -> the first minute that fits -> the row
 *
 * The agent need not be ready, or be there, until it fires: then the schedule says why it made nothing. */
#include "schedules.h"

#include <ctype.h>
#include <stdlib.h>

#include "json/json.h"
#include "json/writer.h"
#include "model/agent.h"
#include "model/cron.h"
#include "page.h"
#include "store/schedules.h"
#include "submission.h"

enum { STORE_MS = 5000, LIST_MAX = 200, BODY_MAX = 256 * 1024, ANSWER_MAX = 32 * 1024 * 1024 };
#define LIST_SCOPE STR("schedules")

/* ---- JSON ---- */

static void write_limits(struct json_writer *w, const struct schedule *s)
{
    jw_kcstr(w, "priority", inv_priority_name(s->priority));
    jw_key(w, "timeout_s");
    if (s->timeout_ms > 0)
        jw_int(w, s->timeout_ms / 1000);
    else
        jw_null(w);
    jw_kint(w, "queue_timeout_s", s->queue_timeout_ms / 1000);
    jw_key(w, "retry");
    if (s->max_attempts == 0) { /* the agent's */
        jw_null(w);
        return;
    }
    jw_object(w);
    jw_kint(w, "max_attempts", s->max_attempts);
    jw_key(w, "on");
    jw_array(w);
    if ((s->retry_on & INV_RETRY_FAILED) != 0)
        jw_cstr(w, inv_state_name(INV_FAILED));
    if ((s->retry_on & INV_RETRY_TIMED_OUT) != 0)
        jw_cstr(w, inv_state_name(INV_TIMED_OUT));
    jw_array_end(w);
    jw_object_end(w);
}

static void write_times(struct json_writer *w, const struct schedule *s)
{
    jw_ktime(w, "next_at", s->enabled ? s->next_at : (wall_t){0});
    jw_ktime(w, "last_at", s->last_at);
    jw_key(w, "last_invocation");
    if (uuid_is_zero(s->last_invocation))
        jw_null(w);
    else
        jw_id(w, "inv", s->last_invocation);
    jw_key(w, "last_error");
    if (s->last_error.n == 0)
        jw_null(w);
    else
        jw_str(w, s->last_error);
    jw_ktime(w, "created_at", s->created_at);
}

static void write_schedule(struct json_writer *w, const struct schedule *s, bool whole)
{
    jw_object(w);
    jw_kid(w, "id", "sch", s->id);
    jw_kstr(w, "name", s->name);
    jw_kstr(w, "cron", s->cron);
    jw_kstr(w, "time_zone", s->time_zone);
    jw_kbool(w, "enabled", s->enabled);
    jw_kstr(w, "agent", s->agent);
    jw_key(w, "version");
    if (s->version > 0)
        jw_int(w, s->version);
    else
        jw_null(w);
    write_limits(w, s);
    jw_key(w, "metadata");
    jw_raw(w, s->metadata.n > 0 ? s->metadata : STR("{}"));
    if (whole)
        jw_kstr(w, "prompt", s->prompt);
    write_times(w, s);
    jw_object_end(w);
}

static void answer_one(struct call *c, int status, const struct schedule *s)
{
    struct buf body;
    buf_init(&body, ANSWER_MAX);
    struct json_writer w = json_writer(&body);
    write_schedule(&w, s, true);
    call_reply_json(c, status, &body);
}

/* ---- POST ---- */

struct create {
    struct call *c;
    struct http_body *body;
    struct json *doc;
    struct schedule row;
    struct cron cron;
};

static const char *const own_fields[] = {"name", "cron", "time_zone", NULL};

static void create_free(void *data)
{
    struct create *r = data;
    json_free(&r->doc);
    http_body_free(&r->body);
    free(r);
}

static int read_text(const struct json_value *root, const char *name, bool required, struct str *out,
                     struct err *err)
{
    const struct json_value *v = json_get(root, name);
    if (v == NULL && required)
        return err_set(err, ERR_MISSING_FIELD, "%s is required", name);
    if (v != NULL && !json_str(v, out))
        return err_set(err, ERR_BAD_FIELD, "%s must be a string", name);
    return 0;
}

/* Names as the IANA's data base has them. PostgreSQL would read "FOO3" as a zone of its own making, too. */
static bool zone_plausible(struct str zone)
{
    bool slash = false;
    if (zone.n == 0 || zone.n > TIME_ZONE_MAX || !isalpha((unsigned char)zone.p[0]))
        return false;
    for (size_t i = 0; i < zone.n; i++) {
        unsigned char ch = (unsigned char)zone.p[i];
        slash = slash || ch == '/';
        if (!isalpha(ch) && ch != '/' && ch != '_' && !(slash && (isdigit(ch) || ch == '+' || ch == '-')))
            return false;
    }
    return true;
}

static int read_own(struct create *r, struct err *err)
{
    const struct json_value *root = json_root(r->doc);
    r->row.time_zone = STR("UTC");
    if (read_text(root, "name", true, &r->row.name, err) != 0 ||
        read_text(root, "cron", true, &r->row.cron, err) != 0 ||
        read_text(root, "time_zone", false, &r->row.time_zone, err) != 0)
        return -1;
    if (!agent_slug_valid(r->row.name))
        return err_set(err, ERR_BAD_FIELD, "name must be up to 63 lower-case letters, digits and hyphens");
    if (!zone_plausible(r->row.time_zone))
        return err_set(err, ERR_BAD_FIELD, "time_zone must be a name such as Europe/Berlin or UTC");
    return cron_parse(r->row.cron, &r->cron, err);
}

/* What a submission may have and a schedule may not. */
static int check_fields(const struct json_value *root, struct err *err)
{
    static const char *const others[] = {"webhook", "not_before", "env", "files"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (json_get(root, others[i]) != NULL)
            return err_set(err, ERR_UNSUPPORTED, "a schedule cannot have \"%s\"", others[i]);
    return 0;
}

static int read_row(struct create *r, struct err *err)
{
    struct submission sub = {0};
    struct submission_agent agent = {0};
    if (check_fields(json_root(r->doc), err) != 0 ||
        submission_read(r->doc, own_fields, &sub, &agent, err) != 0 || read_own(r, err) != 0)
        return -1;
    if (sub.prompt.n > INV_INLINE_BYTES)
        return err_set(err, ERR_PROMPT_TOO_LARGE, "a schedule's prompt may have %d bytes", INV_INLINE_BYTES);
    struct schedule *s = &r->row;
    s->id = uuid_new();
    s->tenant = r->c->tenant;
    s->api_key = r->c->api_key;
    s->enabled = true;
    s->agent = agent.slug;
    s->version = agent.version;
    s->priority = sub.priority;
    s->timeout_ms = sub.timeout_ms;
    s->queue_timeout_ms = sub.queue_timeout_ms;
    s->max_attempts = sub.max_attempts;
    s->retry_on = sub.retry_on;
    s->prompt = sub.prompt;
    s->metadata = sub.metadata;
    s->created_at = wall_now();
    return 0;
}

static void on_put(void *arg, enum schedule_put what, wall_t next_at, const struct err *err)
{
    struct create *r = arg;
    struct call *c = r->c;
    if (!call_leave(c))
        return;
    if (err != NULL) {
        call_fail(c, err);
        return;
    }
    switch (what) {
    case SCHEDULE_MADE:
        r->row.next_at = next_at;
        answer_one(c, 201, &r->row);
        return;
    case SCHEDULE_NAME_TAKEN:
        call_fail_code(c, ERR_CONFLICT,
                       "there is a schedule of that name; delete it first, or choose another");
        return;
    case SCHEDULE_TOO_MANY:
        break;
    }
    call_fail_code(c, ERR_CONFLICT, "there are 1,000 schedules already; delete one that is not needed");
}

static void on_clock(void *arg, struct cron_minute now, const struct err *err)
{
    struct create *r = arg;
    struct call *c = r->c;
    struct err bad;
    struct cron_minute next = {0};
    if (!call_leave(c))
        return;
    if (err != NULL && err->code == ERR_PG_DATA) {
        call_fail_code(c, ERR_BAD_FIELD,
                       "time_zone: there is none of that name; they look like Europe/Berlin or UTC");
        return;
    }
    if (err != NULL) {
        call_fail_query(c, err);
        return;
    }
    cron_next(&r->cron, now, &next);
    call_enter(c);
    if (schedule_put(c->g->files, &r->row, next, cron_every_hour(&r->cron), STORE_MS, on_put, r, &bad) == 0)
        return;
    if (call_leave(c))
        call_fail(c, &bad);
}

static void on_body(void *arg, struct http_request *req, struct str body)
{
    struct create *r = arg;
    struct call *c = r->c;
    struct err err = ERR_INIT;
    (void)body;
    r->body = http_body_take(req);
    if (r->body == NULL)
        err_set(&err, ERR_OVERLOADED, "no memory");
    else
        r->doc = json_parse(http_body_view(r->body), &err);
    if (r->doc == NULL || read_row(r, &err) != 0) {
        call_fail(c, &err);
        return;
    }
    call_enter(c);
    if (schedule_clock(c->g->read, r->row.time_zone, STORE_MS, on_clock, r, &err) == 0)
        return;
    if (call_leave(c))
        call_fail(c, &err);
}

void schedule_create(struct call *c)
{
    struct err err = ERR_INIT;
    struct create *r = calloc(1, sizeof *r);
    if (r == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    r->c = c;
    c->data = r;
    c->free_data = create_free;
    if (call_json_type(c, &err) != 0)
        call_fail(c, &err);
    else
        http_read_body(c->req, BODY_MAX, on_body, r);
}

/* ---- GET ---- */

struct reading {
    struct call *c;
    bool listed; /* else one schedule */
    struct page page;
};

static void write_row(const void *rows, size_t i, struct json_writer *w)
{
    const struct schedule *list = rows;
    write_schedule(w, &list[i], false);
}

static struct str place_of(const void *rows, size_t i)
{
    const struct schedule *list = rows;
    return list[i].name;
}

static void not_found(struct call *c)
{
    call_fail_code(c, ERR_NOT_FOUND, "there is no schedule of that name");
}

static void on_schedules(void *arg, const struct schedule *list, size_t n, const struct err *err)
{
    struct reading *g = arg;
    struct call *c = g->c;
    const struct page_rows rows = {.rows = list, .n = n, .write = write_row, .place = place_of};
    if (call_leave(c)) {
        if (err != NULL)
            call_fail_query(c, err);
        else if (g->listed)
            page_reply(c, &g->page, "data", &rows, ANSWER_MAX);
        else if (n == 0)
            not_found(c);
        else
            answer_one(c, 200, &list[0]);
    }
    free(g);
}

/* page NULL: the schedule of that name. */
static void ask(struct call *c, struct str name, const struct page *page)
{
    struct err err = ERR_INIT;
    struct reading *g = calloc(1, sizeof *g);
    if (g == NULL) {
        call_fail_code(c, ERR_OVERLOADED, NULL);
        return;
    }
    *g = (struct reading){.c = c, .listed = page != NULL};
    if (page != NULL)
        g->page = *page;
    call_enter(c);
    if (schedules_get(c->g->read, c->tenant, name, page_after(&g->page), g->page.limit + 1, STORE_MS,
                      on_schedules, g, &err) == 0)
        return;
    free(g);
    if (call_leave(c))
        call_fail(c, &err);
}

void schedule_show(struct call *c)
{
    if (agent_slug_valid(c->arg))
        ask(c, c->arg, NULL);
    else
        not_found(c);
}

void schedules_list(struct call *c)
{
    struct err err = ERR_INIT;
    struct page page;
    if (page_read(c, LIST_SCOPE, LIST_MAX, &page, &err) != 0)
        call_fail(c, &err);
    else
        ask(c, str_of(NULL), &page);
}

/* ---- changes ---- */

static void on_removed(void *arg, bool found, const struct err *err)
{
    struct call *c = arg;
    if (!call_leave(c))
        return;
    if (err != NULL)
        call_fail_query(c, err);
    else if (found)
        call_reply_bytes(c, 204, NULL, STR(""));
    else
        not_found(c);
}

static void on_switched(void *arg, bool found, const struct err *err)
{
    struct call *c = arg;
    if (!call_leave(c))
        return;
    if (err != NULL)
        call_fail_query(c, err);
    else if (found)
        ask(c, c->arg, NULL);
    else
        not_found(c);
}

static void change(struct call *c, bool enabled, bool remove)
{
    struct err err = ERR_INIT;
    if (!agent_slug_valid(c->arg)) {
        not_found(c);
        return;
    }
    call_enter(c);
    int sent = remove
                   ? schedule_delete(c->g->files, c->tenant, c->arg, STORE_MS, on_removed, c, &err)
                   : schedule_enable(c->g->files, c->tenant, c->arg, enabled, STORE_MS, on_switched, c, &err);
    if (sent != 0 && call_leave(c))
        call_fail(c, &err);
}

void schedule_remove(struct call *c)
{
    change(c, false, true);
}

void schedule_pause(struct call *c)
{
    change(c, false, false);
}

void schedule_resume(struct call *c)
{
    change(c, true, false);
}
