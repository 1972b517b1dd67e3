/* batch: what its files share. */
#ifndef CLI_BATCH_H
#define CLI_BATCH_H

#include "cli.h"

enum { BATCH_PATH_BYTES = 400 };

/* "/v1/batches/ID" and after; complains when it is no id. */
bool batch_path_of(char path[BATCH_PATH_BYTES], const char *id, const char *after);

int batch_results_command(struct cli *cli, int argc, char **argv); /* batch_results.c */

#endif
