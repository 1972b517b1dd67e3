/* versions, rollback: an agent's versions, and which one serves. */
#include <stdio.h>
#include <string.h>

#include "walk.h"

enum { PAGE = 200, SHOWN_DEFAULT = 20, PATH_BYTES = 160, BODY_BYTES = 64, HASH_SHOWN = 12 };

static bool path_of(char path[PATH_BYTES], const char *name, const char *after)
{
    size_t n = strlen(name);
    if (n == 0 || n > 63 || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != n) {
        cli_error("\"%s\" is no agent's name: those are of lower-case letters, digits and hyphens", name);
        return false;
    }
    snprintf(path, PATH_BYTES, "/v1/agents/%s%s", name, after);
    return true;
}

/* ---- versions ---- */

/* An archive's hash, a repository's commit, a template. */
static void print_source(const struct json_value *version)
{
    const struct json_value *source = json_get(version, "source");
    struct str hash = reply_str(version, "source_sha256"), commit = reply_str(source, "commit"),
               template = reply_str(source, "template");
    struct str shown = commit.n > 0 ? commit : hash;
    if (template.n > 0)
        printf("template %.*s", STR_ARG(template));
    else
        printf("%s%.*s", commit.n > 0 ? "commit " : "", shown.n < HASH_SHOWN ? (int)shown.n : HASH_SHOWN,
               shown.p);
}

static void print_versions(struct walk *w, const struct reply *r, const struct json_value *records)
{
    if (w->shown == 0 && json_first(records) != NULL)
        printf("%-8s %-9s %-7s %-24s %s\n", "VERSION", "STATUS", "SERVES", "CREATED", "SOURCE");
    for (const struct json_value *v = json_first(records); v != NULL; v = json_next(v)) {
        struct str state = reply_str(v, "status"), created = reply_str(v, "created_at"),
                   error = reply_str(json_get(v, "error"), "code");
        bool serving = false;
        json_bool(json_get(v, "serving"), &serving);
        printf("%-8lld %-9.*s %-7s %-24.*s ", (long long)reply_int(r, v, "version"), STR_ARG(state),
               serving ? "yes" : "-", STR_ARG(created));
        print_source(v);
        if (error.n > 0)
            printf("  %.*s", STR_ARG(error));
        printf("\n");
    }
}

int command_versions(struct cli *cli, int argc, char **argv)
{
    int64_t limit = -1;
    bool all = false;
    const struct cli_option options[] = {
        {"limit", CLI_NUMBER, &limit, "N", "at most so many (default 20)"},
        {"all", CLI_FLAG, &all, NULL, "all of them"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {"versions NAME",
                                    "Lists the versions of an agent, newest first, and which one serves.\n"
                                    "--json prints one version a line.",
                                    options, 1, 1};
    struct walk w = {.cli = cli, .member = "data", .page = PAGE, .take = print_versions};
    char path[PATH_BYTES];
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    if (limit == 0)
        return cli_error("--limit needs a number from 1 up; --all is for all");
    if (limit > 0 && all)
        return cli_error("give --limit or --all, not both");
    if (!path_of(path, argv[first], "/versions?"))
        return STATUS_USAGE;
    w.left = all ? -1 : limit > 0 ? limit : SHOWN_DEFAULT;
    walk_begin(&w, path);
    status = walk_pages(&w);
    buf_deinit(&w.path);
    return status;
}

/* ---- rollback ---- */

static bool body_of(char body[BODY_BYTES], const char *version)
{
    uint64_t n = 0;
    if (version == NULL) {
        snprintf(body, BODY_BYTES, "{}");
        return true;
    }
    if (!str_to_u64(str_of(version), &n) || n < 1 || n > INT32_MAX) {
        cli_error("\"%s\" is no version: those are numbers from 1 up; 'sandpiper versions NAME' lists them",
                  version);
        return false;
    }
    snprintf(body, BODY_BYTES, "{\"version\":%llu}", (unsigned long long)n);
    return true;
}

static void print_agent(const struct reply *r)
{
    const struct json_value *agent = json_root(r->doc);
    struct str name = reply_str(agent, "name");
    int64_t from = reply_int(r, agent, "rolled_back_from");
    printf("%.*s: version %lld serves", STR_ARG(name), (long long)reply_int(r, agent, "version"));
    if (from > 0)
        printf(", rolled back from version %lld", (long long)from);
    printf("\n");
}

int command_rollback(struct cli *cli, int argc, char **argv)
{
    static const struct cli_usage usage = {
        "rollback NAME [VERSION]",
        "Makes another version of an agent serve: VERSION, older or newer; without it the ready one before\n"
        "the serving one. Twice is as once: to go further back, name the version. What was submitted\n"
        "already keeps its version. The next deploy serves when it is ready. --json prints the agent.",
        NULL, 1, 2};
    char path[PATH_BYTES], body[BODY_BYTES];
    struct reply r;
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    if (!path_of(path, argv[first], "/rollback") || !body_of(body, argc - first > 1 ? argv[first + 1] : NULL))
        return STATUS_USAGE;
    const struct api_request q = {.method = "POST",
                                  .path = path,
                                  .headers = {"Content-Type: application/json"},
                                  .body = str_of(body),
                                  .retry = API_RETRY_BUSY};
    api_call(cli, &q, &r);
    status = reply_check(cli, &r, "version");
    if (status == STATUS_OK && cli->json)
        reply_print(&r);
    else if (status == STATUS_OK)
        print_agent(&r);
    reply_deinit(&r);
    return status;
}
