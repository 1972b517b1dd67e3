/* deploy: pack a directory, upload it, wait for the build. Or name a git repository, which the build clones,
 * or a template of the sandbox provider (from_template.h).
 *
 * The archive goes to an unlinked file and is mapped for the upload, so memory stays small however large it
 * is. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "build_log.h"
#include "cli.h"
#include "from_template.h"
#include "json/writer.h"
#include "pack.h"
#include "slug.h"

enum {
    ARCHIVE_MAX = 100 << 20,
    UPLOAD_MS = 600000,
    POLL_MS = 500,
    PATH_BYTES = 160,
    MANIFEST_MAX = 64 << 10,
    BODY_BYTES = 80 << 10,
};

struct deploy {
    struct cli *cli;
    const char *dir, *name, *ref; /* dir: or a repository's URL; NULL: a template */
    struct from_template from;
    bool no_wait, rebuild, log;
    bool shown;                  /* the build's log, as it came */
    bool found;                  /* the same source was deployed already */
    char slug[CLI_SLUG_MAX + 1]; /* from the directory's name, when nothing else names the agent */
    int fd;
    size_t bytes;
    void *map;
    struct reply agent;
    char agent_name[CLI_SLUG_MAX + 1];
    int64_t version;
    mono_t since;
};

/* ---- the name ---- */

/* Whether agent.json names the agent. */
static bool manifest_has_name(const char *dir)
{
    char *path = NULL, *text = NULL;
    size_t n = 0;
    bool has = false;
    FILE *f = asprintf(&path, "%s/agent.json", dir) >= 0 ? fopen(path, "re") : NULL;
    if (f != NULL && (text = malloc(MANIFEST_MAX)) != NULL)
        n = fread(text, 1, MANIFEST_MAX, f);
    struct json *doc = n > 0 ? json_parse(str_make(text, n), NULL) : NULL;
    has = reply_str(json_root(doc), "name").n > 0;
    json_free(&doc);
    if (f != NULL)
        fclose(f);
    free(text);
    free(path);
    return has;
}

static bool is_url(const char *s)
{
    return strstr(s, "://") != NULL;
}

static int check_template(const struct deploy *d)
{
    if (d->ref != NULL)
        return cli_error("--ref is a repository's, not a template's");
    if (d->rebuild)
        return cli_error("a template is built each time: leave --rebuild out");
    if (d->name == NULL && d->from.file == NULL)
        return cli_error("an agent from a template needs a name: give --name NAME");
    return 0;
}

static int check_source(const struct deploy *d)
{
    struct stat st;
    int status = from_template_check(&d->from);
    if (status != 0 || d->from.template != NULL)
        return status != 0 ? status : check_template(d);
    if (d->dir == NULL)
        return cli_error("name a directory, a repository's URL, or a template: --template ID");
    if (is_url(d->dir))
        return d->rebuild ? cli_error("a repository is cloned and built each time: leave --rebuild out") : 0;
    if (d->ref != NULL)
        return cli_error("--ref is a repository's: name one, as in https://git.example/team/agent.git");
    if (stat(d->dir, &st) != 0)
        return cli_error("%s: %s", d->dir, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return 0;
    return cli_error("%s is no directory. An agent is a directory with a program in it (index.js, main.py or "
                     "run.sh): name the directory",
                     d->dir);
}

static int choose_name(struct deploy *d)
{
    char text[PATH_MAX];
    if (d->name != NULL && !cli_is_slug(d->name))
        return cli_error("--name takes lower-case letters, digits and hyphens, at most %d", CLI_SLUG_MAX);
    if (d->name != NULL || d->dir == NULL || (!is_url(d->dir) && manifest_has_name(d->dir)))
        return 0;
    if (!str_copy(str_of(d->dir), text, sizeof text))
        return cli_error("%.80s…: the path is too long", d->dir);
    size_t n = strlen(text);
    while (is_url(text) && n > 4 && (strcmp(text + n - 4, ".git") == 0 || text[n - 1] == '/'))
        text[n -= text[n - 1] == '/' ? 1 : 4] = '\0';
    int status = cli_slug_of(text, d->slug);
    if (status == 0)
        d->name = d->slug;
    return status;
}

/* ---- the upload ---- */

static int open_spool(void)
{
    const char *tmp = getenv("TMPDIR");
    int fd = open(tmp != NULL && tmp[0] != '\0' ? tmp : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return fd >= 0 ? fd : memfd_create("archive", MFD_CLOEXEC);
}

static int pack(struct deploy *d)
{
    struct err err;
    struct stat st;
    int64_t files;
    d->fd = open_spool();
    if (d->fd < 0)
        return cli_error("no room for the archive: %s", strerror(errno));
    if (pack_directory(d->dir, d->fd, ARCHIVE_MAX, &files, &err) != 0)
        return cli_error("%s", err.msg);
    if (files == 0)
        return cli_error("there is no file to deploy in %s: an agent has an index.js, main.py or run.sh",
                         d->dir);
    if (fstat(d->fd, &st) != 0 || st.st_size == 0)
        return cli_error("the archive cannot be read back: %s", strerror(errno));
    d->bytes = (size_t)st.st_size;
    d->map = mmap(NULL, d->bytes, PROT_READ, MAP_PRIVATE, d->fd, 0);
    return d->map != MAP_FAILED ? 0 : cli_error("no memory for the archive");
}

/* Keeps what the answer says of the agent. */
static int take_agent(struct deploy *d)
{
    if (d->agent.kind != REPLY_OK)
        return api_complain(d->cli, &d->agent);
    struct str name = reply_str(json_root(d->agent.doc), "name");
    if (name.n > 0 && str_copy(name, d->agent_name, sizeof d->agent_name))
        return 0;
    cli_error("the gateway's answer is not an agent");
    return STATUS_API;
}

static int64_t built_version(const struct deploy *d)
{
    return reply_int(&d->agent, json_get(json_root(d->agent.doc), "latest_build"), "version");
}

static void repository_body(const struct deploy *d, struct buf *body)
{
    struct json_writer w = json_writer(body);
    jw_object(&w);
    jw_kcstr(&w, "name", d->name);
    jw_kcstr(&w, "git_url", d->dir);
    if (d->ref != NULL)
        jw_kcstr(&w, "ref", d->ref);
    jw_object_end(&w);
}

/* A repository or a template: nothing is uploaded. */
static int name_source(struct deploy *d)
{
    struct buf body;
    int status = 0;
    buf_init(&body, BODY_BYTES);
    if (d->dir != NULL)
        repository_body(d, &body);
    else
        status = from_template_body(&d->from, d->name, &body);
    if (status != 0) {
        buf_deinit(&body);
        return status;
    }
    const struct api_request q = {.method = "POST",
                                  .path = "/v1/agents",
                                  .headers = {"Content-Type: application/json"},
                                  .body = buf_view(&body)};
    api_call(d->cli, &q, &d->agent);
    buf_deinit(&body);
    status = take_agent(d);
    d->version = status == 0 ? reply_int(&d->agent, json_root(d->agent.doc), "deployed_version") : 0;
    return status;
}

static int upload(struct deploy *d)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "/v1/agents%s%s%s",
             d->name != NULL ? "?name="
             : d->rebuild    ? "?"
                             : "",
             d->name != NULL ? d->name : "",
             !d->rebuild       ? ""
             : d->name != NULL ? "&rebuild=true"
                               : "rebuild=true");
    const struct api_request q = {.method = "POST",
                                  .path = path,
                                  .headers = {"Content-Type: application/gzip"},
                                  .body = str_make(d->map, d->bytes),
                                  .timeout_ms = UPLOAD_MS};
    cli_spin(d->cli, "uploading");
    api_call(d->cli, &q, &d->agent);
    int status = take_agent(d);
    if (status != 0)
        return status;
    d->version = reply_int(&d->agent, json_root(d->agent.doc), "deployed_version");
    if (d->version < 0) /* of a gateway from before it was told */
        d->version = built_version(d);
    d->found = d->agent.status == 200;
    return status;
}

/* ---- the build ---- */

static struct str build_status(const struct deploy *d)
{
    return reply_str(json_get(json_root(d->agent.doc), "latest_build"), "status");
}

/* The log takes the spinner's place. */
static void on_log_begun(void *arg)
{
    struct deploy *d = arg;
    cli_spin(d->cli, NULL);
    fprintf(stderr, "The build of %s version %lld:\n", d->agent_name, (long long)d->version);
}

/* To a person, or to whoever asks for it. Whatever goes wrong with it: the build's end is asked for then. */
static int show_log(struct deploy *d)
{
    struct build_log log = {.agent = d->agent_name,
                            .version = d->version,
                            .to = stderr,
                            .begun = on_log_begun,
                            .arg = d,
                            .quiet = true};
    if (d->found || !(d->log || (isatty(STDERR_FILENO) != 0 && !d->cli->json)))
        return STATUS_OK;
    int status = build_log_print(d->cli, &log, true);
    d->shown = status == STATUS_OK;
    if (log.offset > 0 && log.last != '\n')
        fputc('\n', stderr);
    return status == STATUS_INTERRUPTED ? status : STATUS_OK;
}

static int wait_for_build(struct deploy *d)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "/v1/agents/%s", d->agent_name);
    cli_spin(d->cli, "building");
    int status = show_log(d);
    bool at_once = d->shown; /* it has ended */
    while (status == 0 && !d->found && built_version(d) == d->version &&
           str_eq_c(build_status(d), "building")) {
        const struct api_request q = {.method = "GET", .path = path, .retry = API_RETRY_ALL};
        if (!at_once)
            cli_sleep(d->cli, POLL_MS);
        at_once = false;
        reply_deinit(&d->agent);
        api_call(d->cli, &q, &d->agent);
        status = take_agent(d);
    }
    cli_spin(d->cli, NULL);
    return status;
}

static int print_failed(struct deploy *d)
{
    const struct json_value *build = json_get(json_root(d->agent.doc), "latest_build"),
                            *error = json_get(build, "error");
    struct str log = reply_str(build, "log"), message = reply_str(error, "message"),
               code = reply_str(error, "code");
    if (!d->shown)
        build_log_write(stderr, log);
    cli_error("the build of %s version %lld failed%s%.*s%s%.*s%s", d->agent_name, (long long)d->version,
              message.n > 0 ? ": " : "", STR_ARG(message), code.n > 0 ? " (" : "", STR_ARG(code),
              code.n > 0 ? ")" : "");
    return STATUS_ENDED;
}

static int print_end(struct deploy *d)
{
    bool ready = d->found || str_eq_c(build_status(d), "ready");
    if (d->cli->json) {
        reply_print(&d->agent);
        return ready || d->no_wait ? STATUS_OK : STATUS_ENDED;
    }
    if (!d->found && built_version(d) != d->version) {
        cli_error("version %lld of %s was overtaken by a later deploy; 'sandpiper agents' shows it",
                  (long long)d->version, d->agent_name);
        return STATUS_ENDED;
    }
    if (!ready && !d->no_wait)
        return print_failed(d);
    if (d->found) {
        printf("%s version %lld has the same source: nothing to build\n", d->agent_name,
               (long long)d->version);
        return STATUS_OK;
    }
    printf("%s %s version %lld", ready ? "deployed" : "building", d->agent_name, (long long)d->version);
    if (ready)
        printf(" in %.1f s", (double)mono_ms_between(d->since, mono_now()) / 1000);
    printf("\n");
    if (isatty(STDOUT_FILENO) != 0)
        printf("Try: sandpiper invoke %s 'a prompt'\n", d->agent_name);
    return STATUS_OK;
}

static int deploy(struct deploy *d)
{
    int status = check_source(d);
    bool named = d->dir == NULL || is_url(d->dir);
    if (status == 0)
        status = choose_name(d);
    if (status == 0 && !named)
        status = pack(d);
    if (status != 0)
        return status;
    cli_catch_interrupt(d->cli);
    status = named ? name_source(d) : upload(d);
    if (status == 0 && !d->no_wait)
        status = wait_for_build(d);
    cli_spin(d->cli, NULL);
    if (status == STATUS_INTERRUPTED && d->version > 0)
        cli_error("the build of %s version %lld goes on; 'sandpiper agents' shows its end", d->agent_name,
                  (long long)d->version);
    else if (status == STATUS_INTERRUPTED)
        cli_error("the upload was broken off; 'sandpiper agents' shows whether it had arrived");
    return status == 0 ? print_end(d) : status;
}

int command_deploy(struct cli *cli, int argc, char **argv)
{
    struct deploy d = {.cli = cli, .fd = -1, .map = MAP_FAILED, .since = mono_now()};
    const struct cli_option options[] = {
        {"name", CLI_TEXT, &d.name, "N", "the agent's name (default: agent.json's, else the directory's)"},
        {"ref", CLI_TEXT, &d.ref, "REF", "of a repository: a branch, a tag or a commit (default: its HEAD)"},
        {"template", CLI_TEXT, &d.from.template, "ID",
         "a template of the sandbox provider, instead of a directory: its id or name"},
        {"entry", CLI_TEXT, &d.from.entry, "CMD", "of a template: the shell command that runs the agent"},
        {"install", CLI_TEXT, &d.from.install, "CMD", "of a template: what to run once, at the deploy"},
        {"check", CLI_TEXT, &d.from.check, "CMD", "of a template: what must succeed after it"},
        {"rebuild", CLI_FLAG, &d.rebuild, NULL, "build also when the same source is deployed already"},
        {"log", CLI_FLAG, &d.log, NULL, "show what the build writes, as it comes, also where no terminal is"},
        {"no-wait", CLI_FLAG, &d.no_wait, NULL, "do not wait for the build"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {
        "deploy DIR | URL | --template ID [FILE]",
        "Makes a new version of an agent from a directory, from a git repository that anybody may read, or "
        "from a\n"
        "template of the sandbox provider, and waits until it is built. FILE has agent.json's keys.\n"
        "Left out: node_modules, .git, .venv, __pycache__, and what .gitignore and .sandpiperignore name (as "
        "git\n"
        "reads them).",
        options, 0, 1};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    *(d.from.template != NULL ? &d.from.file : &d.dir) = argv[first]; /* NULL: there is none */
    status = deploy(&d);
    reply_deinit(&d.agent);
    if (d.map != MAP_FAILED)
        munmap(d.map, d.bytes);
    if (d.fd >= 0)
        close(d.fd);
    return status;
}
