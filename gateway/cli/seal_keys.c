/* secrets init: makes the pairs of keys that callers' secrets are sealed with. Needs neither gateway nor
 * database. Nothing is overwritten: a private key that is gone takes every secret sealed for it along. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crypto/crypto.h"
#include "crypto/seal.h"
#include "json/writer.h"
#include "secrets.h"

enum { PATH_BYTES = 4096, PAIRS = 2, OUT_BYTES = 8 * PATH_BYTES };

static const struct pair {
    const char *name, *public, *private, *who;
} pairs[PAIRS] = {
    {"webhook", "SANDPIPER_WEBHOOK_PUBLIC_KEY_FILE", "SANDPIPER_WEBHOOK_PRIVATE_KEY_FILE", "dispatchers"},
    {"env", "SANDPIPER_ENV_PUBLIC_KEY_FILE", "SANDPIPER_ENV_PRIVATE_KEY_FILE", "executors"},
};

struct paths {
    char public[PATH_BYTES], private[PATH_BYTES];
};

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

static int make(const struct paths *at)
{
    char public[SEAL_KEY_TEXT_BYTES], private[SEAL_KEY_TEXT_BYTES];
    seal_pair_new(public, private);
    int status = write_new(at->private, private, 0600);
    crypto_wipe(private, sizeof private);
    if (status == STATUS_OK && (status = write_new(at->public, public, 0644)) != STATUS_OK)
        unlink(at->private);
    return status;
}

static bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

/* *made: it was not there. */
static int make_missing(const struct paths *at, bool *made)
{
    bool public = exists(at->public), private = exists(at->private);
    *made = !public && !private;
    if (*made)
        return make(at);
    if (public && private)
        return STATUS_OK;
    return cli_error(
        "%s is there without %s: put the missing one back, or take this one away (and with a private "
        "key all that was sealed for it)",
        public ? at->public : at->private, public ? at->private : at->public);
}

static void print_json(const struct paths at[PAIRS], const bool made[PAIRS])
{
    struct buf out;
    buf_init(&out, OUT_BYTES);
    struct json_writer w = json_writer(&out);
    jw_object(&w);
    for (int i = 0; i < PAIRS; i++) {
        jw_key(&w, pairs[i].name);
        jw_object(&w);
        jw_kcstr(&w, "public", at[i].public);
        jw_kcstr(&w, "private", at[i].private);
        jw_kbool(&w, "made", made[i]);
        jw_object_end(&w);
    }
    jw_object_end(&w);
    printf("%.*s\n", STR_ARG(buf_view(&out)));
    buf_deinit(&out);
}

static void print_text(const struct paths at[PAIRS], const bool made[PAIRS])
{
    for (int i = 0; i < PAIRS; i++)
        printf("%s=%s\n%s=%s\n", pairs[i].public, at[i].public, pairs[i].private, at[i].private);
    fflush(stdout);
    for (int i = 0; i < PAIRS; i++)
        fprintf(stderr,
                "%s: %s. The public key is for gateways, the private one for %s alone: keep a copy of it.\n",
                pairs[i].name, made[i] ? "made" : "left as it is", pairs[i].who);
}

static bool paths_of(const char *dir, const char *name, struct paths *out)
{
    return snprintf(out->public, PATH_BYTES, "%s/%s-public.key", dir, name) < PATH_BYTES &&
           snprintf(out->private, PATH_BYTES, "%s/%s-private.key", dir, name) < PATH_BYTES;
}

int secrets_init(struct cli *cli, const char *dir)
{
    struct paths at[PAIRS];
    bool made[PAIRS] = {false};
    int status = STATUS_OK;
    for (int i = 0; i < PAIRS && status == STATUS_OK; i++) {
        if (!paths_of(dir, pairs[i].name, &at[i]))
            return cli_error("the directory's name is too long");
        status = make_missing(&at[i], &made[i]);
    }
    if (status != STATUS_OK)
        return status;
    if (cli->json)
        print_json(at, made);
    else
        print_text(at, made);
    return STATUS_OK;
}
