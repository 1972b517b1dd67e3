/* schedules: recurring invocations. */
#include <stdio.h>
#include <string.h>

#include "json/writer.h"
#include "walk.h"

enum { PATH_BYTES = 160, BODY_BYTES = 256 * 1024, PAGE = 200 };

struct schedules {
    struct cli *cli;
    const char *cron, *zone, *priority;
    int64_t timeout_s;
    struct cli_list metadata;
};

/* ---- showing ---- */

static void print_when(const struct json_value *s, const char *key, const char *none)
{
    struct str t = reply_str(s, key);
    if (t.n > 0)
        printf("%.*s", STR_ARG(t));
    else
        printf("%s", none);
}

static void print_rows(struct walk *w, const struct reply *r, const struct json_value *list)
{
    (void)r;
    if (w->shown == 0 && json_first(list) != NULL)
        printf("%-24s %-18s %-18s %-20s %-24s %s\n", "NAME", "CRON", "TIME ZONE", "AGENT", "NEXT", "LAST");
    for (const struct json_value *s = json_first(list); s != NULL; s = json_next(s)) {
        struct str name = reply_str(s, "name"), cron = reply_str(s, "cron"), zone = reply_str(s, "time_zone"),
                   agent = reply_str(s, "agent"), next = reply_str(s, "next_at"),
                   error = reply_str(s, "last_error");
        bool enabled = false;
        json_bool(json_get(s, "enabled"), &enabled);
        if (next.n == 0)
            next = enabled ? STR("being planned") : STR("paused");
        printf("%-24.*s %-18.*s %-18.*s %-20.*s %-24.*s ", STR_ARG(name), STR_ARG(cron), STR_ARG(zone),
               STR_ARG(agent), STR_ARG(next));
        print_when(s, "last_at", "-");
        if (error.n > 0)
            printf(" %.*s", STR_ARG(error));
        printf("\n");
    }
}

static int list(struct schedules *x)
{
    struct walk w = {.cli = x->cli, .member = "data", .page = PAGE, .left = -1, .take = print_rows};
    walk_begin(&w, "/v1/schedules?");
    int status = walk_pages(&w);
    if (status == STATUS_OK && w.shown == 0 && !x->cli->json)
        cli_error("there are no schedules yet; 'sandpiper schedules create --help' tells how to make one");
    buf_deinit(&w.path);
    return status;
}

static void print_one(const struct json_value *s)
{
    static const char *const keys[] = {"name",    "cron",    "time_zone",       "agent",      "priority",
                                       "next_at", "last_at", "last_invocation", "last_error", "created_at"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct str v = reply_str(s, keys[i]);
        if (v.n > 0)
            printf("%-16s %.*s\n", keys[i], STR_ARG(v));
    }
}

/* ---- one schedule ---- */

static bool path_of(char path[PATH_BYTES], const char *name, const char *after)
{
    size_t n = strlen(name);
    if (n == 0 || n > 63 || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != n) {
        cli_error("\"%s\" is no schedule's name: those are of lower-case letters, digits and hyphens", name);
        return false;
    }
    snprintf(path, PATH_BYTES, "/v1/schedules/%s%s", name, after);
    return true;
}

static int call(struct schedules *x, const char *method, const char *name, const char *after,
                const char *done)
{
    char path[PATH_BYTES];
    struct reply r;
    if (!path_of(path, name, after))
        return STATUS_USAGE;
    const struct api_request q = {.method = method, .path = path, .retry = API_RETRY_BUSY};
    api_call(x->cli, &q, &r);
    bool gone = strcmp(method, "DELETE") == 0;
    int status = r.kind == REPLY_OK && gone ? STATUS_OK : reply_check(x->cli, &r, "name");
    if (status == STATUS_OK && x->cli->json && !gone)
        reply_print(&r);
    else if (status == STATUS_OK && done != NULL)
        printf("%s %s\n", done, name);
    else if (status == STATUS_OK)
        print_one(json_root(r.doc));
    reply_deinit(&r);
    return status;
}

static int write_body(const struct schedules *x, char *const *args, struct buf *body)
{
    struct json_writer w = json_writer(body);
    jw_object(&w);
    jw_kcstr(&w, "name", args[0]);
    jw_kcstr(&w, "agent", args[1]);
    jw_kcstr(&w, "prompt", args[2]);
    jw_kcstr(&w, "cron", x->cron);
    if (x->zone != NULL)
        jw_kcstr(&w, "time_zone", x->zone);
    if (x->priority != NULL)
        jw_kcstr(&w, "priority", x->priority);
    if (x->timeout_s > 0)
        jw_kint(&w, "timeout_s", x->timeout_s);
    if (x->metadata.count > 0 && cli_metadata(&w, &x->metadata) != 0)
        return STATUS_USAGE;
    jw_object_end(&w);
    return body->failed ? cli_error("the prompt is too large: a schedule's may have 64 KiB") : STATUS_OK;
}

static int create(struct schedules *x, char *const *args)
{
    struct buf body;
    struct reply r;
    if (!str_is_utf8(str_of(args[2])))
        return cli_error("the prompt must be UTF-8 text");
    buf_init(&body, BODY_BYTES);
    int status = write_body(x, args, &body);
    if (status != STATUS_OK) {
        buf_deinit(&body);
        return status;
    }
    const struct api_request q = {.method = "POST",
                                  .path = "/v1/schedules",
                                  .headers = {"Content-Type: application/json"},
                                  .body = buf_view(&body)};
    api_call(x->cli, &q, &r);
    status = reply_check(x->cli, &r, "name");
    if (status == STATUS_OK && x->cli->json) {
        reply_print(&r);
    } else if (status == STATUS_OK) {
        printf("%s fires next at ", args[0]);
        print_when(json_root(r.doc), "next_at", "a time that is being planned");
        printf("\n");
    }
    reply_deinit(&r);
    buf_deinit(&body);
    return status;
}

/* ---- the command ---- */

static int run(struct schedules *x, const char *verb, char *const *args, int n)
{
    if ((strcmp(verb, "list") == 0 || strcmp(verb, "ls") == 0) && n == 0)
        return list(x);
    if (strcmp(verb, "create") == 0 && n == 3 && x->cron != NULL)
        return create(x, args);
    if (strcmp(verb, "show") == 0 && n == 1)
        return call(x, "GET", args[0], "", NULL);
    if (strcmp(verb, "pause") == 0 && n == 1)
        return call(x, "POST", args[0], "/pause", "paused");
    if (strcmp(verb, "resume") == 0 && n == 1)
        return call(x, "POST", args[0], "/resume", "resumed");
    if (strcmp(verb, "delete") == 0 && n == 1)
        return call(x, "DELETE", args[0], "", "deleted");
    if (strcmp(verb, "create") == 0 && n == 3)
        return cli_error("schedules create needs --cron, as in --cron '0 8 * * mon-fri'");
    return cli_error(
        "schedules create NAME AGENT PROMPT | list | show NAME | pause NAME | resume NAME | delete NAME; see "
        "sandpiper schedules --help");
}

int command_schedules(struct cli *cli, int argc, char **argv)
{
    struct schedules x = {.cli = cli, .timeout_s = -1};
    const struct cli_option options[] = {
        {"cron", CLI_TEXT, &x.cron, "EXPR",
         "when: five fields as crontab has them, or @hourly, @daily, @weekly, …"},
        {"time-zone", CLI_TEXT, &x.zone, "ZONE", "whose wall clock: Europe/Berlin (default UTC)"},
        {"timeout", CLI_NUMBER, &x.timeout_s, "S", "limit of each run in seconds"},
        {"priority", CLI_TEXT, &x.priority, "P", "high, normal or low"},
        {"metadata", CLI_LIST, &x.metadata, "KEY=VALUE", "kept with each invocation; may be repeated"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {
        "schedules [create NAME AGENT PROMPT | list | show NAME | pause NAME | resume NAME | delete NAME]",
        "Invocations that come again and again. An instant fires once, however many dispatchers run.\n"
        "--json prints records.",
        options, 0, 4};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    return run(&x, first < argc ? argv[first] : "list", argv + first + 1,
               first < argc ? argc - first - 1 : 0);
}
