/* Identifiers: UUIDv7 (RFC 9562), and their text with a type prefix ("inv_018f...").
 *
 * A UUIDv7 leads with its creation time in milliseconds, so ids sort by age and partitions follow them. */
#ifndef BASE_ID_H
#define BASE_ID_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/str.h"

struct uuid {
    uint8_t b[16];
};

enum { UUID_TEXT_BYTES = 37, ID_TEXT_BYTES = 44 };

/* A new id, strictly greater than every earlier one of this process unless the clock was put back by more
 * than a minute, which ids follow (12 + 14 bits of counter within a millisecond, RFC 9562 section 6.2 method
 * 1; 48 random bits). Process-wide, one thread. */
struct uuid uuid_new(void);

/* A series: up to UUID_SERIES_MAX ids of one moment that differ in a counter alone, so that they lie next to
 * each other with nobody else's between them, and a number says which one is meant. What is not random in
 * them is the counter's 20 bits and the lowest bit, which uuid_new leaves clear: it tells members of a series
 * from all other ids without a look-up. (An id from elsewhere may have it by chance.) */
enum { UUID_SERIES_MAX = 1 << 20 };
struct uuid uuid_series(void); /* the first, number 0 */
struct uuid uuid_of_series(struct uuid first, uint32_t i);
uint32_t uuid_series_index(struct uuid id);
bool uuid_in_series(struct uuid id);

/* The smallest id of a moment: for ranges and low-water marks. */
struct uuid uuid_floor(wall_t t);

/* The creation time that an id carries, millisecond precision. */
wall_t uuid_time(struct uuid id);

int uuid_cmp(struct uuid a, struct uuid b);
bool uuid_eq(struct uuid a, struct uuid b);
bool uuid_is_zero(struct uuid id);

/* "018f3c3e-…", lower case, NUL-ended. */
void uuid_format(struct uuid id, char out[UUID_TEXT_BYTES]);

/* The canonical 36-character form only, either case. */
bool uuid_parse(struct str s, struct uuid *out);

/* prefix + "_" + uuid; prefix has at most 6 characters ("inv", "agt", …). */
void id_format(const char *prefix, struct uuid id, char out[ID_TEXT_BYTES]);
bool id_parse(const char *prefix, struct str s, struct uuid *out);

/* n bytes from the kernel's generator; aborts when there are none to be had. */
void random_bytes(void *out, size_t n);

#endif
