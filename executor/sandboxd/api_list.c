/* GET /sandboxes: E2B's filters and pages. */
#include <stdio.h>
#include <stdlib.h>

#include "control.h"
#include "filter.h"

enum { PAGE_MAX = 100 };

struct listing {
    struct pairs filter;
    bool running, ascending, paged;
    int64_t limit;
    struct str after; /* the id of the last one of the page before; empty: from the start */
    struct str template;
    wall_t started_after;
};

static bool state_wanted(struct str states)
{
    struct str state;
    if (states.n == 0)
        return true;
    while (str_split(&states, ',', &state))
        if (str_eq_c(state, "running"))
            return true;
    return false;
}

static bool read_listing(struct http_request *r, struct listing *l, struct err *err)
{
    struct str text;
    uint64_t limit;
    l->limit = PAGE_MAX;
    l->running = true;
    if (http_query_get(r, "state", &text, err) == 1)
        l->running = state_wanted(text);
    if (http_query_get(r, "order", &text, err) == 1)
        l->ascending = str_eq_c(text, "asc");
    if (http_query_get(r, "template", &text, err) == 1)
        l->template = text;
    if (http_query_get(r, "nextToken", &text, err) == 1)
        l->after = text;
    if (http_query_get(r, "limit", &text, err) == 1) {
        if (!str_to_u64(text, &limit) || limit < 1 || limit > PAGE_MAX)
            return err_set(err, ERR_BAD_QUERY, "limit: 1 to %d is expected", PAGE_MAX) == 0;
        l->limit = (int64_t)limit;
    }
    if (http_query_get(r, "startedAfter", &text, err) == 1 && !wall_parse(text, &l->started_after))
        return err_set(err, ERR_BAD_QUERY, "startedAfter: an RFC 3339 time is expected") == 0;
    if (http_query_get(r, "metadata", &text, err) == 1)
        return filter_parse(text, &l->filter, err);
    return err->code == ERR_NONE;
}

static bool wanted(const struct listing *l, const struct sandbox *s)
{
    const struct sandbox_spec *spec = sandbox_spec_of(s);
    return l->running && (l->template.n == 0 || str_eq_c(l->template, spec->template_id)) &&
           sandbox_started_at(s).us > l->started_after.us && filter_match(&l->filter, &spec->metadata);
}

/* The running sandboxes, as an array (the caller frees it). */
static struct sandbox **collect(struct api *a, int *count)
{
    struct sandbox **all = calloc((size_t)host_running(a->host) + 1, sizeof(struct sandbox *));
    *count = 0;
    for (struct sandbox *s = host_next(a->host, NULL); s != NULL && all != NULL; s = host_next(a->host, s))
        all[(*count)++] = s;
    return all;
}

/* The cursor is opaque to clients: "<position in time>.<id>", so that a page can follow one whose last has
 * died. */
static bool past_cursor(const struct listing *l, const struct sandbox *s)
{
    struct str rest = l->after, time;
    int64_t us;
    if (l->after.n == 0)
        return true;
    if (!str_split(&rest, '.', &time) || !str_to_i64(time, &us))
        return false;
    int64_t own = sandbox_started_at(s).us;
    if (own == us) {
        int order = strcmp(sandbox_id(s), rest.n > 0 ? rest.p : "");
        return l->ascending ? order > 0 : order < 0;
    }
    return l->ascending ? own > us : own < us;
}

static int by_age(const void *x, const void *y)
{
    const struct sandbox *a = *(struct sandbox *const *)x, *b = *(struct sandbox *const *)y;
    int64_t d = sandbox_started_at(a).us - sandbox_started_at(b).us;
    return d != 0 ? (d < 0 ? -1 : 1) : strcmp(sandbox_id(a), sandbox_id(b));
}

static void write_listing(struct api *a, struct http_request *r, const struct listing *l)
{
    int count, given = 0;
    struct sandbox **all = collect(a, &count);
    const struct sandbox *last = NULL;
    struct buf body;
    char token[64];
    if (all != NULL)
        qsort(all, (size_t)count, sizeof(struct sandbox *), by_age);
    buf_init(&body, API_MAX_ANSWER);
    struct json_writer w = json_writer(&body);
    jw_array(&w);
    for (int i = 0; i < count; i++) {
        const struct sandbox *s = all[l->ascending ? i : count - 1 - i];
        if (!wanted(l, s) || !past_cursor(l, s))
            continue;
        if (l->paged && given == l->limit) {
            snprintf(token, sizeof token, "%lld.%s", (long long)sandbox_started_at(last).us,
                     sandbox_id(last));
            http_set_header(r, "X-Next-Token", str_of(token));
            break;
        }
        control_put_listed(&w, a, s);
        jw_object_end(&w);
        last = s;
        given++;
    }
    jw_array_end(&w);
    free(all);
    http_set_header_int(r, "X-Total-Running", count);
    api_json(r, 200, &body);
}

void control_list(struct api *a, struct http_request *r, int version)
{
    struct listing l = {.paged = version >= 2};
    struct err err = ERR_INIT;
    if (read_listing(r, &l, &err))
        write_listing(a, r, &l);
    else
        api_error(r, 400, "%s", err.msg);
    pairs_free(&l.filter);
}
