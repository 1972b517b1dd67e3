/* Ignore files (ignore.h). A rule is a line; of those that match a path the last one counts: the rules stand
 * in the order of the directories from the top down, as they were entered, and of their lines. */
#include "ignore.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES = 256 << 10, RULES_MAX = 10000, PATH_BYTES = 4096 };

struct rule {
    char *base;  /* the directory of its file: "" or "a/b/" */
    char *text;  /* the pattern without "!", and without the slashes at its ends */
    bool except; /* "!": not ignored after all */
    bool directory, anchored;
};

struct ignore {
    struct rule *rules;
    size_t count, room;
};

struct ignore *ignore_new(void)
{
    return calloc(1, sizeof(struct ignore));
}

void ignore_free(struct ignore **ig)
{
    if (ig == NULL || *ig == NULL)
        return;
    for (size_t i = 0; i < (*ig)->count; i++) {
        free((*ig)->rules[i].base);
        free((*ig)->rules[i].text);
    }
    free((*ig)->rules);
    free(*ig);
    *ig = NULL;
}

/* ---- matching ---- */

/* fnmatch(3) knows no "**": a pattern is matched part by part, and "**" stands for any number of them. */
static bool match_parts(const char *pattern, const char *path)
{
    for (;;) {
        size_t n = strcspn(pattern, "/"), m = strcspn(path, "/");
        char part[PATH_BYTES], name[PATH_BYTES];
        if (n == 2 && memcmp(pattern, "**", 2) == 0) {
            if (pattern[n] == '\0')
                return path[0] != '\0'; /* what lies below, not the directory itself */
            for (const char *at = path;;) {
                if (match_parts(pattern + n + 1, at))
                    return true;
                at = strchr(at, '/');
                if (at == NULL)
                    return false;
                at++;
            }
        }
        if (n >= sizeof part || m >= sizeof name || path[0] == '\0')
            return false;
        memcpy(part, pattern, n);
        memcpy(name, path, m);
        part[n] = name[m] = '\0';
        if (fnmatch(part, name, 0) != 0)
            return false;
        if (pattern[n] == '\0' || path[m] == '\0')
            return pattern[n] == path[m];
        pattern += n + 1;
        path += m + 1;
    }
}

static bool rule_matches(const struct rule *r, const char *path, bool directory)
{
    size_t n = strlen(r->base);
    const char *name = strrchr(path, '/');
    if ((r->directory && !directory) || strncmp(path, r->base, n) != 0)
        return false;
    return r->anchored ? match_parts(r->text, path + n)
                       : fnmatch(r->text, name != NULL ? name + 1 : path, 0) == 0;
}

bool ignore_matches(const struct ignore *ig, const char *path, bool directory)
{
    for (size_t i = ig->count; i > 0; i--)
        if (rule_matches(&ig->rules[i - 1], path, directory))
            return !ig->rules[i - 1].except;
    return false;
}

/* ---- reading ---- */

/* Without the spaces at its end, unless a backslash keeps one. */
static void trim_end(char *line)
{
    size_t n = strcspn(line, "\r\n");
    line[n] = '\0';
    while (n > 0 && line[n - 1] == ' ' && !(n > 1 && line[n - 2] == '\\'))
        line[--n] = '\0';
}

/* False: a line without a rule. r's texts point into line. */
static bool read_rule(char *line, struct rule *r)
{
    trim_end(line);
    *r = (struct rule){.text = line};
    if (line[0] == '#' || line[0] == '\0')
        return false;
    if (line[0] == '!') {
        r->except = true;
        r->text++;
    }
    size_t n = strlen(r->text);
    if (n > 0 && r->text[n - 1] == '/') {
        r->directory = true;
        r->text[n - 1] = '\0';
    }
    r->anchored = strchr(r->text, '/') != NULL;
    if (r->text[0] == '/')
        r->text++;
    return r->text[0] != '\0';
}

static int add_rule(struct ignore *ig, const struct rule *rule, const char *path, struct err *err)
{
    if (ig->count == RULES_MAX)
        return err_set(err, ERR_LIMIT, "the ignore files have more than %d rules", RULES_MAX);
    if (ig->count == ig->room) {
        size_t room = ig->room > 0 ? 2 * ig->room : 32;
        struct rule *rules = reallocarray(ig->rules, room, sizeof *rules);
        if (rules == NULL)
            return err_set(err, ERR_NO_MEMORY, "no memory");
        ig->rules = rules;
        ig->room = room;
    }
    struct rule *r = &ig->rules[ig->count];
    *r = *rule;
    r->text = strdup(rule->text);
    if (asprintf(&r->base, "%s%s", path, path[0] != '\0' ? "/" : "") < 0)
        r->base = NULL;
    if (r->text == NULL || r->base == NULL) {
        free(r->text);
        free(r->base);
        return err_set(err, ERR_NO_MEMORY, "no memory");
    }
    ig->count++;
    return 0;
}

static int read_rules(struct ignore *ig, char *text, const char *path, struct err *err)
{
    struct rule r;
    for (char *line = text, *next; line != NULL; line = next) {
        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        if (read_rule(line, &r) && add_rule(ig, &r, path, err) != 0)
            return -1;
    }
    return 0;
}

static int read_file(struct ignore *ig, const char *dir, const char *name, const char *path, struct err *err)
{
    char *file = NULL;
    if (asprintf(&file, "%s/%s", dir, name) < 0)
        return err_set(err, ERR_NO_MEMORY, "no memory");
    FILE *f = fopen(file, "re");
    int why = errno;
    free(file);
    if (f == NULL)
        return why == ENOENT || why == ENOTDIR || why == ELOOP
                   ? 0
                   : err_set(err, ERR_IO, "cannot read %s: %s", name, strerror(why));
    char *text = calloc(1, FILE_BYTES + 1);
    size_t n = text != NULL ? fread(text, 1, FILE_BYTES, f) : 0;
    int rc = text == NULL      ? err_set(err, ERR_NO_MEMORY, "no memory")
             : n == FILE_BYTES ? err_set(err, ERR_LIMIT, "%s is too large", name)
                               : read_rules(ig, text, path, err);
    fclose(f);
    free(text);
    return rc;
}

int ignore_enter(struct ignore *ig, const char *dir, const char *path, struct err *err)
{
    return read_file(ig, dir, ".gitignore", path, err) != 0
               ? -1
               : read_file(ig, dir, ".sandpiperignore", path, err);
}

bool ignore_pattern(const char *pattern, const char *path, bool directory)
{
    char line[PATH_BYTES];
    struct rule r;
    snprintf(line, sizeof line, "%s", pattern);
    r.base = NULL;
    if (!read_rule(line, &r))
        return false;
    r.base = line + strlen(line); /* "" */
    return rule_matches(&r, path, directory) && !r.except;
}
