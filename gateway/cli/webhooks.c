/* webhooks: standing endpoints, what was sent to them, and sending it again. A table of sub-commands, each
 * one call to the gateway (replay: as many as it takes). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "crypto/crypto.h"
#include "json/writer.h"

enum { PATH_BYTES = 256, BODY_BYTES = 64 * 1024, ID_MAX = 80, LIMIT_DEFAULT = 20 };

struct options {
    struct cli_list events;
    const char *description, *secret, *since, *until, *cursor;
    int64_t overlap_s, limit;
    bool all;
};

struct verb {
    const char *name;
    int args; /* after its name */
    int (*run)(struct cli *cli, const struct options *o, char **argv);
};

/* ---- calls ---- */

static bool id_is_plain(const char *id)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    if (id[0] != '\0' && strspn(id, plain) == strlen(id) && strlen(id) <= ID_MAX)
        return true;
    cli_error("\"%s\" is no id; webhooks have ids like whk_…", id);
    return false;
}

/* The call of METHOD /v1/webhooks[/ID[/what]]; the status, and the reply to be deinited in every case. */
static int call(struct cli *cli, const char *method, const char *id, const char *what, struct buf *body,
                struct reply *r)
{
    char path[PATH_BYTES];
    *r = (struct reply){0};
    if (id != NULL && !id_is_plain(id))
        return STATUS_USAGE;
    snprintf(path, sizeof path, "/v1/webhooks%s%s%s%s", id != NULL ? "/" : "", id != NULL ? id : "",
             what != NULL ? (what[0] == '?' ? "" : "/") : "", what != NULL ? what : "");
    const struct api_request q = {.method = method,
                                  .path = path,
                                  .headers = {body != NULL ? "Content-Type: application/json" : NULL},
                                  .body = body != NULL ? buf_view(body) : STR(""),
                                  .retry = strcmp(method, "GET") == 0 ? API_RETRY_BUSY : API_ONCE};
    api_call(cli, &q, r);
    return r->kind == REPLY_OK ? STATUS_OK : api_complain(cli, r);
}

static void print_text(const char *label, struct str s)
{
    if (s.n > 0)
        printf("%-12s %.*s\n", label, STR_ARG(s));
}

static void print_events(const struct json_value *endpoint, const char *label)
{
    printf("%s", label);
    for (const struct json_value *v = json_first(json_get(endpoint, "events")); v != NULL; v = json_next(v)) {
        struct str name = STR("");
        json_str(v, &name);
        printf("%.*s%s", STR_ARG(name), json_next(v) != NULL ? "," : "");
    }
    printf("\n");
}

static void print_endpoint(const struct json_value *e)
{
    static const char *const texts[] = {
        "id", "url", "description", "status", "disabled_reason", "failing_since", "created_at"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        print_text(texts[i], reply_str(e, texts[i]));
    print_events(e, "events       ");
}

/* The answer, as JSON or in words, and its secret if it has one. */
static int show(struct cli *cli, int status, struct reply *r)
{
    if (status == STATUS_OK && cli->json && r->body.len > 0) {
        reply_print(r);
    } else if (status == STATUS_OK && r->doc != NULL) {
        print_endpoint(json_root(r->doc));
        struct str secret = reply_str(json_root(r->doc), "secret");
        print_text("secret", secret);
        fflush(stdout);
        if (secret.n > 0)
            fprintf(stderr, "The secret is shown this once only.\n");
    }
    reply_deinit(r);
    return status;
}

/* ---- endpoints ---- */

static int run_list(struct cli *cli, const struct options *o, char **argv)
{
    struct reply r;
    (void)o, (void)argv;
    int status = call(cli, "GET", NULL, "?limit=200", NULL, &r);
    if (status == STATUS_OK && cli->json) {
        reply_print(&r);
    } else if (status == STATUS_OK) {
        const struct json_value *list = json_get(json_root(r.doc), "data");
        if (json_first(list) == NULL)
            printf("There are none. Try: sandpiper webhooks create https://example.com/hook\n");
        for (const struct json_value *v = json_first(list); v != NULL; v = json_next(v)) {
            struct str url = reply_str(v, "url");
            printf("%-40.*s  %-8.*s  %.*s  ", STR_ARG(reply_str(v, "id")), STR_ARG(reply_str(v, "status")),
                   STR_ARG(url.n > 0 ? url : STR("(stream)")));
            print_events(v, "");
        }
    }
    reply_deinit(&r);
    return status;
}

static void write_events(struct json_writer *w, const struct cli_list *events)
{
    if (events->count == 0)
        return;
    jw_key(w, "events");
    jw_array(w);
    for (int i = 0; i < events->count; i++) {
        struct str rest = str_of(events->items[i]), one;
        while (str_split(&rest, ',', &one))
            jw_str(w, str_trim(one));
    }
    jw_array_end(w);
}

static int run_create(struct cli *cli, const struct options *o, char **argv)
{
    struct buf body;
    struct reply r;
    buf_init(&body, BODY_BYTES);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    jw_kcstr(&w, "url", argv[0]);
    write_events(&w, &o->events);
    if (o->description != NULL)
        jw_kcstr(&w, "description", o->description);
    if (o->secret != NULL)
        jw_kcstr(&w, "secret", o->secret);
    jw_object_end(&w);
    int status = call(cli, "POST", NULL, NULL, &body, &r);
    buf_deinit(&body);
    return show(cli, status, &r);
}

static int run_delete(struct cli *cli, const struct options *o, char **argv)
{
    struct reply r;
    (void)o;
    int status = call(cli, "DELETE", argv[0], NULL, NULL, &r);
    if (status == STATUS_OK && !cli->json)
        printf("deleted %s\n", argv[0]);
    reply_deinit(&r);
    return status;
}

static int run_enable(struct cli *cli, const struct options *o, char **argv)
{
    struct reply r;
    (void)o;
    return show(cli, call(cli, "POST", argv[0], "enable", NULL, &r), &r);
}

static int run_rotate(struct cli *cli, const struct options *o, char **argv)
{
    struct buf body;
    struct reply r;
    buf_init(&body, BODY_BYTES);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    if (o->overlap_s >= 0)
        jw_kint(&w, "overlap_s", o->overlap_s);
    if (o->secret != NULL)
        jw_kcstr(&w, "secret", o->secret);
    jw_object_end(&w);
    int status = call(cli, "POST", argv[0], "rotate-secret", &body, &r);
    buf_deinit(&body);
    return show(cli, status, &r);
}

/* ---- deliveries ---- */

static int said(struct cli *cli, int status, struct reply *r)
{
    if (status == STATUS_OK && cli->json)
        reply_print(r);
    else if (status == STATUS_OK)
        printf("on its way: %.*s\n", STR_ARG(reply_str(json_root(r->doc), "webhook_id")));
    reply_deinit(r);
    return status;
}

static int run_test(struct cli *cli, const struct options *o, char **argv)
{
    struct reply r;
    (void)o;
    return said(cli, call(cli, "POST", argv[0], "test", NULL, &r), &r);
}

static int run_redeliver(struct cli *cli, const struct options *o, char **argv)
{
    struct buf body;
    struct reply r;
    (void)o;
    buf_init(&body, BODY_BYTES);
    struct json_writer w = json_writer(&body);
    jw_object(&w);
    jw_kcstr(&w, "webhook_id", argv[1]);
    jw_object_end(&w);
    int status = call(cli, "POST", argv[0], "redeliver", &body, &r);
    buf_deinit(&body);
    return said(cli, status, &r);
}

static void print_attempt(const struct reply *r, const struct json_value *a)
{
    char status[24] = "-";
    int64_t code = reply_int(r, a, "status");
    struct str error = reply_str(a, "error");
    if (code >= 0)
        snprintf(status, sizeof status, "%lld", (long long)code);
    printf("%.*s  %-9.*s  %3lld  %-3s  %5lld ms  %-22.*s  %.*s%s%.*s\n",
           STR_ARG(reply_str(a, "attempted_at")), STR_ARG(reply_str(a, "outcome")),
           (long long)reply_int(r, a, "attempt"), status, (long long)reply_int(r, a, "duration_ms"),
           STR_ARG(reply_str(a, "event")), STR_ARG(reply_str(a, "webhook_id")), error.n > 0 ? "  " : "",
           STR_ARG(error));
}

static int run_deliveries(struct cli *cli, const struct options *o, char **argv)
{
    struct reply r;
    char what[PATH_BYTES];
    snprintf(what, sizeof what, "deliveries?limit=%lld", (long long)o->limit);
    int status = call(cli, "GET", argv[0], what, NULL, &r);
    if (status == STATUS_OK && cli->json) {
        reply_print(&r);
    } else if (status == STATUS_OK) {
        const struct json_value *list = json_get(json_root(r.doc), "data");
        for (const struct json_value *v = json_first(list); v != NULL; v = json_next(v))
            print_attempt(&r, v);
        if (reply_str(json_root(r.doc), "next_cursor").n > 0)
            fprintf(stderr, "There are more: --limit N shows up to 200.\n");
    }
    reply_deinit(&r);
    return status;
}

static void write_replay(struct json_writer *w, const char *since, const char *until, bool all)
{
    jw_object(w);
    jw_kcstr(w, "since", since);
    if (until != NULL)
        jw_kcstr(w, "until", until);
    jw_kcstr(w, "only", all ? "all" : "undelivered");
    jw_object_end(w);
}

/* One call takes 10,000 events; the next goes on behind them. */
static int replay_all(struct cli *cli, const char *id, char since[ID_MAX], const char *until, bool all,
                      int64_t *queued)
{
    for (bool more = true; more;) {
        struct buf body;
        struct reply r;
        buf_init(&body, BODY_BYTES);
        struct json_writer w = json_writer(&body);
        write_replay(&w, since, until, all);
        int status = call(cli, "POST", id, "replay", &body, &r);
        buf_deinit(&body);
        if (status == STATUS_OK)
            *queued += reply_int(&r, json_root(r.doc), "queued");
        struct str next = status == STATUS_OK ? reply_str(json_root(r.doc), "next_after") : STR("");
        more = next.n > 0 && str_copy(next, since, ID_MAX);
        reply_deinit(&r);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static int run_replay(struct cli *cli, const struct options *o, char **argv)
{
    char since[ID_MAX], until[CLI_WHEN_BYTES];
    int64_t queued = 0;
    if (o->since == NULL || !cli_when(o->since, since) || (o->until != NULL && !cli_when(o->until, until)))
        return cli_error(
            "--since, and --until if it is given, need a span as in 90s, 15m, 1h, 2d, or a time as in "
            "2026-11-21T07:30:00Z");
    int status = replay_all(cli, argv[0], since, o->until != NULL ? until : NULL, o->all, &queued);
    if (status == STATUS_OK)
        printf(cli->json ? "{\"queued\":%lld}\n" : "on their way: %lld\n", (long long)queued);
    return status;
}

/* ---- the command ---- */

static const struct verb verbs[] = {
    {"list", 0, run_list},           {"ls", 0, run_list},
    {"create", 1, run_create},       {"delete", 1, run_delete},
    {"enable", 1, run_enable},       {"rotate", 1, run_rotate},
    {"test", 1, run_test},           {"deliveries", 1, run_deliveries},
    {"redeliver", 2, run_redeliver}, {"replay", 1, run_replay},
};

int command_webhooks(struct cli *cli, int argc, char **argv)
{
    struct options o = {.overlap_s = -1, .limit = LIMIT_DEFAULT};
    const struct cli_option options[] = {
        {"events", CLI_LIST, &o.events, "E",
         "create: events to be told of, such as invocation.* (default all)"},
        {"description", CLI_TEXT, &o.description, "TEXT", "create: what it is for"},
        {"secret", CLI_TEXT, &o.secret, "S", "create, rotate: a secret of yours (default: one is made)"},
        {"overlap", CLI_NUMBER, &o.overlap_s, "S",
         "rotate: seconds that the old secret signs as well (default 86400)"},
        {"limit", CLI_NUMBER, &o.limit, "N", "deliveries: how many (default 20)"},
        {"since", CLI_TEXT, &o.since, "T", "replay: from then on, 1h or a time"},
        {"until", CLI_TEXT, &o.until, "T", "replay: up to then"},
        {"all", CLI_FLAG, &o.all, NULL, "replay: also what was delivered"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {"webhooks list | create URL | delete ID | enable ID | rotate ID | test "
                                    "ID | deliveries ID | redeliver ID "
                                    "MSG | replay ID --since T",
                                    "Webhooks that tell of ended invocations and batches.", options, 1, 3};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(argv[first], verbs[i].name) == 0)
            return argc - first - 1 == verbs[i].args
                       ? verbs[i].run(cli, &o, argv + first + 1)
                       : cli_error("webhooks %s takes %d argument%s; see sandpiper webhooks --help",
                                   verbs[i].name, verbs[i].args, verbs[i].args == 1 ? "" : "s");
    return cli_error("there is no command webhooks %s; see sandpiper webhooks --help", argv[first]);
}
