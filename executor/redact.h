/* Redaction: values that must not be seen, replaced by [redacted:NAME] in a stream, whatever pieces it comes
 * in.
 *
 * What is replaced depends on the bytes alone, never on how they are cut: every byte that belongs to an
 * occurrence of a value is taken out, also where occurrences overlap (they make one mark, with the name of
 * the one that begins first, of those the longest). Values shorter than REDACTED_MIN_BYTES are not looked
 * for.
 *
 * Only what may be the beginning of a value is held back, so at most the longest value less one byte, and
 * mostly nothing. At a stream's end it is let go; but when it is more than half of a value (and
 * REDACTED_MIN_BYTES at least) it is taken out as well: a program that is killed in the middle of a word has
 * still said most of it.
 *
 * Only values as they are: not their base64, not their escaped form in JSON. */
#ifndef EXECUTOR_REDACT_H
#define EXECUTOR_REDACT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

struct redact_value {
    struct str name, value;
};

/* The values, prepared (Aho and Corasick's automaton), in guarded memory. NULL without memory; n may be 0.
 * Copies. Counted: redact_values_keep for another owner. */
struct redact_values;
struct redact_values *redact_values_new(const struct redact_value *list, size_t n);
struct redact_values *redact_values_keep(struct redact_values *v);
void redact_values_free(struct redact_values **v); /* wipes with the last owner */
/* Whether there is nothing to look for. */
bool redact_values_none(const struct redact_values *v);

/* One stream. Gives what may be seen to `put`, from inside the calls. */
typedef void redact_put_fn(void *arg, struct str piece);
struct redactor;
/* Keeps the values. NULL without memory. */
struct redactor *redactor_new(struct redact_values *values, redact_put_fn *put, void *arg);
void redactor_free(struct redactor **r);
void redactor_feed(struct redactor *r, struct str piece);
/* The end: nothing is held back any more. Feeding begins afresh. */
void redactor_end(struct redactor *r);
/* Something was taken out. */
bool redactor_hit(const struct redactor *r);

#endif
