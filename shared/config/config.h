/* Configuration: one table a daemon. The same row gives the parsing, --help, --check-config, --print-config
 * and the error texts.
 *
 * Sources, later ones win: defaults, a KEY=value file (--config FILE or SANDPIPER_CONFIG), the environment.
 * In the file a key outside the table is an error. In the environment an unknown SANDPIPER_* name is an error
 * too, unless it is in config_known_names (all keys of all daemons, so that one environment serves them all).
 * Errors name the key, the value's fault and the nearest right key. */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "crypto/crypto.h"

enum config_kind {
    CONFIG_STRING, /* char * (owned by the daemon's struct; NULL when unset and without a default) */
    CONFIG_SECRET, /* struct secret *; printed as "(set)"; KEY_FILE names a file that holds it instead */
    CONFIG_INT,    /* int64_t; min..max */
    CONFIG_BOOL,   /* bool; true/false/1/0/yes/no */
    CONFIG_BYTES,  /* int64_t; plain or with a k, m, g suffix (1024-based); min..max */
    CONFIG_MS,     /* int64_t milliseconds; "250ms", "5s", "2m", "24h", plain number = ms; min..max */
    CONFIG_LISTEN, /* char *: "address:port" or "[v6]:port", validated */
    CONFIG_URL,    /* char *: scheme://…, validated loosely */
};

struct config_row {
    const char *key; /* "SANDPIPER_REDIS_URL" */
    enum config_kind kind;
    size_t offset;        /* offsetof(struct xyz_config, field) */
    const char *fallback; /* the default, as text; NULL: none */
    bool required;
    int64_t min, max; /* for numbers; 0,0: no bounds */
    const char *help; /* one line */
    /* What the kind alone cannot say (an address that its library reads): 0, or -1 and *err, which must not
     * quote a value that may hold a password. May be NULL. */
    int (*check)(const char *text, struct err *err);
};

/* A daemon's own command-line flag: sets the bool at offset. */
struct config_flag {
    const char *name; /* "--allow-unenforced" */
    size_t offset;
    const char *help;
};

struct config_table {
    const char *daemon; /* "sandpiper-gateway" */
    const char *about;  /* one line for --help */
    const struct config_row *rows;
    size_t count;
    const struct config_flag *flags; /* or NULL */
    size_t flag_count;
};

enum config_action { CONFIG_RUN, CONFIG_EXIT_OK, CONFIG_EXIT_BAD };

/* All keys of all daemons, NULL-ended (names.c): a daemon that gains a key adds it there. KEY_FILE goes with
 * KEY. */
extern const char *const config_known_names[];

/* Parses argv (--help --version --config FILE --check-config --print-config and the table's flags) and all
 * sources into `out` (the daemon's zeroed config struct). Prints what was asked for to stdout, errors to
 * stderr (every error, not only the first). CONFIG_EXIT_BAD means exit status 2. An empty value counts as not
 * given. After CONFIG_RUN the secrets are gone from the environment (children would inherit them); after the
 * other two `out` holds nothing to unload. */
enum config_action config_load(const struct config_table *table, int argc, char **argv, void *out);

/* Frees the strings and secrets that config_load put into out. */
void config_unload(const struct config_table *table, void *out);

/* The pure part, for tests and the fuzzer: defaults plus the text of a file into the struct. */
int config_parse_text(const struct config_table *table, struct str text, void *out, struct err *err);

#endif
