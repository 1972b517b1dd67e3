/* batch submit, status, cancel, ls. Results are in batch_results.c. */
#include "batch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/id.h"
#include "progress.h"
#include "walk.h"

enum {
    QUERY_BYTES = 64 * 1024,
    UPLOAD_MS = 900 * 1000, /* 256 MiB over a slow line */
    POLL_MS = 500,
    PAGE = 200,
};

static const char *const ended_states[] = {"succeeded", "failed",  "timed_out",
                                           "canceled",  "expired", "error"};
enum { ENDED_STATES = sizeof ended_states / sizeof *ended_states };

bool batch_path_of(char path[BATCH_PATH_BYTES], const char *id, const char *after)
{
    struct uuid uuid;
    if (!id_parse("bat", str_of(id), &uuid)) {
        cli_error("\"%s\" is no batch's id: those look like bat_…", id);
        return false;
    }
    snprintf(path, BATCH_PATH_BYTES, "/v1/batches/%s%s", id, after);
    return true;
}

/* ---- records ---- */

static void print_counts(const struct reply *r, const struct json_value *record)
{
    const struct json_value *counts = json_get(record, "counts");
    for (const struct json_value *v = json_first(counts); v != NULL; v = json_next(v)) {
        int64_t n = -1;
        json_int(r->doc, v, &n);
        if (n > 0)
            printf("  %-16.*s %lld\n", STR_ARG(json_key(v)), (long long)n);
    }
}

static void print_record(const struct reply *r)
{
    const struct json_value *record = json_root(r->doc);
    static const char *const texts[] = {"id", "status", "priority", "created_at", "ended_at"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct str s = reply_str(record, texts[i]);
        if (s.n > 0)
            printf("%-18s %.*s\n", texts[i], STR_ARG(s));
    }
    int64_t most = reply_int(r, record, "max_concurrency");
    double rate = 0;
    json_double(json_get(record, "rate_per_s"), &rate);
    if (most > 0)
        printf("%-18s %lld\n", "max_concurrency", (long long)most);
    printf("%-18s %g\n", "rate_per_s", rate);
    printf("%-18s %lld of %lld\n", "ended", (long long)reply_int(r, record, "ended"),
           (long long)reply_int(r, record, "total"));
    print_counts(r, record);
}

static int show(struct cli *cli, const char *method, const char *id, const char *after)
{
    char path[BATCH_PATH_BYTES];
    struct reply r;
    if (!batch_path_of(path, id, after))
        return STATUS_USAGE;
    const struct api_request q = {.method = method, .path = path, .retry = API_RETRY_BUSY};
    api_call(cli, &q, &r);
    int status = reply_check(cli, &r, "counts");
    if (status == STATUS_OK && cli->json)
        reply_print(&r);
    else if (status == STATUS_OK)
        print_record(&r);
    reply_deinit(&r);
    return status;
}

static int status_command(struct cli *cli, int argc, char **argv)
{
    static const struct cli_usage usage = {"batch status ID", "Shows a batch: its counts by state.", NULL, 1,
                                           1};
    int first, status;
    return cli_parse(cli, &usage, argc, argv, &first, &status) ? show(cli, "GET", argv[first], "") : status;
}

static int cancel_command(struct cli *cli, int argc, char **argv)
{
    static const struct cli_usage usage = {
        "batch cancel ID", "Ends what waits of a batch and stops what runs of it.", NULL, 1, 1};
    int first, status;
    return cli_parse(cli, &usage, argc, argv, &first, &status) ? show(cli, "POST", argv[first], "/cancel")
                                                               : status;
}

/* ---- ls ---- */

static void print_batches(struct walk *w, const struct reply *r, const struct json_value *records)
{
    if (w->shown == 0 && json_first(records) != NULL)
        printf("%-40s  %-10s %10s %10s %10s  %s\n", "ID", "STATUS", "TOTAL", "ENDED", "SUCCEEDED", "CREATED");
    for (const struct json_value *v = json_first(records); v != NULL; v = json_next(v))
        printf("%-40.*s  %-10.*s %10lld %10lld %10lld  %.*s\n", STR_ARG(reply_str(v, "id")),
               STR_ARG(reply_str(v, "status")), (long long)reply_int(r, v, "total"),
               (long long)reply_int(r, v, "ended"),
               (long long)reply_int(r, json_get(v, "counts"), "succeeded"),
               STR_ARG(reply_str(v, "created_at")));
}

static int ls_command(struct cli *cli, int argc, char **argv)
{
    int64_t limit = 50;
    bool all = false;
    const struct cli_option options[] = {{"limit", CLI_NUMBER, &limit, "N", "show N at most (50)"},
                                         {"all", CLI_FLAG, &all, NULL, "show all"},
                                         {NULL, CLI_FLAG, NULL, NULL, NULL}};
    const struct cli_usage usage = {"batch ls", "Lists batches, newest first.", options, 0, 0};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    struct walk w = {
        .cli = cli, .member = "data", .page = PAGE, .left = all ? -1 : limit, .take = print_batches};
    walk_begin(&w, "/v1/batches?");
    status = walk_pages(&w);
    if (status == STATUS_OK && w.shown == 0 && !cli->json)
        cli_error("there are no batches yet; 'sandpiper batch submit FILE' makes one");
    buf_deinit(&w.path);
    return status;
}

/* ---- submit: reading the file ---- */

struct submit {
    struct cli *cli;
    const char *agent, *priority, *key;
    int64_t max_concurrency, timeout_s, queue_timeout_s;
    struct cli_list metadata;
    bool wait;
    const char *file;
    void *data; /* the file, mapped */
    size_t bytes;
    char id[ID_TEXT_BYTES];
};

/* Standard input, kept in an unnamed file: it may be sent twice. */
static int spool_stdin(void)
{
    char piece[64 * 1024];
    FILE *f = tmpfile();
    int fd = f != NULL ? dup(fileno(f)) : -1;
    ssize_t n = 0;
    while (fd >= 0 && (n = read(STDIN_FILENO, piece, sizeof piece)) > 0)
        if (write(fd, piece, (size_t)n) != n)
            n = -1;
    if (f != NULL)
        fclose(f);
    if (n < 0 && fd >= 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int map_file(struct submit *s)
{
    bool from_stdin = strcmp(s->file, "-") == 0;
    int fd = from_stdin ? spool_stdin() : open(s->file, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        if (fd >= 0)
            close(fd);
        return from_stdin
                   ? cli_error("cannot read the standard input")
                   : cli_error("cannot read %s: it must be a file, or - for the standard input", s->file);
    }
    s->bytes = (size_t)st.st_size;
    s->data = s->bytes > 0 ? mmap(NULL, s->bytes, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    close(fd);
    if (s->bytes == 0)
        return cli_error("%s is empty", from_stdin ? "the standard input" : s->file);
    return s->data != MAP_FAILED ? STATUS_OK : cli_error("cannot read %s", s->file);
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

/* gzip tells itself; JSON begins with an array, or its name says so; everything else is lines. */
static void kinds_of(const struct submit *s, const char **type, const char **encoding)
{
    const unsigned char *p = s->data;
    bool gzip = s->bytes > 2 && p[0] == 0x1F && p[1] == 0x8B;
    size_t at = 0;
    while (!gzip && at < s->bytes && strchr(" \t\r\n", p[at]) != NULL && p[at] != '\0')
        at++;
    bool json = ends_with(s->file, ".json") || ends_with(s->file, ".json.gz") ||
                (!gzip && at < s->bytes && p[at] == '[');
    *type = json ? "Content-Type: application/json" : "Content-Type: application/x-ndjson";
    *encoding = gzip ? "Content-Encoding: gzip" : NULL;
}

static int write_query(const struct submit *s, struct buf *path)
{
    buf_cstr_append(path, "/v1/batches?");
    if (s->agent != NULL)
        walk_parameter(path, "agent", str_of(s->agent));
    if (s->priority != NULL)
        walk_parameter(path, "priority", str_of(s->priority));
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {{"max_concurrency", s->max_concurrency},
                   {"timeout_s", s->timeout_s},
                   {"queue_timeout_s", s->queue_timeout_s}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].value > 0)
            buf_printf(path, "%s=%lld&", numbers[i].name, (long long)numbers[i].value);
    for (int i = 0; i < s->metadata.count; i++) {
        struct str value = str_of(s->metadata.items[i]), key;
        str_split(&value, '=', &key);
        if (key.n == 0 || value.p == NULL)
            return cli_error("--metadata needs key=value, not \"%s\"", s->metadata.items[i]);
        buf_cstr_append(path, "metadata.");
        walk_escaped(path, key);
        walk_parameter(path, "", value);
    }
    path->len--; /* the last '&', or the '?' */
    return path->failed || buf_cstr(path) == NULL ? cli_error("the options are too long") : STATUS_OK;
}

/* ---- submit: the answer ---- */

static void print_faults(const struct reply *r)
{
    const struct json_value *errors = json_get(json_root(r->doc), "errors");
    for (const struct json_value *e = json_first(errors); e != NULL; e = json_next(e))
        fprintf(stderr, "  line %lld: %.*s (%.*s)\n", (long long)reply_int(r, e, "line"),
                STR_ARG(reply_str(e, "detail")), STR_ARG(reply_str(e, "code")));
}

static int send_batch(struct submit *s)
{
    struct buf path;
    struct reply r;
    struct uuid key = uuid_new();
    char own[UUID_TEXT_BYTES], header[400];
    const char *type, *encoding;
    uuid_format(key, own);
    snprintf(header, sizeof header, "Idempotency-Key: %s", s->key != NULL ? s->key : own);
    buf_init(&path, QUERY_BYTES);
    int status = write_query(s, &path);
    if (status != STATUS_OK) {
        buf_deinit(&path);
        return status;
    }
    kinds_of(s, &type, &encoding);
    const struct api_request q = {.method = "POST",
                                  .path = buf_cstr(&path),
                                  .headers = {type, header, encoding},
                                  .body = str_make(s->data, s->bytes),
                                  .timeout_ms = UPLOAD_MS,
                                  .retry = API_RETRY_BUSY};
    cli_spin(s->cli, "submitting");
    api_call(s->cli, &q, &r);
    cli_spin(s->cli, NULL);
    status = reply_check(s->cli, &r, "counts");
    if (status != STATUS_OK)
        print_faults(&r);
    else if (!str_copy(reply_str(json_root(r.doc), "id"), s->id, sizeof s->id))
        status = cli_error("the gateway's answer is not a batch");
    else if (!s->wait && s->cli->json)
        reply_print(&r);
    else if (!s->wait)
        printf("%s: %lld items accepted\n"
               "Try: sandpiper batch status %s\n     sandpiper batch results %s --follow\n",
               s->id, (long long)reply_int(&r, json_root(r.doc), "total"), s->id, s->id);
    buf_deinit(&path);
    reply_deinit(&r);
    return status;
}

/* ---- submit --wait: the bar ---- */

static void draw(const struct reply *r, struct progress *p)
{
    const struct json_value *record = json_root(r->doc);
    int64_t ended = reply_int(r, record, "ended");
    progress_draw(p, ended, reply_int(r, record, "total"),
                  ended - reply_int(r, json_get(record, "counts"), "succeeded"));
}

static int finish(const struct submit *s, const struct reply *r)
{
    const struct json_value *record = json_root(r->doc), *counts = json_get(record, "counts");
    int64_t total = reply_int(r, record, "total");
    bool all = reply_int(r, counts, "succeeded") == total;
    if (s->cli->json) {
        reply_print(r);
        return all ? STATUS_OK : STATUS_ENDED;
    }
    printf("%s: %.*s;", s->id, STR_ARG(reply_str(record, "status")));
    for (int i = 0; i < ENDED_STATES; i++) {
        int64_t n = reply_int(r, counts, ended_states[i]);
        if (n > 0)
            printf(" %lld %s", (long long)n, ended_states[i]);
    }
    printf("\nTry: sandpiper batch results %s\n", s->id);
    return all ? STATUS_OK : STATUS_ENDED;
}

static int detach(const struct submit *s)
{
    cli_error("the batch goes on\n  sandpiper batch status %s            looks at it\n"
              "  sandpiper batch results %s --follow  waits for its results\n"
              "  sandpiper batch cancel %s            stops it",
              s->id, s->id, s->id);
    return STATUS_INTERRUPTED;
}

static int wait_for_end(struct submit *s)
{
    char path[BATCH_PATH_BYTES];
    struct progress progress = {0};
    bool shown = isatty(STDERR_FILENO) != 0 && !s->cli->json;
    batch_path_of(path, s->id, "");
    for (;;) {
        struct reply r;
        const struct api_request q = {.method = "GET", .path = path, .retry = API_RETRY_ALL};
        api_call(s->cli, &q, &r);
        bool interrupted = r.kind == REPLY_INTERRUPTED || s->cli->interrupted;
        int status = interrupted ? STATUS_INTERRUPTED : reply_check(s->cli, &r, "counts");
        bool ended = status == STATUS_OK && reply_str(json_root(r.doc), "ended_at").n > 0;
        if (shown && status == STATUS_OK)
            draw(&r, &progress);
        if (shown && (ended || status != STATUS_OK))
            fputc('\n', stderr);
        if (ended)
            status = finish(s, &r);
        reply_deinit(&r);
        if (interrupted)
            return detach(s);
        if (ended || status != STATUS_OK)
            return status;
        cli_sleep(s->cli, POLL_MS);
    }
}

static int submit_command(struct cli *cli, int argc, char **argv)
{
    struct submit s = {.cli = cli};
    const struct cli_option options[] = {
        {"agent", CLI_TEXT, &s.agent, "AGENT", "for items that name none"},
        {"max-concurrency", CLI_NUMBER, &s.max_concurrency, "N", "run N items at once, at most"},
        {"priority", CLI_TEXT, &s.priority, "P", "high, normal or low (low)"},
        {"timeout", CLI_NUMBER, &s.timeout_s, "SECONDS", "for items that say none"},
        {"queue-timeout", CLI_NUMBER, &s.queue_timeout_s, "SECONDS", "for items that say none"},
        {"metadata", CLI_LIST, &s.metadata, "KEY=VALUE", "the batch's own; several are fine"},
        {"idempotency-key", CLI_TEXT, &s.key, "KEY", "the same key gives the same batch"},
        {"wait", CLI_FLAG, &s.wait, NULL,
         "wait for its end, showing how far it is; Ctrl-C leaves it running"},
        {NULL, CLI_FLAG, NULL, NULL, NULL}};
    const struct cli_usage usage = {"batch submit FILE | -",
                                    "Submits a file of items, one JSON object a line; or a JSON array, or an "
                                    "object with items. gzip is understood.",
                                    options, 1, 1};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    s.file = argv[first];
    status = map_file(&s);
    if (status == STATUS_OK)
        cli_catch_interrupt(cli);
    if (status == STATUS_OK)
        status = send_batch(&s);
    if (s.data != NULL && s.data != MAP_FAILED)
        munmap(s.data, s.bytes);
    return status == STATUS_OK && s.wait ? wait_for_end(&s) : status;
}

/* ---- the command ---- */

int command_batch(struct cli *cli, int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(struct cli *cli, int argc, char **argv);
    } parts[] = {{"submit", submit_command},
                 {"status", status_command},
                 {"results", batch_results_command},
                 {"cancel", cancel_command},
                 {"ls", ls_command}};
    for (size_t i = 0; argc > 1 && i < sizeof parts / sizeof *parts; i++)
        if (strcmp(argv[1], parts[i].name) == 0)
            return parts[i].run(cli, argc - 1, argv + 1);
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        printf("Usage: sandpiper batch submit FILE | - | status ID | results ID | cancel ID | ls\n"
               "Many invocations, submitted together. --help behind each of them tells more.\n");
        return STATUS_OK;
    }
    return cli_error("batch needs one of submit, status, results, cancel, ls; see sandpiper batch --help");
}
