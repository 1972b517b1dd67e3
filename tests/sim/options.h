/* What the simulator is told: how long things take, what programs answer, what it refuses. */
#ifndef SIM_OPTIONS_H
#define SIM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "config/config.h"
#include "latency.h"

#define SIM_OUTPUT_MAX_BYTES (1LL << 36)

enum { SIM_PIECES_MAX = 100000 };

struct options {
    char *listen;
    struct secret *api_key;
    char *create, *start, *run, *kill, *list; /* the spans' texts */
    char *output;                             /* "echo", or the text */
    int64_t output_bytes;                     /* over 0: so many bytes instead */
    int64_t pieces;
    int64_t max_live;
    int64_t creates_per_second;
    char *ledger;
    int64_t seed; /* 0: any */
    char *faults; /* rules, or the name of a file of rules */
    char *log_level;
    struct span create_span, start_span, run_span, kill_span,
        list_span; /* the texts, parsed by options_settle */
};

extern const struct config_table options_table;

/* Parses the spans (checked before by the table). */
void options_settle(struct options *o);

#endif
