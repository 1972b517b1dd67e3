/* retry: ended invocations run again, by their ids, or all that ended as `error` and were not retried yet. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/id.h"
#include "progress.h"
#include "walk.h"

enum { PATH_BYTES = 256, PAGE = 200, IDS_MAX = 100000 };

struct ids {
    char (*text)[ID_TEXT_BYTES];
    size_t n, room;
};

struct retry {
    struct cli *cli;
    bool serving, all;
    const char *since, *until;
    struct ids ids;
    size_t made, skipped, refused;
    int status; /* of the last refusal */
};

static bool add(struct ids *ids, struct str id)
{
    if (ids->n == ids->room) {
        size_t room = ids->room > 0 ? 2 * ids->room : 64;
        void *more = realloc(ids->text, room * sizeof *ids->text);
        if (more == NULL)
            return false;
        ids->text = more;
        ids->room = room;
    }
    return str_copy(id, ids->text[ids->n], sizeof *ids->text) && ids->n++ < IDS_MAX;
}

/* ---- which ---- */

static void take_page(struct walk *w, const struct reply *r, const struct json_value *records)
{
    (void)r;
    struct ids *ids = w->arg;
    for (const struct json_value *v = json_first(records); v != NULL; v = json_next(v))
        if (!add(ids, reply_str(v, "id")))
            w->left = 0; /* the rest with the next call */
}

static int find_errors(struct retry *r)
{
    struct walk w = {.cli = r->cli,
                     .member = "data",
                     .page = PAGE,
                     .left = -1,
                     .take = take_page,
                     .arg = &r->ids,
                     .silent = true};
    walk_begin(&w, "/v1/invocations?status=error&");
    int status = STATUS_OK;
    if (r->since != NULL)
        status = walk_when(&w.path, "created_after", "--since", r->since);
    if (status == STATUS_OK && r->until != NULL)
        status = walk_when(&w.path, "created_before", "--until", r->until);
    if (status == STATUS_OK)
        status = walk_pages(&w);
    buf_deinit(&w.path);
    return status;
}

/* ---- each ---- */

/* Whether something repeats it already. */
static int was_retried(struct retry *r, const char *id, bool *out)
{
    char path[PATH_BYTES];
    struct reply reply;
    snprintf(path, sizeof path, "/v1/invocations?retry_of=%s&limit=1", id);
    const struct api_request q = {.method = "GET", .path = path, .retry = API_RETRY_BUSY};
    api_call(r->cli, &q, &reply);
    int status = reply_check(r->cli, &reply, "data");
    *out = json_count(json_get(json_root(reply.doc), "data")) > 0;
    reply_deinit(&reply);
    return status;
}

/* A key makes it safe to send twice. That of --all-errors is the same for whoever retries all of them at the
 * same time. */
static int send(struct retry *r, const char *id)
{
    char path[PATH_BYTES], key[128], own[UUID_TEXT_BYTES];
    struct reply reply;
    uuid_format(uuid_new(), own);
    snprintf(path, sizeof path, "/v1/invocations/%s/retry", id);
    snprintf(key, sizeof key, "Idempotency-Key: retry-%s-%s", r->all ? "all" : own, r->all ? id : "");
    const struct api_request q = {.method = "POST",
                                  .path = path,
                                  .headers = {"Content-Type: application/json", key},
                                  .body = r->serving ? STR("{\"version\":\"serving\"}") : STR("{}"),
                                  .retry = API_RETRY_BUSY};
    api_call(r->cli, &q, &reply);
    int status = reply_check(r->cli, &reply, "id");
    if (status == STATUS_OK && r->cli->json)
        reply_print(&reply);
    else if (status == STATUS_OK)
        printf("%s -> %.*s\n", id, STR_ARG(reply_str(json_root(reply.doc), "id")));
    reply_deinit(&reply);
    return status;
}

static int retry_one(struct retry *r, const char *id)
{
    bool already = false;
    int status = r->all ? was_retried(r, id, &already) : STATUS_OK;
    if (status == STATUS_OK && !already)
        status = send(r, id);
    if (status == STATUS_OK)
        *(already ? &r->skipped : &r->made) += 1;
    return status;
}

static int retry_all(struct retry *r)
{
    struct progress progress = {0};
    bool shown = isatty(STDERR_FILENO) != 0 && r->ids.n > 1;
    cli_catch_interrupt(r->cli);
    for (size_t i = 0; i < r->ids.n && !r->cli->interrupted; i++) {
        int status = retry_one(r, r->ids.text[i]);
        if (status != STATUS_OK) {
            r->refused++;
            r->status = status;
        }
        if (shown)
            progress_draw(&progress, (int64_t)i + 1, (int64_t)r->ids.n, (int64_t)r->refused);
    }
    if (shown)
        fputc('\n', stderr);
    size_t done = r->made + r->skipped;
    if (r->skipped > 0)
        fprintf(stderr, "%zu were retried already\n", r->skipped);
    if (done < r->ids.n)
        fprintf(stderr, "%zu of %zu were retried\n", done, r->ids.n);
    if (r->cli->interrupted)
        return STATUS_INTERRUPTED;
    return r->refused > 0 ? r->status : STATUS_OK;
}

/* ---- the command ---- */

static int take_ids(struct retry *r, int argc, char **argv, int first)
{
    struct uuid uuid;
    if (r->all == (first < argc))
        return cli_error(r->all ? "give ids or --all-errors, not both" : "give ids, or --all-errors");
    if (!r->all && (r->since != NULL || r->until != NULL))
        return cli_error("--since and --until go with --all-errors");
    for (int i = first; i < argc; i++)
        if (!id_parse("inv", str_of(argv[i]), &uuid))
            return cli_error("\"%s\" is no id; invocations have ids like inv_…", argv[i]);
        else if (!add(&r->ids, str_of(argv[i])))
            return cli_error("these are too many");
    return r->all ? find_errors(r) : STATUS_OK;
}

int command_retry(struct cli *cli, int argc, char **argv)
{
    struct retry r = {.cli = cli};
    const struct cli_option options[] = {
        {"serving", CLI_FLAG, &r.serving, NULL, "with the version that serves now, not the one that ran"},
        {"all-errors", CLI_FLAG, &r.all, NULL, "all that ended as error and were not retried yet"},
        {"since", CLI_TEXT, &r.since, "T",
         "of these, those not older than this: 90s, 15m, 1h, 2d, or an RFC 3339 time"},
        {"until", CLI_TEXT, &r.until, "T", "of these, those older than this"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {
        "retry ID... | --all-errors",
        "Runs ended invocations again, each as a new one. --json prints one answer a line.", options, 0,
        IDS_MAX};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    status = take_ids(&r, argc, argv, first);
    if (status == STATUS_OK)
        status = retry_all(&r);
    free(r.ids.text);
    return status;
}
