/* keys create: makes an API key directly in the database, for the first key of an installation and for
 * operators. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "database.h"
#include "json/writer.h"
#include "slug.h"
#include "store/keys.h"

enum { CREATE_MS = 10000 };

struct create {
    struct cli *cli;
    struct uuid id;
    struct err err;
};

static void on_created(void *arg, struct uuid id, const struct err *err)
{
    struct create *x = arg;
    x->id = id;
    if (err != NULL)
        x->err = *err;
    loop_stop(x->cli->loop);
}

static void print_json(const struct create *x, const char *key, const char *name, const char *tenant)
{
    struct buf out;
    buf_init(&out, 4096);
    struct json_writer w = json_writer(&out);
    jw_object(&w);
    jw_kid(&w, "id", "key", x->id);
    jw_kcstr(&w, "key", key);
    jw_kcstr(&w, "name", name);
    jw_kcstr(&w, "tenant", tenant);
    jw_object_end(&w);
    printf("%.*s\n", STR_ARG(buf_view(&out)));
    buf_deinit(&out);
}

static int create(struct cli *cli, const char *url, const char *tenant, const char *name)
{
    char key[API_KEY_TEXT_BYTES];
    struct create x = {.cli = cli};
    const struct pg_options options = {.url = url, .application = "sandpiper-cli"};
    struct pg *pg = pg_open(cli->loop, &options, &x.err);
    if (pg == NULL)
        return cli_error("%s", x.err.msg);
    crypto_api_key_new(key);
    if (key_create(pg, str_of(tenant), true, str_of(name), str_of(key), CREATE_MS, on_created, &x, &x.err) ==
        0) {
        cli_spin(cli, "waiting for the database");
        loop_run(cli->loop);
        cli_spin(cli, NULL);
    }
    pg_close(&pg);
    if (x.err.code != ERR_NONE) {
        cli_error("%s\n%s", x.err.msg, database_advice(&x.err));
        crypto_wipe(key, sizeof key);
        return STATUS_API;
    }
    if (cli->json) {
        print_json(&x, key, name, tenant);
    } else {
        printf("%s\n", key);
        fflush(stdout);
        fprintf(stderr, "A key of tenant %s; it is shown this once only.\n", tenant);
    }
    crypto_wipe(key, sizeof key);
    return STATUS_OK;
}

int command_keys(struct cli *cli, int argc, char **argv)
{
    const char *name = "cli", *tenant = "default", *option = NULL;
    const struct cli_option options[] = {
        {"name", CLI_TEXT, &name, "N", "what the key is for (default cli)"},
        {"tenant", CLI_TEXT, &tenant, "T", "whose it is; made when new (default \"default\")"},
        {"database-url", CLI_TEXT, &option, "URL", "the database (also: SANDPIPER_DATABASE_URL)"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {"keys create", "Makes an API key in the database and prints it.", options,
                                    1, 1};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    if (strcmp(argv[first], "create") != 0)
        return cli_error("there is no command keys %s; see sandpiper keys --help", argv[first]);
    if (!cli_is_slug(tenant))
        return cli_error("--tenant takes lower-case letters, digits and hyphens, at most 63");
    const char *url = database_url(option);
    return url != NULL ? create(cli, url, tenant, name) : STATUS_USAGE;
}
