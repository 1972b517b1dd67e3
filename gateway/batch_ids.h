/* Which custom_ids a batch has used, in little memory: 64 bits of a keyed hash each (among 100,000 ids two
 * different ones meet once in 10^9 batches, and then the batch is refused, not confused). */
#ifndef GATEWAY_BATCH_IDS_H
#define GATEWAY_BATCH_IDS_H

#include <stdint.h>

#include "base/str.h"

struct batch_ids;
struct batch_ids *batch_ids_new(void); /* NULL without memory */
void batch_ids_free(struct batch_ids **ids);

/* Adds the id of an item (its number, from 1). Returns the number of the item that has it already; 0: none;
 * -1: no memory. */
int64_t batch_ids_add(struct batch_ids *ids, struct str id, uint32_t item);

#endif
