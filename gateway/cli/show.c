/* get, cancel, logs: one invocation. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "build_log.h"
#include "cli.h"
#include "follow.h"
#include "slug.h"

enum { PATH_BYTES = 256, ID_BYTES = 81, OUTPUT_MS = 600000 };

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

/* ---- which one: an id, or an agent, whose newest is meant ---- */

static bool is_id(const char *text)
{
    return strncmp(text, "inv_", 4) == 0;
}

/* Ids have underscores, names of agents have none. 0, or told and the exit status. */
static int find_id(struct cli *cli, const char *given, char out[ID_BYTES])
{
    char path[PATH_BYTES];
    if (is_id(given) || !cli_is_slug(given))
        return str_copy(str_of(given), out, ID_BYTES) ? 0 : cli_error("\"%.80s\" is no id", given);
    snprintf(path, sizeof path, "/v1/invocations?limit=1&agent=%s", given);
    const struct api_request q = {.method = "GET", .path = path, .retry = API_RETRY_BUSY};
    struct reply r;
    api_call(cli, &q, &r);
    int status = reply_check(cli, &r, "data");
    const struct json_value *newest = status == 0 ? json_first(json_get(json_root(r.doc), "data")) : NULL;
    if (status == 0 && !str_copy(reply_str(newest, "id"), out, ID_BYTES))
        status = STATUS_API;
    if (status == 0 && out[0] == '\0')
        status = cli_error("%s has run nothing yet", given);
    reply_deinit(&r);
    return status;
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

/* More than one: what became of each. */
static void print_attempts(const struct reply *r, const struct json_value *attempts)
{
    if (json_count(attempts) < 2)
        return;
    for (const struct json_value *a = json_first(attempts); a != NULL; a = json_next(a)) {
        struct str outcome = reply_str(a, "outcome"), executor = reply_str(a, "executor"),
                   sandbox = reply_str(a, "sandbox"), end = reply_str(a, "finished_at");
        printf("%-12s %lld: %.*s", "attempt", (long long)reply_int(r, a, "attempt"), STR_ARG(outcome));
        if (end.n > 0)
            printf(" at %.*s", STR_ARG(end));
        if (executor.n > 0)
            printf(", executor %.*s", STR_ARG(executor));
        if (sandbox.n > 0)
            printf(", sandbox %.*s", STR_ARG(sandbox));
        printf("\n");
    }
}

static void print_record(const struct reply *r)
{
    const struct json_value *record = json_root(r->doc), *usage = json_get(record, "usage");
    static const char *const texts[] = {"id",         "agent",      "status",      "retry_of",
                                        "created_at", "started_at", "finished_at", "signal"};
    static const char *const numbers[] = {"queue_ms", "run_ms", "cpu_ms"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        print_field(record, texts[i]);
    print_number(r, record, "version");
    print_number(r, record, "exit_code");
    print_error(record);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        print_number(r, usage, numbers[i]);
    print_number(r, record, "output_size");
    print_attempts(r, json_get(record, "attempts"));
    struct str output = reply_str(record, "output");
    if (output.n > 0)
        printf("\n%.*s%s", STR_ARG(output), output.p[output.n - 1] == '\n' ? "" : "\n");
}

static int show_record(struct cli *cli, const char *method, const char *path)
{
    const struct api_request q = {.method = method, .path = path, .retry = API_RETRY_BUSY};
    struct reply r;
    api_call(cli, &q, &r);
    int status = reply_check(cli, &r, "id");
    if (status == STATUS_OK && cli->json)
        reply_print(&r);
    else if (status == STATUS_OK)
        print_record(&r);
    reply_deinit(&r);
    return status;
}

int command_get(struct cli *cli, int argc, char **argv)
{
    static const struct cli_usage usage = {"get ID | AGENT", "Shows an invocation; of an agent, its newest.",
                                           NULL, 1, 1};
    char path[PATH_BYTES], id[ID_BYTES];
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status) || (status = find_id(cli, argv[first], id)) != 0)
        return status;
    if (!path_with(path, "/v1/invocations/", id, ""))
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

/* As it comes, until the invocation has ended. */
static int follow_logs(struct cli *cli, const char *id)
{
    struct follow f = {.err = stdout};
    str_copy(str_of(id), f.id, sizeof f.id);
    int status = follow_run(cli, &f, NULL);
    reply_deinit(&f.result);
    return status;
}

int command_logs(struct cli *cli, int argc, char **argv)
{
    bool follow = false, build = false;
    const struct cli_option options[] = {
        {"follow", CLI_FLAG, &follow, NULL, "(-f) go on as it writes, until it has ended"},
        {"build", CLI_FLAG, &build, NULL, "of an agent: the log of its build; AGENT@3: of that version's"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {"logs ID | AGENT | --build AGENT[@VERSION]",
                                    "Prints what an invocation wrote to stderr; of an agent, its newest. Or "
                                    "what a\nversion's build wrote; without a number, the newest's.",
                                    options, 1, 1};
    char path[PATH_BYTES], id[ID_BYTES];
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    if (build)
        return build_log_command(cli, argv[first], follow);
    if ((status = find_id(cli, argv[first], id)) != 0)
        return status;
    if (!path_with(path, "/v1/invocations/", id, "/logs"))
        return STATUS_USAGE;
    if (follow)
        return follow_logs(cli, id);
    const struct api_request q = {
        .method = "GET", .path = path, .timeout_ms = OUTPUT_MS, .on_data = to_stdout};
    struct reply r;
    api_call(cli, &q, &r);
    status = r.kind == REPLY_OK ? STATUS_OK : api_complain(cli, &r);
    reply_deinit(&r);
    return status;
}
