/* Logs of builds, printed: whole, or as they grow, over as many connections as that takes. */
#ifndef CLI_BUILD_LOG_H
#define CLI_BUILD_LOG_H

#include <stdio.h>

#include "cli.h"
#include "terminal.h"

struct build_log {
    const char *agent;
    int64_t version;
    FILE *to;                 /* made fit for a terminal, if it is one */
    struct buf *copy;         /* instead of `to`: as it is */
    void (*begun)(void *arg); /* before the first byte is printed; may be NULL */
    void *arg;
    bool quiet; /* errors are not told */

    int64_t offset; /* of what has come */
    char last;      /* the last byte that was printed */
    mono_t heard;
    bool broken; /* what it is printed to */
    struct terminal_text terminal;
    char status[16]; /* of the version, when it was last asked for */
};

/* Prints from `offset` on: what there is, or, to follow, until the build has ended. 0, or the exit status. */
int build_log_print(struct cli *cli, struct build_log *b, bool follow);

/* A piece of such text to a stream: made fit for a terminal, if it is one. */
void build_log_write(FILE *to, struct str text);

/* `logs --build AGENT[@VERSION]`. */
int build_log_command(struct cli *cli, const char *of, bool follow);

#endif
