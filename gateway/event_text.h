/* The text of Server-Sent Events: ids, and how bytes become events. Pure.
 *
 * An event's id is `attempt.stdout.stderr`: the number of the attempt and how many bytes of each stream came
 * before the event's end. Lines end in LF. `data` is one line of JSON: text as a string; bytes that are not
 * UTF-8, or hold NUL, as {"base64": …}. */
#ifndef GATEWAY_EVENT_TEXT_H
#define GATEWAY_EVENT_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

enum { EVENT_STREAMS = 2, EVENT_ID_BYTES = 64, EVENT_CARRY_BYTES = 3 };
#define EVENT_OFFSET_MAX (INT64_C(1) << 50)

struct event_position {
    int16_t attempt; /* from 1 */
    int64_t at[EVENT_STREAMS];
};

/* The canonical form only; false leaves *out alone. */
bool event_id_parse(struct str text, struct event_position *out);
void event_id_format(const struct event_position *p, char out[EVENT_ID_BYTES]);

/* How many bytes at the end of s (0 to 3) are the beginning of a character whose rest has not come. */
size_t event_cut(struct str s);

/* Appends one event. data: JSON without line ends. */
void event_write(struct buf *out, const struct event_position *p, const char *name, struct str data);
/* The same for bytes of a stream. */
void event_write_bytes(struct buf *out, const struct event_position *p, const char *name, struct str bytes);

/* JSON on one line: line ends between its tokens become spaces (inside strings there are none). */
void event_flatten(struct buf *json);

/* Whether an Accept header asks for events (and does not refuse them by q=0). */
bool event_accepted(struct str accept);

#endif
