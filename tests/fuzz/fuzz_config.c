/* config: any text is parsed or refused, and what was put into the struct can be unloaded. */
#include <stddef.h>

#include "config/config.h"

struct sample {
    char *text, *listen, *url;
    struct secret *secret;
    int64_t number, bytes, ms;
    bool on;
};

static const struct config_row rows[] = {
    {"TEXT", CONFIG_STRING, offsetof(struct sample, text), NULL, false, 0, 0, ""},
    {"LISTEN", CONFIG_LISTEN, offsetof(struct sample, listen), NULL, false, 0, 0, ""},
    {"URL", CONFIG_URL, offsetof(struct sample, url), NULL, true, 0, 0, ""},
    {"SECRET", CONFIG_SECRET, offsetof(struct sample, secret), NULL, false, 0, 0, ""},
    {"NUMBER", CONFIG_INT, offsetof(struct sample, number), "1", false, 1, 9, ""},
    {"BYTES", CONFIG_BYTES, offsetof(struct sample, bytes), NULL, false, 0, 0, ""},
    {"MS", CONFIG_MS, offsetof(struct sample, ms), NULL, false, 0, 0, ""},
    {"ON", CONFIG_BOOL, offsetof(struct sample, on), NULL, false, 0, 0, ""},
};
static const struct config_table table = {"fuzz", "", rows, sizeof rows / sizeof *rows, NULL, 0};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sample s = {0};
    struct err err;
    crypto_init(NULL);
    config_parse_text(&table, str_make((const char *)data, size), &s, &err);
    config_unload(&table, &s);
    return 0;
}
