/* batch results: lines to stdout, each whole and once. What breaks off is gone on with behind the last line
 * that came whole: each one has the cursor for that as its last member. */
#include <stdio.h>
#include <string.h>

#include "batch.h"

enum {
    LINE_MAX_BYTES = 1 << 20, /* a record with its output is smaller */
    CURSOR_BYTES = 200,
    STREAM_MS = 600 * 1000, /* then it is asked for again, behind what came */
    AGAIN_MS = 500,
    PATIENCE_MS = 60 * 1000, /* without a line, while nobody answers */
};

struct results {
    struct buf line; /* the begun one */
    char cursor[CURSOR_BYTES];
    mono_t came_at; /* the last line */
    bool broken;    /* stdout is */
};

/* The value of the last member, which is the cursor. */
static void take_cursor(struct results *r, struct str line)
{
    static const struct str name = {.p = "\"cursor\":\"", .n = 10};
    for (size_t at = line.n; at-- > 0;) {
        if (line.n - at < name.n || memcmp(line.p + at, name.p, name.n) != 0)
            continue;
        struct str rest = str_make(line.p + at + name.n, line.n - at - name.n), value;
        str_split(&rest, '"', &value);
        str_copy(value, r->cursor, sizeof r->cursor);
        return;
    }
}

static bool on_data(void *arg, struct str piece)
{
    struct results *r = arg;
    while (piece.n > 0) {
        const char *end = memchr(piece.p, '\n', piece.n);
        size_t n = end != NULL ? (size_t)(end - piece.p) + 1 : piece.n;
        if (!buf_append(&r->line, piece.p, n))
            return false;
        piece = str_make(piece.p + n, piece.n - n);
        if (end == NULL)
            break;
        take_cursor(r, buf_view(&r->line));
        r->came_at = mono_now();
        r->broken = fwrite(r->line.data, 1, r->line.len, stdout) != r->line.len;
        buf_clear(&r->line);
        if (r->broken)
            return false;
    }
    fflush(stdout);
    return true;
}

/* Whether to ask again: it broke off, or its time was over, and something came not long ago. */
static bool goes_on(const struct results *r, const struct reply *reply)
{
    bool busy = reply->kind == REPLY_PROBLEM && (reply->status == 429 || reply->status == 503);
    return (busy || reply->kind == REPLY_FAILED) && !r->broken && !r->line.failed &&
           mono_ms_between(r->came_at, mono_now()) < PATIENCE_MS;
}

static int stream(struct cli *cli, struct results *r, const char *id, bool follow)
{
    char after[CURSOR_BYTES + 64], path[BATCH_PATH_BYTES];
    for (;;) {
        struct reply reply;
        snprintf(after, sizeof after, "/results?follow=%s%s%s", follow ? "true" : "false",
                 r->cursor[0] != '\0' ? "&cursor=" : "", r->cursor);
        if (!batch_path_of(path, id, after))
            return STATUS_USAGE;
        const struct api_request q = {.method = "GET",
                                      .path = path,
                                      .timeout_ms = STREAM_MS,
                                      .retry = API_ONCE, /* from the cursor, not from where it began */
                                      .on_data = on_data,
                                      .arg = r};
        buf_clear(&r->line);
        api_call(cli, &q, &reply);
        bool again = goes_on(r, &reply);
        int status = reply.kind == REPLY_OK || r->broken ? STATUS_OK
                     : again                             ? STATUS_OK
                                                         : api_complain(cli, &reply);
        reply_deinit(&reply);
        if (!again)
            return status;
        cli_sleep(cli, AGAIN_MS);
    }
}

/* A followed answer ends early when its gateway is being stopped: has the batch ended? */
static bool has_ended(struct cli *cli, const char *id)
{
    char path[BATCH_PATH_BYTES];
    struct reply r;
    if (!batch_path_of(path, id, ""))
        return true;
    const struct api_request q = {.method = "GET", .path = path, .retry = API_RETRY_ALL};
    api_call(cli, &q, &r);
    bool ended = r.kind != REPLY_OK || reply_str(json_root(r.doc), "ended_at").n > 0;
    reply_deinit(&r);
    return ended;
}

int batch_results_command(struct cli *cli, int argc, char **argv)
{
    bool follow = false;
    const char *cursor = NULL;
    const struct cli_option options[] = {
        {"follow", CLI_FLAG, &follow, NULL, "go on until the batch has ended"},
        {"cursor", CLI_TEXT, &cursor, "CURSOR", "of a line: begin behind it"},
        {NULL, CLI_FLAG, NULL, NULL, NULL}};
    const struct cli_usage usage = {"batch results ID", "Prints the results of a batch, one record a line.",
                                    options, 1, 1};
    struct results r = {.came_at = mono_now()};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    if (cursor != NULL &&
        (strspn(cursor, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") !=
             strlen(cursor) ||
         !str_copy(str_of(cursor), r.cursor, sizeof r.cursor)))
        return cli_error("\"%s\" is no cursor: each line of the results has one", cursor);
    buf_init(&r.line, LINE_MAX_BYTES);
    bool ended;
    do {
        ended = !follow || has_ended(cli, argv[first]);
        status = stream(cli, &r, argv[first], follow);
        r.came_at = mono_now();
    } while (status == STATUS_OK && !ended && !r.broken && ferror(stdout) == 0);
    buf_deinit(&r.line);
    return status;
}
