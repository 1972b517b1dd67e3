/* The table of configuration keys: parsing, --help and --print-config come from it. */
#include "options.h"

#include "base/log.h"

static int span_check(const char *text, struct err *err)
{
    struct span s;
    if (span_parse(str_of(text), &s))
        return 0;
    return err_set(err, ERR_CONFIG,
                   "wanted a duration up to an hour (20, 20ms, 1s), a range (10..50ms) or a long tail "
                   "(p50=150ms,p99=2s)");
}

void options_settle(struct options *o)
{
    span_parse(str_of(o->create), &o->create_span);
    span_parse(str_of(o->start), &o->start_span);
    span_parse(str_of(o->run), &o->run_span);
    span_parse(str_of(o->kill), &o->kill_span);
    span_parse(str_of(o->list), &o->list_span);
}

#define ROW(k, kind_, field, fallback_, min_, max_, help_, ...)                                          \
    {                                                                                                    \
        .key = (k), .kind = (kind_), .offset = offsetof(struct options, field), .fallback = (fallback_), \
        .min = (min_), .max = (max_), .help = (help_), __VA_ARGS__                                       \
    }

static const struct config_row rows[] = {
    ROW("SANDPIPER_SIM_LISTEN", CONFIG_LISTEN, listen, "127.0.0.1:8085", 0, 0, "address:port to listen on"),
    ROW("E2B_API_KEY", CONFIG_SECRET, api_key, NULL, 0, 0,
        "what X-API-Key must be; unset: every caller is let in"),
    ROW("SANDPIPER_SIM_CREATE", CONFIG_STRING, create, "0", 0, 0,
        "how long a create takes: 150ms, from 100..400ms, or p50=150ms,p99=2s", .check = span_check),
    ROW("SANDPIPER_SIM_START", CONFIG_STRING, start, "0", 0, 0, "how long a program takes to start",
        .check = span_check),
    ROW("SANDPIPER_SIM_RUN", CONFIG_STRING, run, "0", 0, 0, "how long a program runs", .check = span_check),
    ROW("SANDPIPER_SIM_KILL", CONFIG_STRING, kill, "0", 0, 0,
        "how long the answer to a kill takes (the sandbox is gone at once)", .check = span_check),
    ROW("SANDPIPER_SIM_LIST", CONFIG_STRING, list, "0", 0, 0, "how long a list takes", .check = span_check),
    ROW("SANDPIPER_SIM_SEED", CONFIG_INT, seed, "0", 0, INT64_MAX,
        "what all latencies and faults are drawn from; 0: another one each time"),
    ROW("SANDPIPER_SIM_FAULTS", CONFIG_STRING, faults, "", 0, 0,
        "faults to begin with: {\"rules\": […]}, or a file of that (tests/sim/README.md)"),
    ROW("SANDPIPER_SIM_OUTPUT", CONFIG_STRING, output, "echo", 0, 0,
        "what a program writes to stdout: \"echo\" for its input, else this text"),
    ROW("SANDPIPER_SIM_OUTPUT_BYTES", CONFIG_BYTES, output_bytes, "0", 0, SIM_OUTPUT_MAX_BYTES,
        "over 0: so many bytes of text instead"),
    ROW("SANDPIPER_SIM_PIECES", CONFIG_INT, pieces, "1", 1, SIM_PIECES_MAX,
        "in how many pieces it is written, spread over the run"),
    ROW("SANDPIPER_SIM_MAX_SANDBOXES", CONFIG_INT, max_live, "100000", 1, 1000000,
        "live sandboxes at most; beyond: E2B's 429 without Retry-After"),
    ROW("SANDPIPER_SIM_CREATES_PER_SECOND", CONFIG_INT, creates_per_second, "0", 0, 1000000,
        "creates a second at most, 0: any; beyond: E2B's 429 with Retry-After"),
    ROW("SANDPIPER_SIM_LEDGER", CONFIG_STRING, ledger, "", 0, 0,
        "file to append a line to for each sandbox that has ended; GET /sim/ledger shows them with or "
        "without"),
    ROW("SANDPIPER_LOG_LEVEL", CONFIG_STRING, log_level, "info", 0, 0, "debug, info, warn or error",
        .check = log_level_check),
};

const struct config_table options_table = {
    .daemon = "sandpiper-e2b-sim",
    .about = "E2B's protocol without sandboxes: for load, with latencies and outputs as told",
    .rows = rows,
    .count = sizeof rows / sizeof rows[0],
};
