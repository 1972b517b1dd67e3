/* doctor: asks everything that a job needs, and says what to do about what does not answer. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "doctor.h"
#include "json/writer.h"

#define QUICKSTART_CONFIG ".sandpiper/sandpiper.env"
enum { DETAIL_BYTES = 512, ASK_MS = 5000 };

static void tell_json(enum finding what, const char *check, const char *detail, const char *fix)
{
    static const char *const names[] = {"ok", "bad", "skipped"};
    struct buf out;
    buf_init(&out, 8192);
    struct json_writer w = json_writer(&out);
    jw_object(&w);
    jw_kcstr(&w, "check", check);
    jw_kcstr(&w, "status", names[what]);
    jw_kcstr(&w, "detail", detail);
    if (fix != NULL)
        jw_kcstr(&w, "fix", fix);
    jw_object_end(&w);
    printf("%.*s\n", STR_ARG(buf_view(&out)));
    buf_deinit(&out);
}

static void tell_line(enum finding what, const char *check, const char *detail, const char *fix)
{
    static const char *const signs[] = {"ok", "BAD", "-"};
    static const char *const colours[] = {"\033[32m", "\033[31m", "\033[2m"};
    bool coloured = isatty(STDOUT_FILENO) != 0;
    printf("%s%-4s%s %-12s %s\n", coloured ? colours[what] : "", signs[what], coloured ? "\033[0m" : "",
           check, detail);
    if (fix != NULL)
        printf("     %-12s %s\n", "", fix);
}

void doctor_tell(struct doctor *d, enum finding what, const char *check, const char *fix, const char *fmt,
                 ...)
{
    char detail[DETAIL_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    cli_spin(d->cli, NULL);
    d->bad += what == FOUND_BAD;
    (d->cli->json ? tell_json : tell_line)(what, check, detail, fix);
}

/* ---- the gateway ---- */

static void ask(struct doctor *d, const char *path, struct reply *r)
{
    const struct api_request q = {.method = "GET", .path = path, .timeout_ms = ASK_MS};
    cli_spin(d->cli, "asking the gateway");
    api_call(d->cli, &q, r);
}

/* Whether it is there at all. */
static bool look_at_gateway(struct doctor *d)
{
    struct reply r;
    ask(d, "/healthz", &r);
    struct str version = reply_str(json_root(r.doc), "version");
    bool there = r.kind == REPLY_OK && version.n > 0;
    const char *url = d->cli->url != NULL ? d->cli->url : "";
    if (r.kind == REPLY_FAILED)
        doctor_tell(d, FOUND_BAD, "gateway", "start it (deploy/quickstart), or name it: SANDPIPER_URL, --url",
                    "%s does not answer: %s", url, r.err.msg);
    else if (!there)
        doctor_tell(d, FOUND_BAD, "gateway", "check SANDPIPER_URL: something else listens there",
                    "%s does not answer as a gateway does (status %d)", url, r.status);
    else if (!str_eq_c(version, SP_VERSION))
        doctor_tell(d, FOUND_BAD, "gateway", "use the command line that came with the gateway",
                    "%s is of version %.*s, this command line of " SP_VERSION, url, STR_ARG(version));
    else
        doctor_tell(d, FOUND_WELL, "gateway", NULL, "%s answers, version " SP_VERSION, url);
    reply_deinit(&r);
    return there;
}

static bool is_false(const struct json_value *object, const char *key)
{
    bool value;
    return json_bool(json_get(object, key), &value) && !value;
}

static void look_at_readiness(struct doctor *d)
{
    struct reply r;
    ask(d, "/readyz", &r);
    const struct json_value *root = json_root(r.doc);
    struct str reason = reply_str(root, "reason");
    if (r.kind == REPLY_OK && is_false(root, "redis"))
        doctor_tell(d, FOUND_BAD, "accepting",
                    "is Redis running? the gateway's SANDPIPER_REDIS_URL says where",
                    "it accepts jobs, but has no Redis: they wait");
    else if (r.kind == REPLY_OK)
        doctor_tell(d, FOUND_WELL, "accepting", NULL, "it accepts jobs");
    else if (is_false(root, "postgres"))
        doctor_tell(d, FOUND_BAD, "accepting",
                    "is PostgreSQL running? the gateway's SANDPIPER_DATABASE_URL says where",
                    "it accepts no jobs: it has no PostgreSQL");
    else
        doctor_tell(d, FOUND_BAD, "accepting", "its log says more", "it accepts no jobs%s%.*s",
                    reason.n > 0 ? ": " : "", STR_ARG(reason));
    reply_deinit(&r);
}

static void look_at_key(struct doctor *d)
{
    struct reply r;
    ask(d, "/v1/keys/self", &r);
    const struct json_value *root = json_root(r.doc);
    struct str code = reply_str(root, "code");
    if (r.kind == REPLY_OK)
        doctor_tell(d, FOUND_WELL, "key", NULL, "the API key \"%.*s\" is let in; scopes: %.*s",
                    STR_ARG(reply_str(root, "name")), STR_ARG(json_member_source(r.doc, "scopes")));
    else if (d->cli->authorization == NULL)
        doctor_tell(
            d, FOUND_BAD, "key",
            "set SANDPIPER_API_KEY, or be where .sandpiper/api-key is; 'sandpiper keys create' makes one",
            "there is no API key");
    else if (r.status == 401)
        doctor_tell(d, FOUND_BAD, "key", "'sandpiper keys create' makes another",
                    "the gateway refuses the key");
    else
        doctor_tell(d, FOUND_BAD, "key", "its log says more", "it could not be tried (status %d %.*s)",
                    r.status, STR_ARG(code));
    reply_deinit(&r);
}

int command_doctor(struct cli *cli, int argc, char **argv)
{
    struct doctor d = {.cli = cli};
    const char *config = NULL;
    const struct cli_option options[] = {
        {"config", CLI_TEXT, &config, "FILE",
         "the daemons' settings (default " QUICKSTART_CONFIG ", where it is), besides the environment"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {
        "doctor",
        "Asks everything that a job needs, and says what to do about what does not answer.\n"
        "PostgreSQL, Redis and the sandbox service are asked where the settings are at hand.",
        options, 0, 0};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    if (config == NULL && access(QUICKSTART_CONFIG, R_OK) == 0)
        config = QUICKSTART_CONFIG;
    cli_catch_interrupt(cli);
    if (look_at_gateway(&d)) {
        look_at_readiness(&d);
        look_at_key(&d);
    }
    status = cli->interrupted ? STATUS_INTERRUPTED : doctor_services(&d, config);
    if (status != STATUS_OK)
        return status;
    return d.bad > 0 ? STATUS_ENDED : STATUS_OK;
}
