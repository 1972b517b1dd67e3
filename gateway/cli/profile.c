/* profiles: which gateway, and as whom. */
#include "profile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crypto/crypto.h"
#include "json/writer.h"
#include "slug.h"
#include "typed.h"

enum { PATH_BYTES = 4096, LINE_BYTES = 1024, TYPED_MAX = 16 * 1024 };
#define SUFFIX ".profile"
#define CURRENT "current"

/* ---- files ---- */

static bool directory(char out[PATH_BYTES])
{
    const char *base = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    if (base != NULL && base[0] == '/')
        return snprintf(out, PATH_BYTES, "%s/sandpiper", base) < PATH_BYTES;
    return home != NULL && home[0] == '/' &&
           snprintf(out, PATH_BYTES, "%s/.config/sandpiper", home) < PATH_BYTES;
}

static bool path_of(char out[PATH_BYTES], const char *name, const char *suffix)
{
    char dir[PATH_BYTES];
    return directory(dir) && snprintf(out, PATH_BYTES, "%.3900s/%s%s", dir, name, suffix) < PATH_BYTES;
}

/* The directory and those above it. */
static int make_directory(void)
{
    char dir[PATH_BYTES];
    if (!directory(dir))
        return cli_error("there is no place for profiles: HOME is not set");
    for (char *p = dir + 1; *p != '\0'; p++)
        if (*p == '/') {
            *p = '\0';
            mkdir(dir, 0700);
            *p = '/';
        }
    if (mkdir(dir, 0700) == 0 || errno == EEXIST)
        return 0;
    return cli_error("cannot make %s: %s", dir, strerror(errno));
}

/* As a whole or not at all. */
static int write_file(const char *path, const char *text)
{
    char made[PATH_BYTES + 8];
    snprintf(made, sizeof made, "%s.XXXXXX", path);
    int fd = mkostemp(made, O_CLOEXEC); /* 0600 */
    if (fd < 0)
        return cli_error("cannot make %s: %s", made, strerror(errno));
    size_t n = strlen(text);
    bool fine = write(fd, text, n) == (ssize_t)n && fsync(fd) == 0;
    fine = close(fd) == 0 && fine && rename(made, path) == 0;
    if (fine)
        return 0;
    int status = cli_error("cannot write %s: %s", path, strerror(errno));
    unlink(made);
    return status;
}

/* The first line of a file; "" without. */
static void read_line(const char *path, char *out, int bytes)
{
    FILE *f = fopen(path, "re");
    out[0] = '\0';
    if (f == NULL)
        return;
    if (fgets(out, bytes, f) == NULL)
        out[0] = '\0';
    out[strcspn(out, "\r\n")] = '\0';
    fclose(f);
}

static bool take(const char *line, const char *key, char *out, size_t bytes)
{
    struct str value = str_of(line), name;
    return str_split(&value, '=', &name) && str_eq_c(name, key) && str_copy(value, out, bytes);
}

static bool read_profile(const char *name, struct profile *out)
{
    char path[PATH_BYTES], line[LINE_BYTES];
    *out = (struct profile){.url = ""};
    if (!cli_is_slug(name) || !path_of(path, name, SUFFIX))
        return false;
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return false;
    str_copy(str_of(name), out->name, sizeof out->name);
    while (fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\r\n")] = '\0';
        if (!take(line, "url", out->url, sizeof out->url))
            take(line, "key", out->key, sizeof out->key);
    }
    crypto_wipe(line, sizeof line);
    fclose(f);
    return true;
}

static void current_name(char out[PROFILE_NAME_MAX + 2])
{
    char path[PATH_BYTES];
    out[0] = '\0';
    if (path_of(path, CURRENT, ""))
        read_line(path, out, PROFILE_NAME_MAX + 2);
}

int profile_load(const char *chosen, struct profile *out)
{
    const char *named = chosen != NULL ? chosen : getenv("SANDPIPER_PROFILE");
    char current[PROFILE_NAME_MAX + 2];
    *out = (struct profile){.url = ""};
    if (named != NULL && named[0] != '\0') {
        if (read_profile(named, out))
            return 1;
        cli_error("there is no profile %s; 'sandpiper profiles ls' names them", named);
        return -1;
    }
    current_name(current);
    return current[0] != '\0' && read_profile(current, out) ? 1 : 0;
}

/* ---- commands ---- */

static int complain_of(const char *name)
{
    return cli_error("there is no profile %s; 'sandpiper profiles ls' names them", name);
}

static int use(const char *name)
{
    char path[PATH_BYTES], line[LINE_BYTES];
    struct profile p;
    if (!read_profile(name, &p))
        return complain_of(name);
    crypto_wipe(p.key, sizeof p.key);
    snprintf(line, sizeof line, "%s\n", name);
    return path_of(path, CURRENT, "") ? write_file(path, line) : STATUS_USAGE;
}

/* The key is typed, or comes on stdin: an argument could be read by others. */
static int set(struct cli *cli, const char *name, const char *url)
{
    char path[PATH_BYTES], text[LINE_BYTES], current[PROFILE_NAME_MAX + 2];
    struct buf key;
    if (!cli_is_slug(name))
        return cli_error("a profile's name has lower-case letters, digits and hyphens, at most %d",
                         CLI_SLUG_MAX);
    if (url == NULL || strlen(url) >= PROFILE_URL_BYTES || strpbrk(url, " \r\n") != NULL ||
        (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0))
        return cli_error("--gateway takes the gateway's address, as in https://sandpiper.example.com");
    int status = make_directory();
    if (status != 0)
        return status;
    buf_init(&key, TYPED_MAX);
    status = typed_secret("API key", &key);
    if (status == 0 && (key.len == 0 || memchr(key.data, '\n', key.len) != NULL))
        status = cli_error("the key is one line: sp_…");
    if (status == 0 && key.len >= PROFILE_KEY_BYTES)
        status = cli_error("a key of %zu bytes is beyond the limit, %d", key.len, PROFILE_KEY_BYTES - 1);
    if (status == 0) {
        size_t n = strlen(url);
        while (url[n - 1] == '/')
            n--;
        snprintf(text, sizeof text, "url=%.*s\nkey=%.*s\n", (int)n, url, STR_ARG(buf_view(&key)));
        status = path_of(path, name, SUFFIX) ? write_file(path, text) : STATUS_USAGE;
        crypto_wipe(text, sizeof text);
    }
    if (key.data != NULL)
        crypto_wipe(key.data, key.len);
    buf_deinit(&key);
    current_name(current);
    if (status == 0 && current[0] == '\0')
        status = use(name);
    if (status == 0 && !cli->json)
        printf("saved profile %s\n", name);
    return status;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_profile(const struct dirent *e)
{
    size_t n = strlen(e->d_name), m = sizeof SUFFIX - 1;
    return n > m && strcmp(e->d_name + n - m, SUFFIX) == 0;
}

static void print_profile(const struct cli *cli, const struct profile *p, bool current)
{
    if (!cli->json) {
        printf("%s %-16s %s\n", current ? "*" : " ", p->name, p->url);
        return;
    }
    struct buf out;
    buf_init(&out, LINE_BYTES * 2);
    struct json_writer w = json_writer(&out);
    jw_object(&w);
    jw_kcstr(&w, "name", p->name);
    jw_kcstr(&w, "url", p->url);
    jw_kbool(&w, "current", current);
    jw_object_end(&w);
    printf("%.*s\n", STR_ARG(buf_view(&out)));
    buf_deinit(&out);
}

static int list(const struct cli *cli)
{
    char dir[PATH_BYTES], current[PROFILE_NAME_MAX + 2], name[PROFILE_NAME_MAX + 1];
    struct dirent **entries = NULL;
    int n = directory(dir) ? scandir(dir, &entries, is_profile, by_name) : 0;
    current_name(current);
    for (int i = 0; i < n; i++) {
        struct profile p;
        size_t length = strlen(entries[i]->d_name) - (sizeof SUFFIX - 1);
        if (str_copy(str_make(entries[i]->d_name, length), name, sizeof name) && read_profile(name, &p)) {
            print_profile(cli, &p, strcmp(name, current) == 0);
            crypto_wipe(p.key, sizeof p.key);
        }
        free(entries[i]);
    }
    free(entries);
    if (n <= 0 && !cli->json)
        fprintf(stderr, "There are none. 'sandpiper profiles set NAME --gateway URL' makes one.\n");
    return STATUS_OK;
}

static int drop(const char *name)
{
    char path[PATH_BYTES], current[PROFILE_NAME_MAX + 2];
    if (!cli_is_slug(name) || !path_of(path, name, SUFFIX) || unlink(path) != 0)
        return complain_of(name);
    current_name(current);
    if (strcmp(current, name) == 0 && path_of(path, CURRENT, ""))
        unlink(path);
    return STATUS_OK;
}

int command_profiles(struct cli *cli, int argc, char **argv)
{
    const char *url = NULL;
    const struct cli_option options[] = {
        {"gateway", CLI_TEXT, &url, "URL", "set: the gateway's address"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_usage usage = {
        "profiles ls | set NAME --gateway URL | use NAME | rm NAME",
        "Gateways and keys by name, in ~/.config/sandpiper. set asks for the key, or reads "
        "it from stdin.\n--profile NAME and SANDPIPER_PROFILE choose one for a command; "
        "SANDPIPER_URL and SANDPIPER_API_KEY go before it.",
        options, 1, 2};
    int first, status;
    if (!cli_parse(cli, &usage, argc, argv, &first, &status))
        return status;
    const char *what = argv[first], *name = first + 1 < argc ? argv[first + 1] : NULL;
    if (strcmp(what, "ls") == 0 && name == NULL)
        return list(cli);
    if (name == NULL)
        return cli_error("which profile? Usage: sandpiper %s", usage.usage);
    if (strcmp(what, "set") == 0)
        return set(cli, name, url);
    if (strcmp(what, "use") == 0)
        return use(name);
    if (strcmp(what, "rm") == 0)
        return drop(name);
    return cli_error("there is no command profiles %s; see sandpiper profiles --help", what);
}
