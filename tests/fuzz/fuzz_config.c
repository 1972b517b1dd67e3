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
    {.key = "TEXT", .kind = CONFIG_STRING, .offset = offsetof(struct sample, text), .help = ""},
    {.key = "LISTEN", .kind = CONFIG_LISTEN, .offset = offsetof(struct sample, listen), .help = ""},
    {.key = "URL", .kind = CONFIG_URL, .offset = offsetof(struct sample, url), .required = true, .help = ""},
    {.key = "SECRET", .kind = CONFIG_SECRET, .offset = offsetof(struct sample, secret), .help = ""},
    {.key = "NUMBER",
     .kind = CONFIG_INT,
     .offset = offsetof(struct sample, number),
     .fallback = "1",
     .min = 1,
     .max = 9,
     .help = ""},
    {.key = "BYTES", .kind = CONFIG_BYTES, .offset = offsetof(struct sample, bytes), .help = ""},
    {.key = "MS", .kind = CONFIG_MS, .offset = offsetof(struct sample, ms), .help = ""},
    {.key = "ON", .kind = CONFIG_BOOL, .offset = offsetof(struct sample, on), .help = ""},
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
