/* What the simulator is told: how long things take, what programs answer, what it refuses. */
#ifndef SIM_OPTIONS_H
#define SIM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "config/config.h"

enum { SIM_OUTPUT_MAX_BYTES = 64 * 1024 * 1024, SIM_PIECES_MAX = 100000 };

/* From min to max, evenly. */
struct span {
    int64_t min_ms, max_ms;
};

/* "20", "20ms", "1s", "10..50" or "100ms..2s"; up to an hour. */
bool span_parse(struct str text, struct span *out);
int64_t span_draw(const struct span *s);

struct options {
    char *listen;
    struct secret *api_key;
    char *create, *start, *run, *kill; /* the spans' texts */
    char *output;                      /* "echo", or the text */
    int64_t output_bytes;              /* over 0: so many bytes instead */
    int64_t pieces;
    int64_t max_live;
    int64_t creates_per_second;
    char *ledger;
    char *log_level;
    struct span create_span, start_span, run_span, kill_span; /* the texts, parsed by options_settle */
};

extern const struct config_table options_table;

/* Parses the spans (checked before by the table). */
void options_settle(struct options *o);

#endif
