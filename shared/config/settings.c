/* Settings: the texts of all rows, gathered from a KEY=value file and the environment, later sources winning.
 *
 * The file: one KEY=value a line, blank lines, lines that begin with '#'. A value stands as it is up to the
 * end of the line (spaces around it cut, no expansion, '#' belongs to it) or in quotes, which a comment may
 * follow: in double ones \" and \\ are escapes, in single ones nothing is, as in a shell. An empty value
 * counts as not given. A secret KEY can be given as KEY_FILE, the path of a file that holds it. */
#include "config/settings.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX_BYTES = 1 << 20, SECRET_MAX_BYTES = 64 << 10 };
enum { LAYER_NONE, LAYER_FILE, LAYER_ENVIRONMENT };

extern char **environ;

bool settings_init(struct settings *s, const struct config_table *table, bool print, struct err *first)
{
    *s = (struct settings){.table = table, .print = print, .first = first};
    s->of = calloc(table->count + 1, sizeof *s->of);
    return s->of != NULL;
}

static void drop_text(struct setting *one)
{
    if (one->text != NULL)
        crypto_wipe(one->text, strlen(one->text));
    free(one->text);
    one->text = NULL;
}

void settings_deinit(struct settings *s)
{
    for (size_t i = 0; s->of != NULL && i < s->table->count; i++)
        drop_text(&s->of[i]);
    free(s->of);
    s->of = NULL;
}

void settings_fault(struct settings *s, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (s->print)
        fprintf(stderr, "%s: %s\n", s->table->daemon, text);
    if (s->faults++ == 0)
        err_set(s->first, ERR_CONFIG, "%s", text);
}

/* ---- names ---- */

/* The row of a key, or of KEY_FILE when that row is a secret. -1: none. */
static int find_row(const struct config_table *table, struct str key, bool *is_path)
{
    static const struct str suffix = {"_FILE", 5};
    *is_path = false;
    for (size_t i = 0; i < table->count; i++)
        if (str_eq_c(key, table->rows[i].key))
            return (int)i;
    if (key.n <= suffix.n || !str_eq(str_make(key.p + key.n - suffix.n, suffix.n), suffix))
        return -1;
    key.n -= suffix.n;
    *is_path = true;
    for (size_t i = 0; i < table->count; i++)
        if (table->rows[i].kind == CONFIG_SECRET && str_eq_c(key, table->rows[i].key))
            return (int)i;
    return -1;
}

/* Of any daemon, or of the command line. */
static bool is_known_name(struct str key)
{
    for (const char *const *n = config_known_names; *n != NULL; n++) {
        size_t len = strlen(*n);
        if (str_starts(key, str_of(*n)) &&
            (key.n == len || str_eq(str_make(key.p + len, key.n - len), STR("_FILE"))))
            return true;
    }
    return false;
}

static void consider(struct str key, const char *candidate, unsigned *least, const char **best)
{
    unsigned d = str_distance(key, str_of(candidate));
    if (d < *least) {
        *least = d;
        *best = candidate;
    }
}

static void unknown_key(struct settings *s, const char *where, struct str key)
{
    unsigned least = 5;
    const char *best = NULL;
    for (size_t i = 0; i < s->table->count; i++)
        consider(key, s->table->rows[i].key, &least, &best);
    for (const char *const *n = config_known_names; *n != NULL; n++)
        consider(key, *n, &least, &best);
    if (key.n > 60)
        key.n = 60;
    if (best != NULL)
        settings_fault(s, "%s: unknown key %.*s; did you mean %s?", where, STR_ARG(key), best);
    else
        settings_fault(s, "%s: unknown key %.*s; --help lists the keys", where, STR_ARG(key));
}

/* ---- one value ---- */

static void put(struct settings *s, const char *where, int row, bool is_path, unsigned layer,
                struct str value)
{
    struct setting *one = &s->of[row];
    if (one->layer == layer) {
        settings_fault(s, "%s: %s is given twice", where, s->table->rows[row].key);
        return;
    }
    drop_text(one);
    one->layer = layer;
    one->is_path = is_path;
    one->text = str_dup(value);
    if (one->text == NULL)
        settings_fault(s, "%s: no memory for %s", where, s->table->rows[row].key);
}

/* ---- the file ---- */

static bool is_key_char(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* The inside of "…" or '…' into buf (as large as the text). False when its end is missing or more than a
 * comment follows. */
static bool unquote(struct str text, char *buf, struct str *out)
{
    size_t n = 0, i = 1;
    char quote = text.p[0];
    for (; i < text.n && text.p[i] != quote; i++) {
        if (quote == '"' && text.p[i] == '\\' && i + 1 < text.n &&
            (text.p[i + 1] == '"' || text.p[i + 1] == '\\'))
            i++;
        buf[n++] = text.p[i];
    }
    if (i >= text.n)
        return false;
    struct str rest = str_trim(str_make(text.p + i + 1, text.n - i - 1));
    *out = str_make(buf, n);
    return rest.n == 0 || rest.p[0] == '#';
}

static void read_pair(struct settings *s, const char *where, struct str key, struct str value)
{
    bool is_path;
    int row = find_row(s->table, key, &is_path);
    if (row < 0 && !is_known_name(key)) /* one file may serve all daemons */
        unknown_key(s, where, key);
    else if (row >= 0 && value.n > 0)
        put(s, where, row, is_path, LAYER_FILE, value);
}

static void read_line(struct settings *s, const char *where, struct str line)
{
    size_t n = 0;
    const char *equals = memchr(line.p, '=', line.n);
    struct str key = equals != NULL ? str_trim(str_make(line.p, (size_t)(equals - line.p))) : line;
    while (n < key.n && is_key_char(key.p[n]))
        n++;
    if (equals == NULL || n == 0 || n != key.n || memchr(line.p, '\0', line.n) != NULL) {
        settings_fault(s, "%s: expected KEY=value", where);
        return;
    }
    struct str value = str_trim(str_make(equals + 1, (size_t)(line.p + line.n - equals - 1)));
    if (value.n == 0 || (value.p[0] != '"' && value.p[0] != '\'')) {
        read_pair(s, where, key, value);
        return;
    }
    char *buf = malloc(value.n);
    if (buf == NULL || !unquote(value, buf, &value))
        settings_fault(s, "%s: the quotes of %.*s are not closed, or something follows them", where,
                       STR_ARG(key));
    else
        read_pair(s, where, key, value);
    free(buf);
}

void settings_read_text(struct settings *s, const char *name, struct str text)
{
    struct str line;
    char where[120];
    for (int number = 1; str_split(&text, '\n', &line); number++) {
        if (line.n > 0 && line.p[line.n - 1] == '\r')
            line.n--;
        line = str_trim(line);
        if (line.n == 0 || line.p[0] == '#')
            continue;
        snprintf(where, sizeof where, "%.90s line %d", name, number);
        read_line(s, where, line);
    }
}

char *settings_slurp(const char *path, size_t max, const char **why)
{
    FILE *f = fopen(path, "re");
    char *text = f != NULL ? malloc(max + 2) : NULL;
    size_t n = text != NULL ? fread(text, 1, max + 1, f) : 0;
    *why = f == NULL || text == NULL || ferror(f) != 0 ? strerror(errno) : n > max ? "it is too large" : NULL;
    if (f != NULL)
        fclose(f);
    if (*why != NULL) {
        free(text);
        return NULL;
    }
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    text[n] = '\0';
    return text;
}

void settings_read_file(struct settings *s, const char *path)
{
    const char *why;
    char *text = settings_slurp(path, FILE_MAX_BYTES, &why);
    if (text == NULL) {
        settings_fault(s, "cannot read the configuration file %.90s: %s", path, why);
        return;
    }
    settings_read_text(s, path, str_of(text));
    crypto_wipe(text, strlen(text));
    free(text);
}

/* ---- the environment ---- */

void settings_read_environment(struct settings *s)
{
    static const char where[] = "environment";
    for (char **e = environ; *e != NULL; e++) {
        struct str value = str_of(*e), key;
        bool is_path;
        str_split(&value, '=', &key);
        int row = find_row(s->table, key, &is_path);
        if (row >= 0 && value.n > 0)
            put(s, where, row, is_path, LAYER_ENVIRONMENT, value);
        else if (row < 0 && str_starts(key, STR("SANDPIPER_")) && !is_known_name(key))
            unknown_key(s, where, key);
    }
}

void settings_clear_environment(const struct settings *s)
{
    for (size_t i = 0; i < s->table->count; i++) {
        const struct config_row *row = &s->table->rows[i];
        char *value = row->kind == CONFIG_SECRET ? getenv(row->key) : NULL;
        if (value == NULL)
            continue;
        crypto_wipe(value, strlen(value)); /* /proc/<pid>/environ shows this memory */
        unsetenv(row->key);
    }
}

/* ---- conversion ---- */

static void apply_secret_file(struct settings *s, const struct config_row *row, const char *path, void *out)
{
    char unused[CONFIG_WHY_BYTES];
    const char *why;
    char *text = settings_slurp(path, SECRET_MAX_BYTES, &why);
    if (text != NULL) {
        why = text[0] != '\0' ? config_convert(row, text, out, unused) : "it is empty";
        crypto_wipe(text, strlen(text));
        free(text);
    }
    if (why != NULL)
        settings_fault(s, "%s_FILE: cannot use %.90s: %s", row->key, path, why);
}

static void apply_row(struct settings *s, const struct config_row *row, const struct setting *one, void *out)
{
    char why[CONFIG_WHY_BYTES];
    if (one->text != NULL && one->is_path) {
        apply_secret_file(s, row, one->text, out);
        return;
    }
    const char *text = one->text != NULL ? one->text : row->fallback;
    if (text == NULL) {
        if (row->required)
            settings_fault(s, "%s is required: %s", row->key, row->help);
        return;
    }
    struct err err = ERR_INIT;
    const char *fault = config_convert(row, text, out, why);
    if (fault != NULL)
        settings_fault(s, "%s %s", row->key, fault);
    else if (row->check != NULL && row->check(text, &err) != 0)
        settings_fault(s, "%s: %s", row->key, err.msg);
}

void settings_apply(struct settings *s, void *out)
{
    for (size_t i = 0; i < s->table->count; i++)
        apply_row(s, &s->table->rows[i], &s->of[i], out);
}
