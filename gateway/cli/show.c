/* get, cancel, logs, agents: looking at what is there. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli.h"

enum { PATH_BYTES = 256, OUTPUT_MS = 600000 };

/* An id or name as a part of a path: these characters need no escaping, and no id has any other. */
static bool path_with(char path[PATH_BYTES], const char *before, const char *id, const char *after)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    if (id[0] == '\0' || strspn(id, plain) != strlen(id) || strlen(id) > 80) {
        cli_error("\"%s\" is no id; invocations have ids like inv_…", id);
        return false;
    }
    snprintf(path, PATH_BYTES, "%s%s%s", before, id, after);
    return true;
}

/* 0 for a 2xx with this member; else it is told. */
static int check(const struct cli *cli, const struct reply *r, const char *member)
{
    if (r->kind != REPLY_OK)
        return api_complain(cli, r);
    if (json_get(json_root(r->doc), member) != NULL)
        return STATUS_OK;
    cli_error("%s does not answer as a gateway does: check SANDPIPER_URL", cli->url);
    return STATUS_API;
}

/* ---- get, cancel ---- */

static void print_field(const struct json_value *record, const char *key)
{
    struct str s = reply_str(record, key);
    if (s.n > 0)
        printf("%-12s %.*s\n", key, STR_ARG(s));
}

static void print_number(const struct reply *r, const struct json_value *object, const char *key)
{
    int64_t v = reply_int(r, object, key);
    if (v >= 0)
        printf("%-12s %lld\n", key, (long long)v);
}

static void print_error(const struct json_value *record)
{
    const struct json_value *error = json_get(record, "error");
    struct str message = reply_str(error, "message"), code = reply_str(error, "code");
    if (code.n > 0)
        printf("%-12s %.*s (%.*s)\n", "error", STR_ARG(message), STR_ARG(code));
}

static void print_record(const struct reply *r)
{
    const struct json_value *record = json_root(r->doc), *usage = json_get(record, "usage");
    static const char *const texts[] = {"id",         "agent",       "status", "created_at",
                                        "started_at", "finished_at", "signal"};
    static const char *const numbers[] = {"queue_ms", "run_ms", "cpu_ms"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        print_field(record, texts[i]);
    print_number(r, record, "version");
    print_number(r, record, "exit_code");
    print_error(record);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        print_number(r, usage, numbers[i]);
    print_number(r, record, "output_size");
    struct str output = reply_str(record, "output");
    if (output.n > 0)
        printf("\n%.*s%s", STR_ARG(output), output.p[output.n - 1] == '\n' ? "" : "\n");
}

static int show_record(struct cli *cli, const char *method, const char *path)
{
    const struct api_request q = {.method = method, .path = path, .retry = API_RETRY_BUSY};
    struct reply r;
    api_call(cli, &q, &r);
    int status = check(cli, &r, "id");
    if (status == STATUS_OK && cli->json)
        reply_print(&r);
    else if (status == STATUS_OK)
        print_record(&r);
    reply_deinit(&r);
    return status;
}

int command_get(struct cli *cli, int argc, char **argv)
{
    static const struct cli_usage usage = {"get ID", "Shows an invocation.", NULL, 1, 1};
    char path[PATH_BYTES];
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    if (!path_with(path, "/v1/invocations/", argv[first], ""))
        return STATUS_USAGE;
    return show_record(cli, "GET", path);
}

int command_cancel(struct cli *cli, int argc, char **argv)
{
    static const struct cli_usage usage = {
        "cancel ID", "Stops an invocation; one that has ended stays as it is.", NULL, 1, 1};
    char path[PATH_BYTES];
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    if (!path_with(path, "/v1/invocations/", argv[first], "/cancel"))
        return STATUS_USAGE;
    return show_record(cli, "POST", path);
}

/* ---- logs ---- */

static bool to_stdout(void *arg, struct str piece)
{
    (void)arg;
    return fwrite(piece.p, 1, piece.n, stdout) == piece.n;
}

int command_logs(struct cli *cli, int argc, char **argv)
{
    static const struct cli_usage usage = {"logs ID", "Prints what an invocation wrote to stderr.", NULL, 1,
                                           1};
    char path[PATH_BYTES];
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    if (!path_with(path, "/v1/invocations/", argv[first], "/logs"))
        return STATUS_USAGE;
    const struct api_request q = {
        .method = "GET", .path = path, .timeout_ms = OUTPUT_MS, .on_data = to_stdout};
    struct reply r;
    api_call(cli, &q, &r);
    status = r.kind == REPLY_OK ? STATUS_OK : api_complain(cli, &r);
    reply_deinit(&r);
    return status;
}

/* ---- agents ---- */

static void print_agents(const struct reply *r, bool first_page)
{
    const struct json_value *list = json_get(json_root(r->doc), "agents");
    if (first_page && json_first(list) == NULL)
        printf("There are no agents yet; 'sandpiper deploy DIR' makes one.\n");
    else if (first_page)
        printf("%-32s %-9s %-8s %s\n", "NAME", "STATUS", "VERSION", "LATEST BUILD");
    for (const struct json_value *a = json_first(list); a != NULL; a = json_next(a)) {
        const struct json_value *build = json_get(a, "latest_build");
        struct str name = reply_str(a, "name"), state = reply_str(a, "status"),
                   built = reply_str(build, "status");
        struct str created = reply_str(build, "created_at");
        int64_t version = reply_int(r, a, "version");
        char serving[24] = "-";
        if (version >= 0)
            snprintf(serving, sizeof serving, "%lld", (long long)version);
        printf("%-32.*s %-9.*s %-8s %lld %.*s, %.*s\n", STR_ARG(name), STR_ARG(state), serving,
               (long long)reply_int(r, build, "version"), STR_ARG(built), STR_ARG(created));
    }
}

static int list_agents(struct cli *cli)
{
    char path[PATH_BYTES] = "/v1/agents?limit=200";
    int status = STATUS_OK;
    bool more = true, first_page = true;
    while (more && status == STATUS_OK) {
        const struct api_request q = {.method = "GET", .path = path, .retry = API_RETRY_BUSY};
        struct reply r;
        api_call(cli, &q, &r);
        struct str cursor = reply_str(json_root(r.doc), "next_cursor");
        status = check(cli, &r, "agents");
        if (status == STATUS_OK && cli->json)
            reply_print(&r); /* a line a page */
        else if (status == STATUS_OK)
            print_agents(&r, first_page);
        first_page = false;
        more = cursor.n > 0 && cursor.n < 100;
        snprintf(path, sizeof path, "/v1/agents?limit=200&cursor=%.*s", (int)(more ? cursor.n : 0), cursor.p);
        reply_deinit(&r);
    }
    return status;
}

int command_agents(struct cli *cli, int argc, char **argv)
{
    static const struct cli_usage usage = {"agents", "Lists the agents.", NULL, 0, 0};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    return list_agents(cli);
}
