/* Logs of builds. A log only grows, so what broke off is gone on with at the offset that was come to; and who
 * saw that the build had ended before it asked has all of it. */
#include "build_log.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json/writer.h"
#include "slug.h"

enum {
    PATH_BYTES = 192,
    AGAIN_MS = 500,
    IDLE_MS = 60 * 1000, /* without a byte: asked for again, in case the connection is dead */
    PATIENCE_MS = 60 * 1000,
    OUTPUT_MS = 600 * 1000,
    COPY_MAX = 16 << 20,
};

/* ---- printing ---- */

static bool print(struct build_log *b, struct str text)
{
    if (text.n == 0)
        return true;
    if (b->begun != NULL)
        b->begun(b->arg);
    b->begun = NULL;
    b->last = text.p[text.n - 1];
    return fwrite(text.p, 1, text.n, b->to) == text.n && fflush(b->to) == 0;
}

static bool on_data(void *arg, struct str piece)
{
    struct build_log *b = arg;
    struct buf safe;
    b->offset += (int64_t)piece.n;
    b->heard = mono_now();
    if (b->copy != NULL) {
        b->broken = !buf_str(b->copy, piece);
    } else if (isatty(fileno(b->to)) == 0) {
        b->broken = !print(b, piece);
    } else {
        buf_init(&safe, UTF8_GROWTH * (piece.n + UTF8_CHAR_BYTES));
        b->broken = !terminal_text_put(&b->terminal, piece, &safe) || !print(b, buf_view(&safe));
        buf_deinit(&safe);
    }
    return !b->broken;
}

void build_log_write(FILE *to, struct str text)
{
    struct build_log b = {.to = to};
    if (on_data(&b, text) && b.last != '\n' && b.last != '\0')
        fputc('\n', to);
}

/* ---- asking ---- */

static int complain(const struct cli *cli, const struct build_log *b, const struct reply *r)
{
    if (r->kind == REPLY_INTERRUPTED)
        return STATUS_INTERRUPTED;
    return b->quiet ? STATUS_API : api_complain(cli, r);
}

/* *ended_out: whether the build has. */
static int look(struct cli *cli, struct build_log *b, bool *ended_out)
{
    char path[PATH_BYTES];
    struct reply r;
    snprintf(path, sizeof path, "/v1/agents/%s/versions/%lld", b->agent, (long long)b->version);
    const struct api_request q = {.method = "GET", .path = path, .retry = API_RETRY_ALL};
    api_call(cli, &q, &r);
    int status = r.kind == REPLY_OK ? STATUS_OK : complain(cli, b, &r);
    struct str s = reply_str(json_root(r.doc), "status");
    if (status == STATUS_OK && !str_copy(s, b->status, sizeof b->status))
        status = STATUS_API;
    *ended_out = !str_eq_c(s, "building");
    reply_deinit(&r);
    return status;
}

/* Whether to ask again: it broke off, or nobody answers for now. */
static bool goes_on(const struct build_log *b, const struct reply *r)
{
    bool busy = r->kind == REPLY_PROBLEM && (r->status == 429 || (r->status >= 502 && r->status <= 504));
    return (busy || r->kind == REPLY_FAILED) && !b->broken &&
           mono_ms_between(b->heard, mono_now()) < PATIENCE_MS;
}

/* One answer to its end, over as many connections as it takes. */
static int stream(struct cli *cli, struct build_log *b, bool follow)
{
    b->heard = mono_now();
    for (;;) {
        char path[PATH_BYTES];
        struct reply r;
        snprintf(path, sizeof path, "/v1/agents/%s/versions/%lld/log?follow=%s&offset=%lld", b->agent,
                 (long long)b->version, follow ? "true" : "false", (long long)b->offset);
        const struct api_request q = {.method = "GET",
                                      .path = path,
                                      .timeout_ms = OUTPUT_MS,
                                      .idle_ms = follow ? IDLE_MS : 0,
                                      .retry = API_ONCE, /* from where it is, not from where it began */
                                      .on_data = on_data,
                                      .arg = b};
        int64_t before = b->offset;
        api_call(cli, &q, &r);
        bool silent = follow && r.kind == REPLY_FAILED && r.err.code == ERR_TIMEOUT;
        bool again = goes_on(b, &r);
        int status = r.kind == REPLY_OK || b->broken || again || silent ? STATUS_OK : complain(cli, b, &r);
        reply_deinit(&r);
        if (!again || silent)
            return status;
        if (b->offset == before)
            cli_sleep(cli, AGAIN_MS);
        if (cli->interrupted)
            return STATUS_INTERRUPTED;
    }
}

int build_log_print(struct cli *cli, struct build_log *b, bool follow)
{
    bool ended = true;
    int status;
    do {
        status = follow ? look(cli, b, &ended) : STATUS_OK;
        if (status == STATUS_OK)
            status = stream(cli, b, follow);
    } while (status == STATUS_OK && !ended && !b->broken);
    if (status == STATUS_OK && b->broken && !b->quiet)
        status = STATUS_API;
    return status;
}

/* ---- the command ---- */

/* NAME or NAME@VERSION; *version_out 0: none was given. */
static int read_name(const char *of, char name[CLI_SLUG_MAX + 1], int64_t *version_out)
{
    struct str rest = str_of(of), slug;
    uint64_t n = 0;
    bool numbered = strchr(of, '@') != NULL;
    str_split(&rest, '@', &slug);
    if (!str_copy(slug, name, CLI_SLUG_MAX + 1) || !cli_is_slug(name))
        return cli_error("\"%.80s\" is no agent: --build needs its name, as in 'logs --build shout@3'", of);
    if (numbered && (!str_to_u64(rest, &n) || n < 1 || n > INT32_MAX))
        return cli_error("\"%.80s\" names no version: they are numbers, as in shout@3", of);
    *version_out = (int64_t)n;
    return STATUS_OK;
}

static int find_newest(struct cli *cli, const char *name, int64_t *version_out)
{
    char path[PATH_BYTES];
    struct reply r;
    snprintf(path, sizeof path, "/v1/agents/%s", name);
    const struct api_request q = {.method = "GET", .path = path, .retry = API_RETRY_BUSY};
    api_call(cli, &q, &r);
    int status = reply_check(cli, &r, "latest_build");
    *version_out = reply_int(&r, json_get(json_root(r.doc), "latest_build"), "version");
    reply_deinit(&r);
    return status;
}

static int print_json(struct cli *cli, const char *name, int64_t version, bool follow)
{
    struct buf text, line;
    struct build_log b = {.agent = name, .version = version, .copy = &text};
    bool ended;
    buf_init(&text, COPY_MAX);
    buf_init(&line, 8 * COPY_MAX);
    int status = build_log_print(cli, &b, follow);
    if (status == STATUS_OK && !follow)
        status = look(cli, &b, &ended);
    if (status == STATUS_OK) {
        struct json_writer w = json_writer(&line);
        jw_object(&w);
        jw_kcstr(&w, "agent", b.agent);
        jw_kint(&w, "version", b.version);
        jw_kcstr(&w, "status", b.status);
        jw_kstr(&w, "log", buf_view(&text));
        jw_object_end(&w);
        printf("%.*s\n", (int)line.len, line.data);
    }
    buf_deinit(&text);
    buf_deinit(&line);
    return status;
}

int build_log_command(struct cli *cli, const char *of, bool follow)
{
    char name[CLI_SLUG_MAX + 1];
    struct build_log b = {.agent = name, .to = stdout};
    int status = read_name(of, name, &b.version);
    if (status == STATUS_OK && b.version == 0)
        status = find_newest(cli, name, &b.version);
    if (status != STATUS_OK)
        return status;
    return cli->json ? print_json(cli, name, b.version, follow) : build_log_print(cli, &b, follow);
}
