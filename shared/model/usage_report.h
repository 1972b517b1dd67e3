/* What a program tells of its own usage: tokens and cost. Pure. */
#ifndef MODEL_USAGE_REPORT_H
#define MODEL_USAGE_REPORT_H

#include "base/err.h"
#include "base/str.h"
#include "model/invocation.h"

enum { USAGE_REPORT_MAX_BYTES = 64 * 1024 };

/* A JSON object with input_tokens, output_tokens and cost_usd, or some of them; or one as Claude's result
 * events are: total_cost_usd, and a member `usage` with the tokens, those read from and written to its cache
 * apart, which count as input. Other members are nobody's business here. Numbers must be plausible: whole
 * and not negative, up to 10^12 tokens and 10^6 dollars. -1 and ERR_BAD_FIELD or ERR_BAD_JSON. */
int usage_report_parse(struct str text, struct inv_cost *out, struct err *err);

/* Looks for result events in a program's stdout as it comes ("stream-json": one JSON value a line). The last
 * one counts. A line is kept up to a bound; a longer one is passed over. */
struct usage_scan;
struct usage_scan *usage_scan_new(void); /* NULL without memory */
void usage_scan_free(struct usage_scan **s);
void usage_scan_feed(struct usage_scan *s, struct str piece);
/* After the last byte. 1: *out; 0: there was no result event; -1 and *err: the last one cannot be used. */
int usage_scan_end(struct usage_scan *s, struct inv_cost *out, struct err *err);

#endif
