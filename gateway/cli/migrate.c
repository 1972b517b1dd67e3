/* migrate: brings the database up to date. */
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "database.h"
#include "store/migrate.h"

struct migrate {
    struct cli *cli;
    int applied, status;
};

const char *database_url(const char *given)
{
    const char *url = given != NULL ? given : getenv("SANDPIPER_DATABASE_URL");
    if (url != NULL && url[0] != '\0')
        return url;
    cli_error("set SANDPIPER_DATABASE_URL, as in postgresql://user@host/name");
    return NULL;
}

/* A database that answers may lack its schema; one that does not is not there. */
const char *database_advice(const struct err *err)
{
    if (err->code == ERR_PG || err->code == ERR_PG_DATA)
        return "Has 'sandpiper migrate' been run?";
    return "Is PostgreSQL running? SANDPIPER_DATABASE_URL says where.";
}

static void on_step(void *arg, const struct migration *m)
{
    struct migrate *x = arg;
    x->applied++;
    cli_spin(x->cli, NULL);
    if (!x->cli->json)
        printf("applied %04d %s\n", m->version, m->name);
}

static void on_done(void *arg, const struct err *err)
{
    struct migrate *x = arg;
    loop_stop(x->cli->loop);
    cli_spin(x->cli, NULL);
    if (err != NULL) {
        bool answered = err->code == ERR_PG || err->code == ERR_PG_DATA;
        cli_error("%s%s%s", err->msg, answered ? "" : "\n", answered ? "" : database_advice(err));
        x->status = STATUS_API;
    } else if (x->cli->json) {
        printf("{\"applied\":%d,\"version\":%d}\n", x->applied, migrations[migration_count - 1].version);
    } else if (x->applied == 0) {
        printf("the database is up to date\n");
    }
}

int command_migrate(struct cli *cli, int argc, char **argv)
{
    struct migrate x = {.cli = cli};
    const char *option = NULL;
    const struct cli_option options[] = {
        {"database-url", CLI_TEXT, &option, "URL", "the database (also: SANDPIPER_DATABASE_URL)"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {
        "migrate",
        "Brings the database up to date. Running it twice, or at once from two places, is harmless.", options,
        0, 0};
    struct err err;
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    const char *url = database_url(option);
    if (url == NULL)
        return STATUS_USAGE;
    if (migrate_run(cli->loop, url, on_step, on_done, &x, &err) != 0) {
        cli_error("%s", err.msg);
        return STATUS_API;
    }
    cli_spin(cli, "waiting for the database");
    loop_run(cli->loop);
    return x.status;
}
