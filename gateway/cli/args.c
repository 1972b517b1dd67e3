/* Arguments: getopt_long, driven by one table a command that also makes its --help. */
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "json/writer.h"

enum { OPTIONS_MAX = 24, FIRST_CODE = 256 };

/* A table and the options that every command has. */
struct parser {
    struct cli_option rows[OPTIONS_MAX];
    struct option longs[OPTIONS_MAX + 1];
    int count;
    bool help;
};

int cli_error(const char *fmt, ...)
{
    va_list ap;
    fflush(stdout);
    fputs("sandpiper: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return STATUS_USAGE;
}

static void add(struct parser *p, struct cli_option row)
{
    INVARIANT(p->count < OPTIONS_MAX);
    p->longs[p->count] = (struct option){row.name, row.kind == CLI_FLAG ? no_argument : required_argument,
                                         NULL, FIRST_CODE + p->count};
    p->rows[p->count++] = row;
}

static void print_help(const struct parser *p, const struct cli_usage *u)
{
    printf("Usage: sandpiper %s\n%s\n\n", u->usage, u->about);
    for (int i = 0; i < p->count; i++) {
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", p->rows[i].name, p->rows[i].arg != NULL ? " " : "",
                 p->rows[i].arg != NULL ? p->rows[i].arg : "");
        printf("  %-24s %s\n", left, p->rows[i].help);
    }
}

static int take(const struct cli_option *row, const char *value)
{
    int64_t number;
    switch (row->kind) {
    case CLI_FLAG:
        *(bool *)row->to = true;
        return 0;
    case CLI_TEXT:
        *(const char **)row->to = value;
        return 0;
    case CLI_NUMBER:
        if (!str_to_i64(str_of(value), &number) || number < 0)
            return cli_error("--%s needs a whole number, not \"%s\"", row->name, value);
        *(int64_t *)row->to = number;
        return 0;
    case CLI_LIST: {
        struct cli_list *list = row->to;
        if (list->count == CLI_LIST_MAX)
            return cli_error("--%s is given more than %d times", row->name, CLI_LIST_MAX);
        list->items[list->count++] = value;
        return 0;
    }
    }
    return 0;
}

static int unknown_option(const struct parser *p, const char *command, const char *given)
{
    struct str name = str_of(given + strspn(given, "-")), before;
    unsigned least = 3;
    const char *best = NULL;
    str_split(&name, '=', &before);
    for (int i = 0; i < p->count; i++) {
        unsigned d = str_distance(before, str_of(p->rows[i].name));
        if (d < least) {
            least = d;
            best = p->rows[i].name;
        }
    }
    if (best != NULL)
        return cli_error("unknown option %s; did you mean --%s?", given, best);
    return cli_error("unknown option %s; see sandpiper %s --help", given, command);
}

/* -f stands for --follow and -o for --output, where there is one. */
static int take_short(struct parser *p, const char *command, bool follow, const char *value)
{
    for (int i = 0; i < p->count; i++)
        if (strcmp(p->rows[i].name, follow ? "follow" : "output") == 0)
            return take(&p->rows[i], value);
    return unknown_option(p, command, follow ? "-f" : "-o");
}

/* 0, or the exit status. */
static int parse_options(struct parser *p, int argc, char **argv)
{
    int code;
    optind = 0; /* GNU: start afresh */
    opterr = 0;
    while ((code = getopt_long(argc, argv, ":hfo:", p->longs, NULL)) != -1) {
        int status = 0;
        if (code == 'h')
            p->help = true;
        else if (code == 'f' || code == 'o')
            status = take_short(p, argv[0], code == 'f', optarg);
        else if (code == ':')
            status = cli_error("%s needs an argument", argv[optind - 1]);
        else if (code == '?')
            status = unknown_option(p, argv[0], argv[optind - 1]);
        else
            status = take(&p->rows[code - FIRST_CODE], optarg);
        if (status != 0)
            return status;
    }
    return 0;
}

bool cli_parse(struct cli *cli, const struct cli_usage *u, int argc, char **argv, int *first, int *status)
{
    struct parser p = {0};
    for (const struct cli_option *o = u->options; o != NULL && o->name != NULL; o++)
        add(&p, *o);
    add(&p, (struct cli_option){"json", CLI_FLAG, &cli->json, NULL, "print JSON, for scripts"});
    add(&p,
        (struct cli_option){"url", CLI_TEXT, &cli->url_option, "URL", "the gateway (also: SANDPIPER_URL)"});
    add(&p, (struct cli_option){"profile", CLI_TEXT, &cli->profile_option, "NAME",
                                "a gateway and key by name (also: SANDPIPER_PROFILE)"});
    add(&p, (struct cli_option){"help", CLI_FLAG, &p.help, NULL, "print this"});
    *status = parse_options(&p, argc, argv);
    if (*status != 0)
        return false;
    if (p.help) {
        print_help(&p, u);
        return false;
    }
    *first = optind;
    int given = argc - optind;
    if (given >= u->min_args && given <= u->max_args)
        return true;
    *status = cli_error("%s\nUsage: sandpiper %s",
                        given < u->min_args ? "too few arguments" : "too many arguments", u->usage);
    return false;
}

int cli_metadata(struct json_writer *w, const struct cli_list *pairs)
{
    jw_key(w, "metadata");
    jw_object(w);
    for (int i = 0; i < pairs->count; i++) {
        struct str value = str_of(pairs->items[i]), key;
        str_split(&value, '=', &key);
        if (key.n == 0 || value.p == NULL)
            return cli_error("--metadata needs key=value, not \"%s\"", pairs->items[i]);
        jw_key_str(w, key);
        jw_str(w, value);
    }
    jw_object_end(w);
    return 0;
}

/* "90s", "15m", "1h", "2d", "1w". */
static bool read_span(struct str s, int64_t *ms_out)
{
    static const struct {
        char unit;
        int64_t ms;
    } units[] = {{'s', 1000}, {'m', 60000}, {'h', 3600000}, {'d', 86400000}, {'w', 604800000}};
    uint64_t n;
    for (size_t i = 0; i < sizeof units / sizeof *units && s.n > 1; i++)
        if (s.p[s.n - 1] == units[i].unit && str_to_u64(str_make(s.p, s.n - 1), &n) && n < 100000) {
            *ms_out = (int64_t)n * units[i].ms;
            return true;
        }
    return false;
}

/* direction: -1 for spans that are over, 1 for those to come. */
static bool read_when(const char *text, int direction, char out[CLI_WHEN_BYTES])
{
    int64_t ms;
    wall_t t;
    if (!read_span(str_of(text), &ms))
        return wall_parse(str_of(text), &t) && str_copy(str_of(text), out, CLI_WHEN_BYTES);
    t.us = wall_now().us + direction * ms * 1000;
    wall_format(t, out);
    return true;
}

bool cli_when(const char *text, char out[CLI_WHEN_BYTES])
{
    return read_when(text, -1, out);
}

bool cli_when_ahead(const char *text, char out[CLI_WHEN_BYTES])
{
    return read_when(text, 1, out);
}
