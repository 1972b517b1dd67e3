/* A bar on stderr: how much is done, how much failed, how fast, how long still. For terminals. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

enum { PROGRESS_LOOKS = 20 };

/* Zeroed: nothing was drawn yet. */
struct progress {
    int64_t done[PROGRESS_LOOKS]; /* the last looks: the rate is theirs */
    mono_t at[PROGRESS_LOOKS];
    int looks;
};

/* Draws the bar over the one before, at most each 100 ms and when all is done. The line end is the caller's.
 */
void progress_draw(struct progress *p, int64_t done, int64_t total, int64_t failed);

/* The same for bytes, behind a word for what is done with them. */
void progress_draw_bytes(struct progress *p, const char *what, int64_t done, int64_t total);
/* Whether a bar for so many bytes is worth drawing: there is a terminal, and it will take a while. */
bool progress_is_due(int64_t total);

#endif
