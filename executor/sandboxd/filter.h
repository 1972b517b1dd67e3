/* The metadata filter of GET /sandboxes: pairs under three layers of percent-encoding, of which the query's
 * own is taken off before (E2B's server decodes the whole, splits, then decodes each key and value). */
#ifndef SANDBOXD_FILTER_H
#define SANDBOXD_FILTER_H

#include "base/err.h"
#include "pairs.h"

/* text: the query parameter, decoded once. False and *err when a pair has not exactly one '=' or an escape is
 * malformed; out then holds nothing. */
bool filter_parse(struct str text, struct pairs *out, struct err *err);

/* Whether metadata has every pair of the filter. */
bool filter_match(const struct pairs *filter, const struct pairs *metadata);

#endif
