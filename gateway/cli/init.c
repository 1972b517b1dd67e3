/* init: a directory with a small agent in it, to be changed into one's own. What is there is left as it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "json/writer.h"
#include "slug.h"

enum { PATH_BYTES = 4096, FILES = 2, TEXT_MAX = 64 * 1024 };
#define NAME_MARK "{{name}}"

extern const char starter_python_agent_json[], starter_python_main_py[], starter_node_agent_json[],
    starter_node_index_js[], starter_shell_agent_json[], starter_shell_run_sh[];

static const struct starter {
    const char *name, *about;
    struct {
        const char *path, *text;
        mode_t mode;
    } files[FILES]; /* the program first */
} starters[] = {
    {"python",
     "Python, without packages",
     {{"main.py", starter_python_main_py, 0644}, {"agent.json", starter_python_agent_json, 0644}}},
    {"node",
     "Node.js, without packages",
     {{"index.js", starter_node_index_js, 0644}, {"agent.json", starter_node_agent_json, 0644}}},
    {"shell",
     "a shell script",
     {{"run.sh", starter_shell_run_sh, 0755}, {"agent.json", starter_shell_agent_json, 0644}}},
};
enum { STARTERS = sizeof starters / sizeof *starters };

static int list_starters(const struct cli *cli)
{
    for (int i = 0; i < STARTERS; i++)
        if (cli->json)
            printf("{\"name\":\"%s\",\"about\":\"%s\"}\n", starters[i].name, starters[i].about);
        else
            printf("%-8s %s\n", starters[i].name, starters[i].about);
    return STATUS_OK;
}

static const struct starter *find_starter(const char *name)
{
    for (int i = 0; i < STARTERS; i++)
        if (strcmp(starters[i].name, name) == 0)
            return &starters[i];
    cli_error("there is no starter %s; 'sandpiper init --list' names them", name);
    return NULL;
}

static bool path_of(char out[PATH_BYTES], const char *dir, const char *file)
{
    if (snprintf(out, PATH_BYTES, "%s/%s", dir, file) < PATH_BYTES)
        return true;
    cli_error("%s: the path is too long", dir);
    return false;
}

/* Whether all files can be made. */
static int look(const struct starter *s, const char *dir)
{
    char path[PATH_BYTES];
    struct stat st;
    for (int i = 0; i < FILES; i++) {
        if (!path_of(path, dir, s->files[i].path))
            return STATUS_USAGE;
        if (lstat(path, &st) == 0)
            return cli_error(
                "%s is there already, and is left as it is. Name an empty directory, or a new one", path);
    }
    return 0;
}

/* The text with the agent's name put in. */
static void put_name(struct buf *out, const char *text, const char *name)
{
    const char *mark;
    while ((mark = strstr(text, NAME_MARK)) != NULL) {
        buf_append(out, text, (size_t)(mark - text));
        buf_str(out, str_of(name));
        text = mark + sizeof NAME_MARK - 1;
    }
    buf_str(out, str_of(text));
}

static int write_file(const char *path, struct str text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return cli_error("cannot make %s: %s", path, strerror(errno));
    bool fine = write(fd, text.p, text.n) == (ssize_t)text.n;
    fine = close(fd) == 0 && fine;
    return fine ? 0 : cli_error("cannot write %s: %s", path, strerror(errno));
}

static int make(const struct starter *s, const char *dir, const char *name)
{
    char path[PATH_BYTES];
    if (mkdir(dir, 0755) != 0 && errno != EEXIST)
        return cli_error("cannot make %s: %s", dir, strerror(errno));
    for (int i = 0; i < FILES; i++) {
        struct buf text;
        buf_init(&text, TEXT_MAX);
        put_name(&text, s->files[i].text, name);
        int status = path_of(path, dir, s->files[i].path)
                         ? write_file(path, buf_view(&text), s->files[i].mode)
                         : STATUS_USAGE;
        buf_deinit(&text);
        if (status != 0)
            return status;
    }
    return 0;
}

static void tell(const struct cli *cli, const struct starter *s, const char *dir, const char *name)
{
    if (cli->json) {
        struct buf out;
        buf_init(&out, TEXT_MAX);
        struct json_writer w = json_writer(&out);
        jw_object(&w);
        jw_kcstr(&w, "name", name);
        jw_kcstr(&w, "directory", dir);
        jw_kcstr(&w, "starter", s->name);
        jw_object_end(&w);
        printf("%.*s\n", STR_ARG(buf_view(&out)));
        buf_deinit(&out);
        return;
    }
    printf("made %s/%s and %s/agent.json\n", dir, s->files[0].path, dir);
    if (isatty(STDOUT_FILENO) != 0)
        printf("Try: sandpiper deploy %s && sandpiper invoke %s 'a prompt'\n", dir, name);
}

int command_init(struct cli *cli, int argc, char **argv)
{
    const char *name = NULL, *starter = "python";
    bool list = false;
    const struct cli_option options[] = {
        {"starter", CLI_TEXT, &starter, "S", "what to begin with: python (the default), node or shell"},
        {"name", CLI_TEXT, &name, "N", "the agent's name (default: the directory's)"},
        {"list", CLI_FLAG, &list, NULL, "name the starters"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {
        "init DIR", "Makes a directory with a small agent in it, to be changed into one's own.", options, 0,
        1};
    char slug[CLI_SLUG_MAX + 1];
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    if (list)
        return list_starters(cli);
    if (first == argc)
        return cli_error("name a directory: sandpiper init my-agent");
    const struct starter *s = find_starter(starter);
    if (s == NULL)
        return STATUS_USAGE;
    if (name != NULL && !cli_is_slug(name))
        return cli_error("--name takes lower-case letters, digits and hyphens, at most %d", CLI_SLUG_MAX);
    if (name == NULL && (status = cli_slug_of(argv[first], slug)) != 0)
        return status;
    name = name != NULL ? name : slug;
    status = look(s, argv[first]);
    if (status == 0)
        status = make(s, argv[first], name);
    if (status == 0)
        tell(cli, s, argv[first], name);
    return status;
}
