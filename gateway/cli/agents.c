/* agents: the list of them (walk.h), and one deleted. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "slug.h"
#include "walk.h"

enum { PAGE = 200, NUMBER_BYTES = 24, PATH_BYTES = 96, ANSWER_BYTES = 16 };

/* ---- the list ---- */

static void print_agents(struct walk *w, const struct reply *r, const struct json_value *records)
{
    if (w->shown == 0 && json_first(records) != NULL)
        printf("%-32s %-9s %-8s %-9s %s\n", "NAME", "STATUS", "VERSION", "SOURCE", "LATEST BUILD");
    for (const struct json_value *a = json_first(records); a != NULL; a = json_next(a)) {
        const struct json_value *build = json_get(a, "latest_build");
        struct str name = reply_str(a, "name"), state = reply_str(a, "status"),
                   built = reply_str(build, "status"), source = reply_str(json_get(build, "source"), "type"),
                   created = reply_str(build, "created_at");
        int64_t version = reply_int(r, a, "version");
        char serving[NUMBER_BYTES] = "-";
        if (version >= 0)
            snprintf(serving, sizeof serving, "%lld", (long long)version);
        printf("%-32.*s %-9.*s %-8s %-9.*s %lld %.*s, %.*s\n", STR_ARG(name), STR_ARG(state), serving,
               STR_ARG(source), (long long)reply_int(r, build, "version"), STR_ARG(built), STR_ARG(created));
    }
}

static int list(struct cli *cli)
{
    struct walk w = {.cli = cli, .member = "agents", .page = PAGE, .left = -1, .take = print_agents};
    walk_begin(&w, "/v1/agents?");
    int status = walk_pages(&w);
    if (status == STATUS_OK && w.shown == 0 && !cli->json)
        cli_error("there are no agents yet; 'sandpiper deploy DIR' makes one");
    buf_deinit(&w.path);
    return status;
}

/* ---- deleting ---- */

/* Whoever sits at a terminal is asked; a script has said what it wants. */
static bool is_meant(const char *name)
{
    char answer[ANSWER_BYTES] = "";
    if (isatty(STDIN_FILENO) == 0 || isatty(STDERR_FILENO) == 0)
        return true;
    fprintf(stderr, "Delete %s, its versions and its secrets? What runs of it ends as it would. [y/N] ",
            name);
    fflush(stderr);
    if (fgets(answer, sizeof answer, stdin) == NULL)
        return false;
    return answer[0] == 'y' || answer[0] == 'Y';
}

static int delete (struct cli *cli, const char *name, bool yes)
{
    char path[PATH_BYTES];
    struct reply r;
    if (!cli_is_slug(name))
        return cli_error("\"%s\" is no agent's name: those are of lower-case letters, digits and hyphens",
                         name);
    if (!yes && !is_meant(name))
        return cli_error("%s is not deleted", name);
    snprintf(path, sizeof path, "/v1/agents/%s", name);
    const struct api_request q = {.method = "DELETE", .path = path, .retry = API_RETRY_BUSY};
    api_call(cli, &q, &r);
    int status = r.kind == REPLY_OK ? STATUS_OK : api_complain(cli, &r);
    if (status == STATUS_OK)
        printf("deleted %s\n", name);
    reply_deinit(&r);
    return status;
}

int command_agents(struct cli *cli, int argc, char **argv)
{
    bool yes = false;
    const struct cli_option options[] = {
        {"yes", CLI_FLAG, &yes, NULL, "delete without asking"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {"agents [ls | delete NAME]",
                                    "Lists the agents: the version that serves, where the newest one is "
                                    "from, and its build. --json prints\n"
                                    "one agent a line.\n"
                                    "delete: the agent goes with its versions and secrets, and its name is "
                                    "free. What was accepted runs to\n"
                                    "its end, and records stay.",
                                    options, 0, 2};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    const char *verb = first < argc ? argv[first] : "ls";
    int n = first < argc ? argc - first - 1 : 0;
    if (strcmp(verb, "ls") == 0 && n == 0)
        return list(cli);
    if (strcmp(verb, "delete") == 0 && n == 1)
        return delete (cli, argv[first + 1], yes);
    return cli_error("agents [ls | delete NAME]; see sandpiper agents --help");
}
