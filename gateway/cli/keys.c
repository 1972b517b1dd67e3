/* keys: API keys. They are made, listed and revoked by the gateway; the first one of an installation, and
 * those of other tenants, in the database. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "database.h"
#include "json/writer.h"
#include "slug.h"
#include "store/keys.h"
#include "walk.h"

enum { CREATE_MS = 10000, BODY_BYTES = 8192, PATH_BYTES = 128, PAGE = 200 };

struct keys {
    struct cli *cli;
    const char *name, *expires, *tenant, *database;
    struct cli_list scopes;
    bool revoked;
    unsigned bits;                   /* of scopes; 0: none was given */
    char expires_at[CLI_WHEN_BYTES]; /* "": never */
};

/* ---- showing ---- */

static const char *word(struct str s, const char *none)
{
    return s.n > 0 ? s.p : none;
}

static void print_scopes(const struct json_value *key, int width)
{
    unsigned scopes = 0;
    char text[KEY_SCOPES_TEXT_BYTES];
    struct str name;
    for (const struct json_value *v = json_first(json_get(key, "scopes")); v != NULL; v = json_next(v))
        if (json_str(v, &name))
            scopes |= key_scope_parse(name);
    key_scopes_text(scopes, ",", text);
    printf("%-*s", width, text);
}

static void print_rows(struct walk *w, const struct reply *r, const struct json_value *list)
{
    (void)r;
    if (w->shown == 0 && json_first(list) != NULL)
        printf("%-40s %-8s %-22s %-24s %-24s %s\n", "ID", "PREFIX", "SCOPES", "LAST USED", "EXPIRES", "NAME");
    for (const struct json_value *k = json_first(list); k != NULL; k = json_next(k)) {
        struct str prefix = reply_str(k, "prefix"), name = reply_str(k, "name");
        bool revoked = reply_str(k, "revoked_at").n > 0;
        printf("%-40.*s %-8.*s ", STR_ARG(reply_str(k, "id")), STR_ARG(prefix));
        print_scopes(k, 23);
        printf("%-24s %-24s %.*s\n", word(reply_str(k, "last_used_at"), "-"),
               revoked ? "revoked" : word(reply_str(k, "expires_at"), "never"), STR_ARG(name));
    }
}

static int list(struct keys *x)
{
    struct walk w = {.cli = x->cli, .member = "data", .page = PAGE, .left = -1, .take = print_rows};
    walk_begin(&w, x->revoked ? "/v1/keys?revoked=true&" : "/v1/keys?");
    int status = walk_pages(&w);
    buf_deinit(&w.path);
    return status;
}

static void print_one(const struct json_value *k)
{
    static const char *const keys[] = {"id",         "name",         "prefix",    "created_at",
                                       "expires_at", "last_used_at", "revoked_at"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (reply_str(k, keys[i]).n > 0)
            printf("%-13s %.*s\n", keys[i], STR_ARG(reply_str(k, keys[i])));
    printf("%-13s ", "scopes");
    print_scopes(k, 0);
    printf("\n");
}

/* ---- one key ---- */

static int call(struct keys *x, const char *method, const char *id)
{
    char path[PATH_BYTES];
    struct uuid uuid;
    struct reply r;
    bool revoke = strcmp(method, "DELETE") == 0;
    if (strcmp(id, "self") != 0 && !id_parse("key", str_of(id), &uuid))
        return cli_error("\"%s\" is no key's id: those begin with key_, as 'sandpiper keys ls' shows them",
                         id);
    snprintf(path, sizeof path, "/v1/keys/%s", id);
    const struct api_request q = {.method = method, .path = path, .retry = API_RETRY_BUSY};
    api_call(x->cli, &q, &r);
    int status = r.kind == REPLY_OK && revoke ? STATUS_OK : reply_check(x->cli, &r, "id");
    if (status == STATUS_OK && revoke)
        fprintf(stderr, "%s is revoked\n", id);
    else if (status == STATUS_OK && x->cli->json)
        reply_print(&r);
    else if (status == STATUS_OK)
        print_one(json_root(r.doc));
    reply_deinit(&r);
    return status;
}

/* ---- making one ---- */

/* The key to stdout, alone, so that a script can keep it; what it is to stderr. */
static void print_key(struct str key, unsigned scopes, const char *whose)
{
    char text[KEY_SCOPES_TEXT_BYTES];
    key_scopes_text(scopes, ", ", text);
    printf("%.*s\n", STR_ARG(key));
    fflush(stdout);
    fprintf(stderr, "A key%s with the scope%s %s; it is shown this once only.\n", whose,
            strchr(text, ',') != NULL ? "s" : "", text);
}

static void write_body(const struct keys *x, struct buf *body)
{
    struct json_writer w = json_writer(body);
    jw_object(&w);
    jw_kcstr(&w, "name", x->name);
    if (x->bits != 0) {
        jw_key(&w, "scopes");
        jw_array(&w);
        for (unsigned bit = 1; bit <= KEY_SCOPES_ALL; bit <<= 1)
            if ((x->bits & bit) != 0)
                jw_cstr(&w, key_scope_name(bit));
        jw_array_end(&w);
    }
    if (x->expires_at[0] != '\0')
        jw_kcstr(&w, "expires_at", x->expires_at);
    jw_object_end(&w);
}

static int create_by_gateway(struct keys *x)
{
    struct buf body;
    struct reply r;
    buf_init(&body, BODY_BYTES);
    write_body(x, &body);
    const struct api_request q = {.method = "POST",
                                  .path = "/v1/keys",
                                  .headers = {"Content-Type: application/json"},
                                  .body = buf_view(&body)};
    api_call(x->cli, &q, &r);
    int status = reply_check(x->cli, &r, "key");
    if (status == STATUS_OK && x->cli->json)
        reply_print(&r);
    else if (status == STATUS_OK)
        print_key(reply_str(json_root(r.doc), "key"), x->bits != 0 ? x->bits : KEY_INVOKE, "");
    crypto_wipe(r.body.data, r.body.len);
    reply_deinit(&r);
    buf_deinit(&body);
    return status;
}

struct made {
    struct loop *loop;
    enum key_made what;
    struct err err;
};

static void on_created(void *arg, enum key_made what, const struct err *err)
{
    struct made *m = arg;
    m->what = what;
    if (err != NULL)
        m->err = *err;
    loop_stop(m->loop);
}

static void print_json(const struct keys *x, const struct key_record *k, const char *key)
{
    struct buf out;
    buf_init(&out, BODY_BYTES);
    struct json_writer w = json_writer(&out);
    jw_object(&w);
    jw_kid(&w, "id", "key", k->id);
    jw_kcstr(&w, "key", key);
    jw_kstr(&w, "name", k->name);
    jw_kcstr(&w, "tenant", x->tenant);
    jw_ktime(&w, "expires_at", k->expires_at);
    jw_object_end(&w);
    printf("%.*s\n", STR_ARG(buf_view(&out)));
    buf_deinit(&out);
}

static int put_into_database(struct keys *x, const struct key_record *k, const char *key)
{
    struct made m = {.loop = x->cli->loop};
    const char *url = database_url(x->database);
    if (url == NULL)
        return STATUS_USAGE;
    const struct pg_options options = {.url = url, .application = "sandpiper-cli"};
    struct pg *pg = pg_open(x->cli->loop, &options, &m.err);
    if (pg == NULL)
        return cli_error("%s", m.err.msg);
    if (key_create_for(pg, str_of(x->tenant), k, str_of(key), CREATE_MS, on_created, &m, &m.err) == 0) {
        cli_spin(x->cli, "waiting for the database");
        loop_run(x->cli->loop);
        cli_spin(x->cli, NULL);
    }
    pg_close(&pg);
    if (m.err.code == ERR_NONE && m.what == KEY_MADE)
        return STATUS_OK;
    if (m.err.code == ERR_NONE)
        cli_error("tenant %s has 1,000 keys already; revoke one that is not needed", x->tenant);
    else
        cli_error("%s\n%s", m.err.msg, database_advice(&m.err));
    return STATUS_API;
}

static int create_in_database(struct keys *x)
{
    char key[API_KEY_TEXT_BYTES], whose[128];
    struct key_record k = {.id = uuid_new(),
                           .name = str_of(x->name),
                           .scopes = x->bits != 0 ? x->bits : KEY_ADMIN,
                           .created_at = wall_now()};
    if (x->tenant == NULL)
        x->tenant = "default";
    if (x->expires_at[0] != '\0')
        wall_parse(str_of(x->expires_at), &k.expires_at);
    crypto_api_key_new(key);
    int status = put_into_database(x, &k, key);
    snprintf(whose, sizeof whose, " of tenant %s", x->tenant);
    if (status == STATUS_OK && x->cli->json)
        print_json(x, &k, key);
    else if (status == STATUS_OK)
        print_key(str_of(key), k.scopes, whose);
    crypto_wipe(key, sizeof key);
    return status;
}

static int create(struct keys *x)
{
    if (x->tenant != NULL && !cli_is_slug(x->tenant))
        return cli_error("--tenant takes lower-case letters, digits and hyphens, at most 63");
    if (!key_name_valid(str_of(x->name)))
        return cli_error("--name takes 1 to %d bytes of text", KEY_NAME_MAX_BYTES);
    for (int i = 0; i < x->scopes.count; i++) {
        unsigned bits = key_scopes_parse(str_of(x->scopes.items[i]));
        if (bits == 0)
            return cli_error("--scope takes read, invoke, deploy and admin, not \"%s\"", x->scopes.items[i]);
        x->bits |= bits;
    }
    if (x->expires != NULL && !cli_when_ahead(x->expires, x->expires_at))
        return cli_error("--expires needs a span as in 12h, 90d, or a time as in 2027-01-31T00:00:00Z, not "
                         "\"%s\"",
                         x->expires);
    bool direct = x->tenant != NULL || x->database != NULL || !api_has_key(x->cli);
    return direct ? create_in_database(x) : create_by_gateway(x);
}

/* ---- the command ---- */

static int run(struct keys *x, const char *verb, char *const *args, int n)
{
    if (strcmp(verb, "create") == 0 && n == 0)
        return create(x);
    if ((strcmp(verb, "ls") == 0 || strcmp(verb, "list") == 0) && n == 0)
        return list(x);
    if (strcmp(verb, "show") == 0 && n <= 1)
        return call(x, "GET", n == 1 ? args[0] : "self");
    if (strcmp(verb, "revoke") == 0 && n == 1)
        return call(x, "DELETE", args[0]);
    return cli_error("keys create | ls | show [ID] | revoke ID; see sandpiper keys --help");
}

int command_keys(struct cli *cli, int argc, char **argv)
{
    struct keys x = {.cli = cli, .name = "cli"};
    const struct cli_option options[] = {
        {"name", CLI_TEXT, &x.name, "N", "what the new key is for (default cli)"},
        {"scope", CLI_LIST, &x.scopes, "S,…",
         "what it may: read, invoke, deploy, admin (default invoke; in the database admin)"},
        {"expires", CLI_TEXT, &x.expires, "WHEN", "until when: 90d, 2027-01-31T00:00:00Z (default for ever)"},
        {"revoked", CLI_FLAG, &x.revoked, NULL, "ls: list those that were revoked, too"},
        {"tenant", CLI_TEXT, &x.tenant, "T",
         "create: in the database, for this tenant, which is made when new"},
        {"database-url", CLI_TEXT, &x.database, "URL", "the database (also: SANDPIPER_DATABASE_URL)"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {
        "keys [create | ls | show [ID] | revoke ID]",
        "API keys, of the tenant whose key is used: makes one and prints it, lists them, shows one (the one "
        "in "
        "use),\n"
        "revokes one. Without a key at hand, or with --tenant, create works in the database: so the first "
        "one "
        "is made.\n"
        "A key may read (look at everything but keys), invoke (submit, cancel, retry, and look at that), "
        "deploy\n"
        "(agents and their secrets), or admin (everything).",
        options, 0, 2};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    return run(&x, first < argc ? argv[first] : "ls", argv + first + 1, first < argc ? argc - first - 1 : 0);
}
