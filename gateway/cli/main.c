/* sandpiper: the command line. A table of commands; each is a file of its own. */
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "crypto/crypto.h"
#include "http/client.h"

struct command {
    const char *name;
    int (*run)(struct cli *cli, int argc, char **argv);
    const char *about;
};

static const struct command commands[] = {
    {"init", command_init, "init DIR: make a directory with a small agent in it"},
    {"deploy", command_deploy, "deploy DIR: make a new version of an agent from a directory"},
    {"invoke", command_invoke, "invoke AGENT [PROMPT]: run an agent and print its answer"},
    {"batch", command_batch, "batch submit|status|results|cancel|ls: many invocations, submitted together"},
    {"ls", command_ls, "list invocations"},
    {"agents", command_agents, "agents ls|delete: the agents, and one of them deleted"},
    {"versions", command_versions, "versions NAME: list the versions of an agent"},
    {"rollback", command_rollback, "rollback NAME [VERSION]: make another version of an agent serve"},
    {"get", command_get, "get ID|AGENT: show an invocation; of an agent, its newest"},
    {"artifacts", command_artifacts, "artifacts ID [get PATH]: list or download the files that it left"},
    {"logs", command_logs,
     "logs ID|AGENT: print what an invocation wrote to stderr; --build: what a build wrote"},
    {"cancel", command_cancel, "cancel ID: stop an invocation"},
    {"retry", command_retry, "retry ID...: run ended invocations again; --all-errors"},
    {"usage", command_usage, "add up what ran: invocations, time of sandboxes, tokens, cost"},
    {"schedules", command_schedules, "schedules create|list|show|pause|resume|delete: recurring invocations"},
    {"keys", command_keys, "keys create|ls|show|revoke: API keys"},
    {"webhooks", command_webhooks,
     "webhooks list|create|delete|enable|rotate|test|deliveries|redeliver|replay: endpoints told of ends"},
    {"listen", command_listen, "print webhooks as they come, and forward them to a local address"},
    {"secrets", command_secrets,
     "secrets set|ls|rm|init|rotate-key: secrets of agents, and the keys that seal them"},
    {"profiles", command_profiles, "profiles ls|set|use|rm: gateways and keys by name"},
    {"doctor", command_doctor, "ask everything that a job needs, and say what to mend"},
    {"open", command_open, "open the gateway's documentation in a browser"},
    {"completions", command_completions, "completions bash|zsh|fish: what a shell is to source"},
    {"migrate", command_migrate, "bring the database up to date (needs the database)"},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static int help(void)
{
    printf("Usage: sandpiper COMMAND [ARGUMENT]...\nRuns programs as jobs in sandboxes.\n\n");
    for (int i = 0; i < COMMANDS; i++)
        printf("  %-11s %s\n", commands[i].name, commands[i].about);
    printf("\n'sandpiper help COMMAND' tells more; --version prints the version.\n\n"
           "Environment:\n"
           "  SANDPIPER_URL            the gateway (default http://127.0.0.1:8080)\n"
           "  SANDPIPER_API_KEY        the key; without it .sandpiper/api-key is read\n"
           "  SANDPIPER_PROFILE        both, by the name of a profile ('sandpiper profiles')\n"
           "  SANDPIPER_DATABASE_URL   PostgreSQL, for migrate and the first key\n\n"
           "Exit status: 0 done, 1 the job or build did not succeed, 2 wrong usage, 3 the gateway cannot be\n"
           "reached or refused.\n");
    return STATUS_OK;
}

static int unknown(const char *name)
{
    unsigned least = 3;
    const char *best = NULL;
    for (int i = 0; i < COMMANDS; i++) {
        unsigned d = str_distance(str_of(name), str_of(commands[i].name));
        if (d < least) {
            least = d;
            best = commands[i].name;
        }
    }
    if (best != NULL)
        return cli_error("there is no command %s; did you mean %s?", name, best);
    return cli_error("there is no command %s; see sandpiper --help", name);
}

static int run_command(struct cli *cli, int argc, char **argv)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(argv[0], commands[i].name) == 0)
            return commands[i].run(cli, argc, argv);
    return unknown(argv[0]);
}

static int run(struct cli *cli, int argc, char **argv)
{
    if (argc < 2) {
        help();
        return STATUS_USAGE;
    }
    if (strcmp(argv[1], "help") == 0 && argc > 2)
        return run_command(cli, 2, (char *[]){argv[2], (char[]){"--help"}, NULL});
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
        return help();
    if (strcmp(argv[1], "--version") == 0) {
        printf("sandpiper %s\n", SP_VERSION);
        return STATUS_OK;
    }
    return run_command(cli, argc - 1, argv + 1);
}

static void cli_deinit(struct cli *cli)
{
    http_client_close(&cli->http);
    loop_timer_free(&cli->spin);
    loop_signal_free(&cli->sigint);
    loop_free(&cli->loop);
    if (cli->authorization != NULL)
        crypto_wipe(cli->authorization, strlen(cli->authorization));
    free(cli->authorization);
    free(cli->url);
}

int main(int argc, char **argv)
{
    struct cli cli = {0};
    struct err err;
    setlocale(
        LC_CTYPE,
        "C.UTF-8"); /* file names are UTF-8, whatever the terminal thinks: libarchive converts by locale */
    if (crypto_init(&err) != 0 || (cli.loop = loop_new()) == NULL)
        return cli_error("cannot start: no memory or descriptors");
    int status = run(&cli, argc, argv);
    cli_deinit(&cli);
    if (fflush(stdout) != 0 || ferror(stdout) != 0) {
        cli_error("cannot write the output");
        return STATUS_API;
    }
    return status;
}
