/* ls: the list of invocations (walk.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "walk.h"

enum {
    INVOCATIONS_PAGE = 200,
    SHOWN_DEFAULT = 50,
    NAME_WIDTH = 12,
    SHORT_TEXT_BYTES = 24,
};

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

static int put_filters(const struct ls *ls, struct buf *path)
{
    if (ls->status != NULL)
        walk_parameter(path, "status", str_of(ls->status));
    if (ls->agent != NULL)
        walk_parameter(path, "agent", str_of(ls->agent));
    if (ls->since != NULL && walk_when(path, "created_after", "--since", ls->since) != 0)
        return STATUS_USAGE;
    if (ls->until != NULL && walk_when(path, "created_before", "--until", ls->until) != 0)
        return STATUS_USAGE;
    for (int i = 0; i < ls->metadata.count; i++) {
        struct str value = str_of(ls->metadata.items[i]), key;
        str_split(&value, '=', &key);
        if (key.n == 0 || value.p == NULL)
            return cli_error("--metadata needs key=value, not \"%s\"", ls->metadata.items[i]);
        buf_cstr_append(path, "metadata.");
        walk_escaped(path, key);
        walk_parameter(path, "", value);
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
    walk_begin(&w, "/v1/invocations?");
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
