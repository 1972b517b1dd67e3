/* The command line of a daemon, and what is printed about its configuration. settings.c gathers, value.c
 * converts. */
#include "config/config.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/settings.h"

enum option_code {
    OPTION_HELP = 256,
    OPTION_VERSION,
    OPTION_CONFIG,
    OPTION_CHECK,
    OPTION_PRINT,
    OPTION_FLAG
};
enum { OWN_OPTIONS = 5 };

static const struct option own_options[OWN_OPTIONS] = {
    {"help", no_argument, NULL, OPTION_HELP},           {"version", no_argument, NULL, OPTION_VERSION},
    {"config", required_argument, NULL, OPTION_CONFIG}, {"check-config", no_argument, NULL, OPTION_CHECK},
    {"print-config", no_argument, NULL, OPTION_PRINT},
};

struct request {
    bool help, version, check, print;
    const char *file;
};

/* ---- printing ---- */

static const char *kind_name(enum config_kind kind)
{
    switch (kind) {
    case CONFIG_STRING:
        return "text";
    case CONFIG_SECRET:
        return "secret";
    case CONFIG_INT:
        return "number";
    case CONFIG_BOOL:
        return "true or false";
    case CONFIG_BYTES:
        return "size";
    case CONFIG_MS:
        return "time";
    case CONFIG_LISTEN:
        return "address:port";
    case CONFIG_URL:
        return "url";
    }
    return "";
}

static void print_row_help(const struct config_row *row)
{
    printf("  %s (%s", row->key, kind_name(row->kind));
    if (row->min != 0 || row->max != 0)
        printf(", %lld to %lld", (long long)row->min, (long long)row->max);
    if (row->fallback != NULL)
        printf(", default %s", row->fallback);
    printf("%s)\n      %s%s\n", row->required ? ", required" : "", row->help,
           row->kind == CONFIG_SECRET ? " Or the same key with _FILE: a file that holds it." : "");
}

static void print_help(const struct config_table *table)
{
    printf("Usage: %s [OPTION]...\n%s\n\n", table->daemon, table->about);
    printf("  --config FILE    read KEY=value lines from FILE (also: SANDPIPER_CONFIG)\n"
           "  --check-config   check the configuration and leave: status 0 or 2\n"
           "  --print-config   print the configuration in force, without secrets\n"
           "  --version        print the version\n"
           "  --help           print this\n");
    for (size_t i = 0; i < table->flag_count; i++)
        printf("  %s\n      %s\n", table->flags[i].name, table->flags[i].help);
    printf("\nKeys, from the environment or the file:\n");
    for (size_t i = 0; i < table->count; i++)
        print_row_help(&table->rows[i]);
}

/* Hides the password of "scheme://user:password@host" and of libpq's "… password=…". */
static void print_text(const char *text)
{
    const char *authority = strstr(text, "://");
    const char *end = authority != NULL ? authority + 3 + strcspn(authority + 3, "/?") : NULL;
    const char *at = end != NULL ? memrchr(authority, '@', (size_t)(end - authority)) : NULL;
    const char *colon = at != NULL ? memchr(authority + 3, ':', (size_t)(at - authority - 3)) : NULL;
    if (strcasestr(text, "password=") != NULL)
        printf("(set; it holds a password)\n");
    else if (colon != NULL)
        printf("%.*s:***%s\n", (int)(colon - text), text, at);
    else
        printf("%s\n", text);
}

static void print_settings(const struct settings *s)
{
    for (size_t i = 0; i < s->table->count; i++) {
        const struct config_row *row = &s->table->rows[i];
        const char *text = s->of[i].text != NULL ? s->of[i].text : row->fallback;
        printf("%s=", row->key);
        if (text == NULL)
            printf("\n");
        else if (row->kind == CONFIG_SECRET)
            printf("(set)\n");
        else
            print_text(text);
    }
}

/* ---- the command line ---- */

static struct option *all_options(const struct config_table *table)
{
    struct option *all = calloc(OWN_OPTIONS + table->flag_count + 1, sizeof *all);
    if (all == NULL)
        return NULL;
    memcpy(all, own_options, sizeof own_options);
    for (size_t i = 0; i < table->flag_count; i++) /* names are written with their dashes */
        all[OWN_OPTIONS + i] = (struct option){table->flags[i].name + strspn(table->flags[i].name, "-"),
                                               no_argument, NULL, OPTION_FLAG + (int)i};
    return all;
}

static void take_option(struct settings *s, int code, struct request *req, void *out)
{
    const struct config_table *table = s->table;
    static const bool yes = true;
    if (code >= OPTION_FLAG && (size_t)(code - OPTION_FLAG) < table->flag_count)
        memcpy((char *)out + table->flags[code - OPTION_FLAG].offset, &yes, sizeof yes);
    else if (code == OPTION_HELP)
        req->help = true;
    else if (code == OPTION_VERSION)
        req->version = true;
    else if (code == OPTION_CHECK)
        req->check = true;
    else if (code == OPTION_PRINT)
        req->print = true;
    else if (code == OPTION_CONFIG)
        req->file = optarg;
}

static void parse_arguments(struct settings *s, int argc, char **argv, struct request *req, void *out)
{
    struct option *options = all_options(s->table);
    if (options == NULL) {
        settings_fault(s, "no memory");
        return;
    }
    int code;
    opterr = 0;
    optind = 0; /* GNU: start afresh */
    while ((code = getopt_long(argc, argv, "+:", options, NULL)) != -1) {
        if (code == ':')
            settings_fault(s, "%s needs an argument", argv[optind - 1]);
        else if (code == '?')
            settings_fault(s, "unknown option %s; see --help", argv[optind - 1]);
        else
            take_option(s, code, req, out);
    }
    if (optind < argc)
        settings_fault(s, "unexpected argument %s; see --help", argv[optind]);
    free(options);
}

/* ---- loading ---- */

static void gather(struct settings *s, const struct request *req, void *out)
{
    const char *file = req->file != NULL ? req->file : getenv("SANDPIPER_CONFIG");
    if (file != NULL && file[0] != '\0')
        settings_read_file(s, file);
    settings_read_environment(s);
    settings_apply(s, out);
}

static enum config_action load(struct settings *s, int argc, char **argv, void *out)
{
    struct request req = {0};
    parse_arguments(s, argc, argv, &req, out);
    if (s->faults > 0)
        return CONFIG_EXIT_BAD;
    if (req.help) {
        print_help(s->table);
        return CONFIG_EXIT_OK;
    }
    if (req.version) {
        printf("%s %s\n", s->table->daemon, SP_VERSION);
        return CONFIG_EXIT_OK;
    }
    gather(s, &req, out);
    if (req.print)
        print_settings(s);
    if (s->faults > 0)
        return CONFIG_EXIT_BAD;
    if (req.check)
        printf("configuration ok\n");
    return req.check || req.print ? CONFIG_EXIT_OK : CONFIG_RUN;
}

enum config_action config_load(const struct config_table *table, int argc, char **argv, void *out)
{
    struct settings s;
    enum config_action action = CONFIG_EXIT_BAD;
    if (crypto_init(NULL) == 0 && settings_init(&s, table, true, NULL)) {
        action = load(&s, argc, argv, out);
        if (action == CONFIG_RUN)
            settings_clear_environment(&s);
        settings_deinit(&s);
    }
    if (action != CONFIG_RUN)
        config_unload(table, out);
    return action;
}

int config_parse_text(const struct config_table *table, struct str text, void *out, struct err *err)
{
    struct settings s;
    if (!settings_init(&s, table, false, err))
        return err_set(err, ERR_NO_MEMORY, "no memory for the configuration");
    settings_read_text(&s, "configuration", text);
    settings_apply(&s, out);
    int faults = s.faults;
    settings_deinit(&s);
    return faults == 0 ? 0 : -1;
}

static void unload_row(const struct config_row *row, void *field)
{
    void *p;
    switch (row->kind) {
    case CONFIG_STRING:
    case CONFIG_LISTEN:
    case CONFIG_URL:
        memcpy(&p, field, sizeof p);
        free(p);
        break;
    case CONFIG_SECRET: {
        struct secret *secret;
        memcpy(&secret, field, sizeof secret);
        secret_free(&secret);
        break;
    }
    case CONFIG_INT:
    case CONFIG_BOOL:
    case CONFIG_BYTES:
    case CONFIG_MS:
        return;
    }
    p = NULL;
    memcpy(field, &p, sizeof p);
}

void config_unload(const struct config_table *table, void *out)
{
    for (size_t i = 0; i < table->count; i++)
        unload_row(&table->rows[i], (char *)out + table->rows[i].offset);
}
