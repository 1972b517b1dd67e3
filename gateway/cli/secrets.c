/* secrets: of agents, set and taken away; and the keys that they are sealed with. A value comes from the
 * terminal (without echo), from stdin or from a file, never from the arguments, which everybody on the
 * machine can read. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crypto/crypto.h"
#include "database.h"
#include "json/writer.h"
#include "model/environment.h"
#include "secrets.h"
#include "typed.h"

/* EFFECTIVE_MS: executors may go by what they read so long ago (executor/environment.h). */
enum { EFFECTIVE_MS = 1000, PATH_BYTES = 256, BODY_BYTES = 6 * SECRET_VALUE_MAX_BYTES + 64 };

struct secrets {
    struct cli *cli;
    const char *file, *database, *private_file, *public_file;
};

/* ---- values ---- */

static int read_file(const char *path, struct buf *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return cli_error("cannot open %s: %s", path, strerror(errno));
    int status = typed_all(fd, path, out);
    close(fd);
    return status;
}

static int read_value(const struct secrets *x, const char *name, struct buf *out)
{
    int status;
    if (x->file != NULL) {
        status = read_file(x->file, out);
    } else {
        char prompt[PATH_BYTES];
        snprintf(prompt, sizeof prompt, "Value of %s", name);
        status = typed_secret(prompt, out);
    }
    if (out->failed)
        fprintf(stderr, "The limit is %d bytes.\n", SECRET_VALUE_MAX_BYTES);
    if (status != STATUS_OK)
        return status;
    if (out->len == 0)
        return cli_error("the value is empty; 'sandpiper secrets rm' takes a secret away");
    if (out->len > SECRET_VALUE_MAX_BYTES)
        return cli_error("the value has %zu bytes; the limit is %d", out->len, SECRET_VALUE_MAX_BYTES);
    if (!str_is_utf8(buf_view(out)) || memchr(out->data, '\0', out->len) != NULL)
        return cli_error(
            "the value is no text (UTF-8 without NUL), so no variable can hold it: encode it, as with "
            "base64");
    return STATUS_OK;
}

/* ---- calls ---- */

static int path_of(char path[PATH_BYTES], const char *agent, const char *name)
{
    struct err err;
    size_t n = strlen(agent);
    if (n == 0 || n > 63 || strspn(agent, "abcdefghijklmnopqrstuvwxyz0123456789-") != n)
        return cli_error("\"%s\" is no agent's name: those are of lower-case letters, digits and hyphens",
                         agent);
    if (name != NULL && env_name_check(str_of(name), &err) != 0)
        return cli_error("%s", err.msg);
    snprintf(path, PATH_BYTES, "/v1/agents/%s/secrets%s%s", agent, name != NULL ? "/" : "",
             name != NULL ? name : "");
    return STATUS_OK;
}

static int set(const struct secrets *x, const char *agent, const char *name)
{
    char path[PATH_BYTES];
    struct buf value, body;
    struct reply r;
    int status = path_of(path, agent, name);
    if (status != STATUS_OK)
        return status;
    buf_init_secret(&value, SECRET_VALUE_MAX_BYTES + 4096);
    buf_init_secret(&body, BODY_BYTES);
    status = read_value(x, name, &value);
    if (status == STATUS_OK) {
        struct json_writer w = json_writer(&body);
        jw_object(&w);
        jw_kstr(&w, "value", buf_view(&value));
        jw_object_end(&w);
        const struct api_request q = {.method = "PUT",
                                      .path = path,
                                      .headers = {"Content-Type: application/json"},
                                      .body = buf_view(&body),
                                      .retry = API_RETRY_BUSY};
        api_call(x->cli, &q, &r);
        status = reply_check(x->cli, &r, "name");
        if (status == STATUS_OK)
            cli_sleep(x->cli, EFFECTIVE_MS);
        if (status == STATUS_OK && x->cli->json)
            reply_print(&r);
        else if (status == STATUS_OK)
            printf("%s of %s is set; attempts that start from now on have it\n", name, agent);
        reply_deinit(&r);
    }
    buf_deinit(&value);
    buf_deinit(&body);
    return status;
}

static void print_list(const struct reply *r)
{
    const struct json_value *v = json_first(json_get(json_root(r->doc), "data"));
    if (v != NULL)
        printf("%-32s %s\n", "NAME", "SET");
    for (; v != NULL; v = json_next(v)) {
        struct str name = reply_str(v, "name"), at = reply_str(v, "set_at");
        printf("%-32.*s %.*s\n", STR_ARG(name), STR_ARG(at));
    }
}

static int list(const struct secrets *x, const char *agent)
{
    char path[PATH_BYTES];
    struct reply r;
    int status = path_of(path, agent, NULL);
    if (status != STATUS_OK)
        return status;
    const struct api_request q = {.method = "GET", .path = path, .retry = API_RETRY_BUSY};
    api_call(x->cli, &q, &r);
    status = reply_check(x->cli, &r, "data");
    if (status == STATUS_OK && x->cli->json)
        reply_print(&r);
    else if (status == STATUS_OK)
        print_list(&r);
    reply_deinit(&r);
    return status;
}

static int take_away(const struct secrets *x, const char *agent, const char *name)
{
    char path[PATH_BYTES];
    struct reply r;
    int status = path_of(path, agent, name);
    if (status != STATUS_OK)
        return status;
    const struct api_request q = {.method = "DELETE", .path = path};
    api_call(x->cli, &q, &r);
    status = r.kind == REPLY_OK ? STATUS_OK : api_complain(x->cli, &r);
    if (status == STATUS_OK)
        cli_sleep(x->cli, EFFECTIVE_MS);
    if (status == STATUS_OK && !x->cli->json)
        printf("%s of %s is gone; attempts that run keep it to their end\n", name, agent);
    reply_deinit(&r);
    return status;
}

/* ---- the command ---- */

static int rotate(const struct secrets *x)
{
    if (x->private_file == NULL || x->public_file == NULL)
        return cli_error(
            "secrets rotate-key needs --private-keys FILE (the old and the new one) and --public-key "
            "FILE (the new one); see sandpiper secrets --help");
    const char *url = database_url(x->database);
    return url != NULL ? secrets_rotate(x->cli, url, x->private_file, x->public_file) : STATUS_USAGE;
}

static int run(const struct secrets *x, const char *verb, char *const *args, int n)
{
    static const char *const verbs[] = {"init", "set", "ls", "rm", "rotate-key", NULL};
    bool known = false;
    for (int i = 0; verbs[i] != NULL; i++)
        known = known || strcmp(verb, verbs[i]) == 0;
    if (!known)
        return cli_error("there is no command secrets %s; see sandpiper secrets --help", verb);
    if (strcmp(verb, "init") == 0 && n == 1)
        return secrets_init(x->cli, args[0]);
    if (strcmp(verb, "set") == 0 && n == 2)
        return set(x, args[0], args[1]);
    if (strcmp(verb, "ls") == 0 && n == 1)
        return list(x, args[0]);
    if (strcmp(verb, "rm") == 0 && n == 2)
        return take_away(x, args[0], args[1]);
    if (strcmp(verb, "rotate-key") == 0 && n == 0)
        return rotate(x);
    if (strcmp(verb, "set") == 0 && n > 2)
        return cli_error(
            "a value is never an argument, which everybody on the machine can read: give it on stdin, "
            "at the prompt, or with --from-file");
    return cli_error(
        "secrets init DIR | set AGENT NAME | ls AGENT | rm AGENT NAME | rotate-key; see sandpiper "
        "secrets --help");
}

int command_secrets(struct cli *cli, int argc, char **argv)
{
    struct secrets x = {.cli = cli};
    const struct cli_option options[] = {
        {"from-file", CLI_TEXT, &x.file, "FILE", "set: the value is the file, as it is"},
        {"private-keys", CLI_TEXT, &x.private_file, "FILE", "rotate-key: the old and the new private key"},
        {"public-key", CLI_TEXT, &x.public_file, "FILE", "rotate-key: the new public key"},
        {"database-url", CLI_TEXT, &x.database, "URL",
         "rotate-key: the database (also: SANDPIPER_DATABASE_URL)"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {
        "secrets init DIR | set AGENT NAME | ls AGENT | rm AGENT NAME | rotate-key",
        "Secrets of agents: their programs have them as environment variables. A value is asked for at the\n"
        "terminal, or read from stdin (without the line end) or from a file; it is never shown again.\n"
        "  init DIR     makes the keys that secrets are sealed with: two pairs, for webhooks and for "
        "environments;\n"
        "               what is there is left\n"
        "  rotate-key   for operators: seals all secrets anew with a new key, while everything runs. Before: "
        "put the\n"
        "               new private key below the old one in executors' file and restart them, then give "
        "gateways\n"
        "               the new public key and restart them. Afterwards: take the old one out of executors' "
        "file",
        options, 1, 4};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    return run(&x, argv[first], argv + first + 1, argc - first - 1);
}
