/* ls, agents: lists, walked page by page. As a table, or with --json one record a line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

enum {
    PATH_MAX_BYTES = 12000, /* the gateway takes 16 KiB of request line and headers */
    INVOCATIONS_PAGE = 200,
    AGENTS_PAGE = 200,
    SHOWN_DEFAULT = 50,
    NAME_WIDTH = 12,
    SHORT_TEXT_BYTES = 24,
};

/* A walk over a list. take shows the records of a page; it is called for pages without any, too. */
struct walk {
    struct cli *cli;
    const char *member; /* of the answer: the array of records */
    struct buf path;    /* up to where cursor and limit are added to the query */
    int page;           /* records a page */
    int64_t left;       /* still to show; -1: all */
    int64_t shown;
    const char *hint; /* told with a query that was refused; may be NULL */
    bool more;        /* there were more than were asked for */
    void (*take)(struct walk *w, const struct reply *r, const struct json_value *records);
};

/* ---- pages ---- */

static void put_escaped(struct buf *out, struct str s)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~@:";
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] != '\0' && strchr(plain, s.p[i]) != NULL)
            buf_byte(out, s.p[i]);
        else
            buf_printf(out, "%%%02X", (unsigned char)s.p[i]);
}

static void put_parameter(struct buf *path, const char *name, struct str value)
{
    buf_printf(path, "%s=", name);
    put_escaped(path, value);
    buf_byte(path, '&');
}

/* The array's elements as they came, one a line. White space between tokens goes: a record's metadata is kept
 * as it was sent, line ends included. */
static void print_lines(struct str array)
{
    int depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < array.n; i++) {
        char c = array.p[i];
        if (!quoted && (c == ' ' || c == '\n' || c == '\r' || c == '\t'))
            continue;
        if (c == '"')
            quoted = !quoted;
        if (!quoted && (c == ']' || c == '}'))
            depth--;
        if (depth > 0 && (depth > 1 || c != ','))
            fputc(c, stdout);
        if (quoted && c == '\\' && i + 1 < array.n)
            fputc(array.p[++i], stdout);
        if (!quoted && depth == 1 && c == '}')
            fputc('\n', stdout);
        if (!quoted && (c == '[' || c == '{'))
            depth++;
    }
}

/* One page. *cursor is the next one's, empty at the end. */
static int take_page(struct walk *w, struct buf *cursor)
{
    struct buf path;
    struct reply r;
    int64_t limit = w->left < 0 || w->left > w->page ? w->page : w->left;
    buf_init(&path, PATH_MAX_BYTES);
    buf_str(&path, buf_view(&w->path));
    if (cursor->len > 0)
        put_parameter(&path, "cursor", buf_view(cursor));
    buf_printf(&path, "limit=%lld", (long long)limit);
    if (path.failed || buf_cstr(&path) == NULL) {
        buf_deinit(&path);
        return cli_error("the filters are too long");
    }
    const struct api_request q = {.method = "GET", .path = buf_cstr(&path), .retry = API_RETRY_BUSY};
    api_call(w->cli, &q, &r);
    buf_deinit(&path);
    cli_spin(w->cli, NULL);
    const struct json_value *records = json_get(json_root(r.doc), w->member);
    int status = reply_check(w->cli, &r, w->member);
    if (w->hint != NULL && r.kind == REPLY_PROBLEM && r.status == 400)
        fprintf(stderr, "%s\n", w->hint);
    buf_clear(cursor);
    if (status == STATUS_OK) {
        buf_str(cursor, reply_str(json_root(r.doc), "next_cursor"));
        if (w->cli->json)
            print_lines(json_member_source(r.doc, w->member));
        else
            w->take(w, &r, records);
        w->shown += (int64_t)json_count(records);
        if (w->left >= 0)
            w->left -= (int64_t)json_count(records);
    }
    reply_deinit(&r);
    return status;
}

static int walk_pages(struct walk *w)
{
    struct buf cursor;
    int status;
    buf_init(&cursor, PATH_MAX_BYTES);
    cli_catch_interrupt(w->cli);
    do {
        if (w->shown == 0)
            cli_spin(w->cli, "looking");
        status = take_page(w, &cursor);
    } while (status == STATUS_OK && cursor.len > 0 && w->left != 0 && ferror(stdout) == 0);
    w->more = status == STATUS_OK && cursor.len > 0;
    buf_deinit(&cursor);
    return status;
}

/* ---- ls ---- */

struct ls {
    const char *status, *agent, *since, *until;
    struct cli_list metadata;
    int64_t limit;
    bool all;
};

static void print_span(int64_t ms, char out[SHORT_TEXT_BYTES])
{
    static const struct {
        int64_t ms;
        const char *unit;
    } units[] = {{86400000, "d"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (ms >= 2 * units[i].ms || units[i].ms == 1000) {
            snprintf(out, SHORT_TEXT_BYTES, "%lld%s", (long long)(ms > 0 ? ms / units[i].ms : 0),
                     units[i].unit);
            return;
        }
}

static bool time_of(const struct json_value *record, const char *key, wall_t *out)
{
    return wall_parse(reply_str(record, key), out);
}

/* From the start to the end, or to now; "-" before the start. */
static void print_duration(const struct json_value *record, char out[SHORT_TEXT_BYTES])
{
    wall_t started, finished = wall_now();
    snprintf(out, SHORT_TEXT_BYTES, "-");
    if (!time_of(record, "started_at", &started))
        return;
    time_of(record, "finished_at", &finished);
    int64_t ms = (finished.us - started.us) / 1000;
    if (ms < 60000)
        snprintf(out, SHORT_TEXT_BYTES, "%.2fs", (double)(ms > 0 ? ms : 0) / 1000);
    else
        print_span(ms, out);
}

static void print_invocation(const struct reply *r, const struct json_value *record, int width)
{
    char agent[128], age[SHORT_TEXT_BYTES] = "-", duration[SHORT_TEXT_BYTES];
    wall_t created;
    bool stale = false;
    snprintf(agent, sizeof agent, "%.*s@%lld", STR_ARG(reply_str(record, "agent")),
             (long long)reply_int(r, record, "version"));
    if (time_of(record, "created_at", &created))
        print_span((wall_now().us - created.us) / 1000, age);
    print_duration(record, duration);
    json_bool(json_get(record, "status_stale"), &stale);
    char status[SHORT_TEXT_BYTES];
    snprintf(status, sizeof status, "%.*s%s", STR_ARG(reply_str(record, "status")), stale ? "?" : "");
    printf("%-40.*s  %-*s  %-10s %6s %9s %9lld\n", STR_ARG(reply_str(record, "id")), width, agent, status,
           age, duration, (long long)reply_int(r, record, "attempt"));
}

static int widest_agent(const struct reply *r, const struct json_value *records)
{
    int width = NAME_WIDTH;
    for (const struct json_value *v = json_first(records); v != NULL; v = json_next(v)) {
        int n = snprintf(NULL, 0, "%.*s@%lld", STR_ARG(reply_str(v, "agent")),
                         (long long)reply_int(r, v, "version"));
        width = n > width ? n : width;
    }
    return width;
}

static void print_invocations(struct walk *w, const struct reply *r, const struct json_value *records)
{
    int width = widest_agent(r, records);
    if (w->shown == 0 && json_first(records) != NULL)
        printf("%-40s  %-*s  %-10s %6s %9s %9s\n", "ID", width, "AGENT", "STATUS", "AGE", "DURATION",
               "ATTEMPTS");
    for (const struct json_value *v = json_first(records); v != NULL; v = json_next(v))
        print_invocation(r, v, width);
}

/* "90s", "15m", "1h", "2d", "1w" ago, or a time as it stands. False when it is neither. */
static bool put_time(struct buf *path, const char *name, const char *text)
{
    static const struct {
        char unit;
        int64_t ms;
    } units[] = {{'s', 1000}, {'m', 60000}, {'h', 3600000}, {'d', 86400000}, {'w', 604800000}};
    struct str s = str_of(text);
    char formatted[WALL_TEXT_BYTES];
    uint64_t n;
    wall_t t;
    for (size_t i = 0; i < sizeof units / sizeof *units && s.n > 1; i++)
        if (s.p[s.n - 1] == units[i].unit && str_to_u64(str_make(s.p, s.n - 1), &n) && n < 100000) {
            t.us = wall_now().us - (int64_t)n * units[i].ms * 1000;
            wall_format(t, formatted);
            put_parameter(path, name, str_of(formatted));
            return true;
        }
    if (!wall_parse(s, &t))
        return false;
    put_parameter(path, name, s);
    return true;
}

static int put_filters(const struct ls *ls, struct buf *path)
{
    if (ls->status != NULL)
        put_parameter(path, "status", str_of(ls->status));
    if (ls->agent != NULL)
        put_parameter(path, "agent", str_of(ls->agent));
    if (ls->since != NULL && !put_time(path, "created_after", ls->since))
        return cli_error(
            "--since needs a span as in 90s, 15m, 1h, 2d, or a time as in 2026-11-21T07:30:00Z, not "
            "\"%s\"",
            ls->since);
    if (ls->until != NULL && !put_time(path, "created_before", ls->until))
        return cli_error(
            "--until needs a span as in 90s, 15m, 1h, 2d, or a time as in 2026-11-21T07:30:00Z, not "
            "\"%s\"",
            ls->until);
    for (int i = 0; i < ls->metadata.count; i++) {
        struct str value = str_of(ls->metadata.items[i]), key;
        str_split(&value, '=', &key);
        if (key.n == 0 || value.p == NULL)
            return cli_error("--metadata needs key=value, not \"%s\"", ls->metadata.items[i]);
        buf_cstr_append(path, "metadata.");
        put_escaped(path, key);
        put_parameter(path, "", value);
    }
    return path->failed ? cli_error("the filters are too long") : 0;
}

static void tell_rest(const struct ls *ls, const struct walk *w)
{
    bool filtered = ls->status != NULL || ls->agent != NULL || ls->since != NULL || ls->until != NULL ||
                    ls->metadata.count > 0;
    if (w->shown == 0 && !filtered)
        cli_error("there are no invocations yet; 'sandpiper invoke AGENT' makes one");
    else if (w->shown == 0 && ls->metadata.count > 0 && ls->since == NULL)
        cli_error(
            "no invocation matches in the 24 hours that metadata is looked for; --since and --until choose "
            "others");
    else if (w->shown == 0)
        cli_error("no invocation matches");
    else if (w->more && isatty(STDOUT_FILENO) != 0)
        fprintf(stderr, "There are more: --limit N or --all shows them.\n");
}

static int list_invocations(struct cli *cli, const struct ls *ls)
{
    struct walk w = {.cli = cli,
                     .member = "data",
                     .page = INVOCATIONS_PAGE,
                     .left = ls->all         ? -1
                             : ls->limit > 0 ? ls->limit
                                             : SHOWN_DEFAULT,
                     .take = print_invocations};
    if (ls->since != NULL || ls->until != NULL || ls->metadata.count > 0)
        w.hint = "--since is created_after, --until is created_before.";
    buf_init(&w.path, PATH_MAX_BYTES);
    buf_cstr_append(&w.path, "/v1/invocations?");
    int status = put_filters(ls, &w.path);
    if (status == STATUS_OK)
        status = walk_pages(&w);
    if (status == STATUS_OK && !cli->json)
        tell_rest(ls, &w);
    buf_deinit(&w.path);
    return status;
}

int command_ls(struct cli *cli, int argc, char **argv)
{
    struct ls ls = {.limit = -1};
    const struct cli_option options[] = {
        {"status", CLI_TEXT, &ls.status, "S",
         "open, succeeded, failed, timed_out, canceled, expired or error"},
        {"agent", CLI_TEXT, &ls.agent, "A", "of this agent: NAME or NAME@VERSION"},
        {"since", CLI_TEXT, &ls.since, "T", "not older than this: 90s, 15m, 1h, 2d, or an RFC 3339 time"},
        {"until", CLI_TEXT, &ls.until, "T", "older than this"},
        {"metadata", CLI_LIST, &ls.metadata, "KEY=VALUE",
         "with this in their metadata; may be repeated; within 24 hours"},
        {"limit", CLI_NUMBER, &ls.limit, "N", "at most so many (default 50)"},
        {"all", CLI_FLAG, &ls.all, NULL, "all of them"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {"ls",
                                    "Lists invocations, newest first. --json prints one record a line.\n"
                                    "A status that ends in ? may be old: Redis could not be asked.",
                                    options, 0, 0};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    if (ls.limit == 0)
        return cli_error("--limit needs a number from 1 up; --all is for all");
    if (ls.limit > 0 && ls.all)
        return cli_error("give --limit or --all, not both");
    return list_invocations(cli, &ls);
}

/* ---- agents ---- */

static void print_agents(struct walk *w, const struct reply *r, const struct json_value *records)
{
    if (w->shown == 0 && json_first(records) != NULL)
        printf("%-32s %-9s %-8s %s\n", "NAME", "STATUS", "VERSION", "LATEST BUILD");
    for (const struct json_value *a = json_first(records); a != NULL; a = json_next(a)) {
        const struct json_value *build = json_get(a, "latest_build");
        struct str name = reply_str(a, "name"), state = reply_str(a, "status"),
                   built = reply_str(build, "status"), created = reply_str(build, "created_at");
        int64_t version = reply_int(r, a, "version");
        char serving[SHORT_TEXT_BYTES] = "-";
        if (version >= 0)
            snprintf(serving, sizeof serving, "%lld", (long long)version);
        printf("%-32.*s %-9.*s %-8s %lld %.*s, %.*s\n", STR_ARG(name), STR_ARG(state), serving,
               (long long)reply_int(r, build, "version"), STR_ARG(built), STR_ARG(created));
    }
}

int command_agents(struct cli *cli, int argc, char **argv)
{
    static const struct cli_usage usage = {
        "agents",
        "Lists the agents: the version that serves, and the newest build.\n"
        "--json prints one agent a line.",
        NULL, 0, 0};
    struct walk w = {.cli = cli, .member = "agents", .page = AGENTS_PAGE, .left = -1, .take = print_agents};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    buf_init(&w.path, PATH_MAX_BYTES);
    buf_cstr_append(&w.path, "/v1/agents?");
    status = walk_pages(&w);
    if (status == STATUS_OK && w.shown == 0 && !cli->json)
        cli_error("there are no agents yet; 'sandpiper deploy DIR' makes one");
    buf_deinit(&w.path);
    return status;
}
