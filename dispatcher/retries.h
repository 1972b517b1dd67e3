/* Retries: attempts whose time has come go to the streams. A pass each 200 ms over the rows that became due
 * since the last one, with an overlap of 5 s (rows are written with times of other clocks, and committed
 * later). */
#ifndef DISPATCHER_RETRIES_H
#define DISPATCHER_RETRIES_H

#include "dispatcher.h"

struct retries;
struct retries *retries_new(struct dispatcher *d);
void retries_free(struct retries **r);

#endif
