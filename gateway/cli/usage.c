/* usage: sums by day, agent and key (walk.h). For people in units that are read at a glance, and only the
 * ends that there were; exact with --csv and --json. */
#include <stdio.h>
#include <string.h>

#include "walk.h"

enum { PAGE = 1000, DAY_BYTES = 10, CELL_BYTES = 48, STATES = 6 };

static const char *const states[STATES] = {"succeeded", "failed",  "timed_out",
                                           "canceled",  "expired", "error"};

struct usage {
    const char *since, *from, *to, *by, *agent, *key;
    bool csv;
    bool day, by_agent, by_key; /* groups have it */
    int agent_width, key_width;
    bool shown[STATES];
};

/* ---- units ---- */

static void put_scaled(char out[CELL_BYTES], double v, const char *unit)
{
    snprintf(out, CELL_BYTES, v < 9.95 ? "%.1f %s" : "%.0f %s", v, unit);
}

static void put_time(char out[CELL_BYTES], double ms)
{
    if (ms < 1000)
        snprintf(out, CELL_BYTES, "%.0f ms", ms);
    else if (ms < 60e3)
        put_scaled(out, ms / 1e3, "s");
    else if (ms < 3600e3)
        put_scaled(out, ms / 60e3, "min");
    else
        put_scaled(out, ms / 3600e3, "h");
}

static void put_count(char out[CELL_BYTES], double n)
{
    if (n < 10e3)
        snprintf(out, CELL_BYTES, "%.0f", n);
    else if (n < 999.5e3)
        put_scaled(out, n / 1e3, "k");
    else if (n < 999.5e6)
        put_scaled(out, n / 1e6, "M");
    else
        put_scaled(out, n / 1e9, "G");
}

static void put_cost(char out[CELL_BYTES], double usd)
{
    if (usd == 0)
        snprintf(out, CELL_BYTES, "-");
    else if (usd < 0.0001)
        snprintf(out, CELL_BYTES, "<$0.0001");
    else
        snprintf(out, CELL_BYTES, usd < 0.01 ? "$%.4f" : "$%.2f", usd);
}

static double number(const struct json_value *sums, const char *key)
{
    double v = 0;
    json_double(json_get(sums, key), &v);
    return v;
}

/* ---- the table ---- */

static struct str name_of(const struct json_value *group, const char *what)
{
    const struct json_value *v = json_get(group, what);
    struct str name = reply_str(v, "name");
    return name.n > 0 ? name : reply_str(v, "id");
}

static void print_names(const struct usage *u, struct str day, struct str agent, struct str key)
{
    if (u->day)
        printf("%-*.*s  ", DAY_BYTES, STR_ARG(day));
    if (u->by_agent)
        printf("%-*.*s  ", u->agent_width, STR_ARG(agent));
    if (u->by_key)
        printf("%-*.*s  ", u->key_width, STR_ARG(key));
}

static void print_head(const struct usage *u)
{
    print_names(u, STR("DAY"), STR("AGENT"), STR("KEY"));
    printf("%11s", "INVOCATIONS");
    for (int i = 0; i < STATES; i++)
        if (u->shown[i]) {
            char upper[CELL_BYTES];
            size_t n = 0;
            for (; states[i][n] != '\0'; n++)
                upper[n] = (char)(states[i][n] == '_' ? ' ' : states[i][n] - 'a' + 'A');
            upper[n] = '\0';
            printf("  %9s", upper);
        }
    printf("  %8s  %8s  %8s  %9s  %10s  %8s\n", "ATTEMPTS", "SANDBOX", "CPU", "TOKENS IN", "TOKENS OUT",
           "COST");
}

static void print_sums(const struct usage *u, const struct json_value *sums)
{
    char cell[CELL_BYTES];
    const struct json_value *ended = json_get(sums, "invocations");
    put_count(cell, number(ended, "total"));
    printf("%11s", cell);
    for (int i = 0; i < STATES; i++)
        if (u->shown[i]) {
            put_count(cell, number(ended, states[i]));
            printf("  %9s", cell);
        }
    put_count(cell, number(sums, "attempts"));
    printf("  %8s", cell);
    put_time(cell, number(sums, "sandbox_ms"));
    printf("  %8s", cell);
    put_time(cell, number(sums, "cpu_ms"));
    printf("  %8s", cell);
    put_count(cell, number(sums, "input_tokens"));
    printf("  %9s", cell);
    put_count(cell, number(sums, "output_tokens"));
    printf("  %10s", cell);
    put_cost(cell, number(sums, "cost_usd"));
    printf("  %8s\n", cell);
}

static int widest(const struct json_value *groups, const char *what)
{
    int width = (int)strlen("TOTAL") + 1;
    for (const struct json_value *g = json_first(groups); g != NULL; g = json_next(g)) {
        int n = (int)name_of(g, what).n;
        width = n > width ? n : width;
    }
    return width;
}

static void begin_table(struct usage *u, const struct json_value *totals, const struct json_value *groups)
{
    const struct json_value *ended = json_get(totals, "invocations");
    for (int i = 0; i < STATES; i++)
        u->shown[i] = number(ended, states[i]) > 0;
    u->agent_width = widest(groups, "agent");
    u->key_width = widest(groups, "key");
    print_head(u);
}

static void take_table(struct walk *w, const struct reply *r, const struct json_value *groups)
{
    struct usage *u = w->arg;
    const struct json_value *root = json_root(r->doc), *totals = json_get(root, "totals");
    if (json_first(groups) == NULL)
        return;
    if (w->shown == 0)
        begin_table(u, totals, groups);
    for (const struct json_value *g = json_first(groups); g != NULL; g = json_next(g)) {
        print_names(u, reply_str(g, "day"), name_of(g, "agent"), name_of(g, "key"));
        print_sums(u, g);
    }
    if (reply_str(root, "next_cursor").n > 0)
        return;
    if (u->day)
        print_names(u, STR("TOTAL"), STR(""), STR(""));
    else
        print_names(u, STR(""), STR("TOTAL"), STR("TOTAL"));
    print_sums(u, totals);
}

/* ---- comma-separated ---- */

/* RFC 4180: quoted where a comma, a quote or a line end asks for it. */
static void print_field(struct str s)
{
    bool quoted = false;
    for (size_t i = 0; i < s.n; i++)
        quoted = quoted || s.p[i] == ',' || s.p[i] == '"' || s.p[i] == '\n' || s.p[i] == '\r';
    if (quoted)
        putchar('"');
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '"')
            putchar('"');
        putchar(s.p[i]);
    }
    if (quoted)
        putchar('"');
    putchar(',');
}

static void print_decimal(double v)
{
    char text[CELL_BYTES];
    int n = snprintf(text, sizeof text, "%.12f", v);
    while (n > 1 && text[n - 1] == '0')
        n--;
    if (text[n - 1] == '.')
        n--;
    printf("%.*s\n", n, text);
}

static void take_csv(struct walk *w, const struct reply *r, const struct json_value *groups)
{
    (void)r;
    static const char *const counts[] = {"attempts", "sandbox_ms",   "run_ms",
                                         "cpu_ms",   "input_tokens", "output_tokens"};
    const struct usage *u = w->arg;
    if (w->shown == 0)
        printf("%s%s%sinvocations,succeeded,failed,timed_out,canceled,expired,error,attempts,sandbox_ms,"
               "run_ms,cpu_ms,input_tokens,output_tokens,cost_usd\n",
               u->day ? "day," : "", u->by_agent ? "agent_id,agent," : "", u->by_key ? "key_id,key," : "");
    for (const struct json_value *g = json_first(groups); g != NULL; g = json_next(g)) {
        const struct json_value *ended = json_get(g, "invocations");
        if (u->day)
            print_field(reply_str(g, "day"));
        for (int i = 0; i < 2; i++) {
            const struct json_value *named = json_get(g, i == 0 ? "agent" : "key");
            if (named != NULL) {
                print_field(reply_str(named, "id"));
                print_field(reply_str(named, "name"));
            }
        }
        printf("%.0f,", number(ended, "total"));
        for (int i = 0; i < STATES; i++)
            printf("%.0f,", number(ended, states[i]));
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
            printf("%.0f,", number(g, counts[i]));
        print_decimal(number(g, "cost_usd"));
    }
}

/* ---- the command ---- */

static bool groups_by(const struct usage *u, const char *what)
{
    struct str by = str_of(u->by), name = STR("");
    while (str_split(&by, ',', &name))
        if (str_eq_c(name, what))
            return true;
    return false;
}

static int put_filters(const struct usage *u, struct buf *path)
{
    char when[CLI_WHEN_BYTES];
    if (u->since != NULL && (u->from != NULL || u->to != NULL))
        return cli_error("give --since, or --from and --to, not both");
    if (u->since != NULL && !cli_when(u->since, when))
        return cli_error(
            "--since needs a span as in 7d, 2w, or a time as in 2026-11-21T07:30:00Z, not \"%s\"", u->since);
    if (u->since != NULL)
        walk_parameter(path, "from", str_make(when, DAY_BYTES));
    if (u->from != NULL)
        walk_parameter(path, "from", str_of(u->from));
    if (u->to != NULL)
        walk_parameter(path, "to", str_of(u->to));
    if (u->agent != NULL)
        walk_parameter(path, "agent", str_of(u->agent));
    if (u->key != NULL)
        walk_parameter(path, "key", str_of(u->key));
    buf_printf(path, "by=");
    for (const char *p = u->by; *p != '\0'; p++) /* commas stay legible, as the API has them */
        if (*p == ',')
            buf_byte(path, ',');
        else
            walk_escaped(path, str_make(p, 1));
    buf_byte(path, '&');
    return path->failed ? cli_error("the filters are too long") : 0;
}

int command_usage(struct cli *cli, int argc, char **argv)
{
    struct usage u = {.by = "day"};
    const struct cli_option options[] = {
        {"since", CLI_TEXT, &u.since, "T", "from the day of this moment on: 7d, 2w, or an RFC 3339 time"},
        {"from", CLI_TEXT, &u.from, "DAY",
         "the first day, as in 2026-11-01 (default: 29 days before the last)"},
        {"to", CLI_TEXT, &u.to, "DAY", "the last day (default: today)"},
        {"by", CLI_TEXT, &u.by, "WHAT", "day, agent, key, or several: day,agent (default day)"},
        {"agent", CLI_TEXT, &u.agent, "NAME", "of this agent"},
        {"key", CLI_TEXT, &u.key, "ID", "of this API key, by its id: key_..."},
        {"csv", CLI_FLAG, &u.csv, NULL, "comma-separated, exact numbers"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {
        "usage",
        "Adds up what ran: invocations by how they ended, attempts, time of sandboxes, and the tokens and\n"
        "cost that programs told. Days are UTC's; an attempt counts for the day on which it ended.\n"
        "--json prints one sum a line, with exact numbers.",
        options, 0, 0};
    struct walk w = {.cli = cli, .member = "data", .page = PAGE, .left = -1, .take = take_table, .arg = &u};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    if (u.csv && cli->json)
        return cli_error("give --csv or --json, not both");
    if (u.csv)
        w.take = take_csv;
    u.day = groups_by(&u, "day");
    u.by_agent = groups_by(&u, "agent");
    u.by_key = groups_by(&u, "key");
    if (u.since != NULL)
        w.hint = "--since is the day from.";
    walk_begin(&w, "/v1/usage?");
    status = put_filters(&u, &w.path);
    if (status == STATUS_OK)
        status = walk_pages(&w);
    if (status == STATUS_OK && w.shown == 0 && !cli->json && !u.csv)
        cli_error("nothing ran in those days");
    buf_deinit(&w.path);
    return status;
}
