/* Inside shared/config: the texts gathered from all sources, and their conversion. */
#ifndef CONFIG_SETTINGS_H
#define CONFIG_SETTINGS_H

#include "config/config.h"

/* One row's text, from the strongest source so far. */
struct setting {
    char *text;     /* owned, wiped; NULL: none but the default */
    bool is_path;   /* text names the file that holds the secret (KEY_FILE) */
    unsigned layer; /* which source it came from: 1 the file, 2 the environment; 0 none */
};

/* The gathering, and every fault found on the way. */
struct settings {
    const struct config_table *table;
    struct setting *of; /* one a row */
    bool print;         /* faults go to stderr, all of them */
    int faults;
    struct err *first; /* or NULL */
};

/* false without memory. */
bool settings_init(struct settings *s, const struct config_table *table, bool print, struct err *first);
void settings_deinit(struct settings *s);

/* Counts, prints and keeps a fault. Never hand it a secret or a url. */
void settings_fault(struct settings *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The sources. `name` stands for the text in faults. */
void settings_read_text(struct settings *s, const char *name, struct str text);
void settings_read_file(struct settings *s, const char *path);
void settings_read_environment(struct settings *s);

/* Removes the secrets of the environment from it, so that children do not inherit them. */
void settings_clear_environment(const struct settings *s);

/* Converts everything into the daemon's struct. */
void settings_apply(struct settings *s, void *out);

/* Reads a whole file of at most max bytes, trailing line ends cut. NULL and *why. Free it. */
char *settings_slurp(const char *path, size_t max, const char **why);

/* Checks and converts one value. NULL, or what is wrong with it ("must be a number from 1 to 5"), in `why`.
 */
enum { CONFIG_WHY_BYTES = 120 };
const char *config_convert(const struct config_row *row, const char *text, void *out,
                           char why[CONFIG_WHY_BYTES]);

#endif
