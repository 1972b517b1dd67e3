/* open: the gateway's pages, in a browser where there is one. */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "cli.h"

extern char **environ;

/* Whether something shows it. */
static bool show(char *url)
{
    char program[] = "xdg-open";
    char *const argv[] = {program, url, NULL};
    const char *x = getenv("DISPLAY"), *wayland = getenv("WAYLAND_DISPLAY");
    pid_t child;
    int status;
    if ((x == NULL || x[0] == '\0') && (wayland == NULL || wayland[0] == '\0'))
        return false;
    return posix_spawnp(&child, program, NULL, NULL, argv, environ) == 0 &&
           waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int command_open(struct cli *cli, int argc, char **argv)
{
    static const struct cli_usage usage = {
        "open", "Opens the gateway's documentation in a browser, or prints its address where there is none.",
        NULL, 0, 0};
    const struct api_request q = {.method = "GET", .path = "/healthz"};
    struct reply r;
    char *url = NULL;
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    api_call(cli, &q, &r); /* before a browser says it worse */
    status = reply_check(cli, &r, "version");
    reply_deinit(&r);
    if (status != STATUS_OK)
        return status;
    if (asprintf(&url, "%s/docs", cli->url) < 0)
        return cli_error("no memory");
    if (cli->json)
        printf("{\"url\":\"%s\"}\n", url);
    else if (!show(url))
        printf("%s\n", url);
    free(url);
    return STATUS_OK;
}
