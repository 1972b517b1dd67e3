/* secrets init: makes the pair of keys that callers' secrets are sealed with. Needs neither gateway nor
 * database. Nothing is overwritten: a private key that is gone takes every secret sealed for it along. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "crypto/crypto.h"
#include "crypto/seal.h"

#define PUBLIC_NAME "webhook-public.key"
#define PRIVATE_NAME "webhook-private.key"
enum { PATH_BYTES = 4096 };

static int write_new(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return cli_error("cannot make %s: %s%s", path, strerror(errno),
                         errno == EEXIST ? "; it is left as it is" : "");
    size_t n = strlen(text);
    bool fine = write(fd, text, n) == (ssize_t)n && write(fd, "\n", 1) == 1 && fsync(fd) == 0;
    fine = close(fd) == 0 && fine;
    if (fine)
        return STATUS_OK;
    cli_error("cannot write %s", path);
    unlink(path);
    return STATUS_USAGE;
}

static int init(struct cli *cli, const char *dir)
{
    char public[SEAL_KEY_TEXT_BYTES], private[SEAL_KEY_TEXT_BYTES];
    char public_path[PATH_BYTES], private_path[PATH_BYTES];
    if (snprintf(public_path, PATH_BYTES, "%s/" PUBLIC_NAME, dir) >= PATH_BYTES ||
        snprintf(private_path, PATH_BYTES, "%s/" PRIVATE_NAME, dir) >= PATH_BYTES)
        return cli_error("the directory's name is too long");
    seal_pair_new(public, private);
    int status = write_new(private_path, private, 0600);
    crypto_wipe(private, sizeof private);
    if (status == STATUS_OK && (status = write_new(public_path, public, 0644)) != STATUS_OK)
        unlink(private_path);
    if (status != STATUS_OK)
        return status;
    if (cli->json)
        printf("{\"public\":\"%s\",\"private\":\"%s\"}\n", public_path, private_path);
    else
        printf("SANDPIPER_WEBHOOK_PUBLIC_KEY_FILE=%s\nSANDPIPER_WEBHOOK_PRIVATE_KEY_FILE=%s\n", public_path,
               private_path);
    fflush(stdout);
    if (!cli->json)
        fprintf(stderr, "The first is for gateways, the second for dispatchers alone: keep a copy of it.\n");
    return STATUS_OK;
}

int command_secrets(struct cli *cli, int argc, char **argv)
{
    static const struct cli_option options[] = {{NULL, CLI_FLAG, NULL, NULL, NULL}};
    const struct cli_usage usage = {
        "secrets init DIR", "Makes the pair of keys that webhooks' secrets are sealed with, in two files.",
        options, 2, 2};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    if (strcmp(argv[first], "init") != 0)
        return cli_error("there is no command secrets %s; see sandpiper secrets --help", argv[first]);
    return init(cli, argv[first + 1]);
}
