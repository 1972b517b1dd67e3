/* Reading Server-Sent Events as they come in pieces (WHATWG HTML, section 9.2.6). Pure.
 *
 * All three line ends are understood, a byte-order mark is skipped, comments and unknown fields are ignored.
 * An event counts only when its empty line has come: so the last id is always that of a whole event, and a
 * broken connection resumes behind it. */
#ifndef CLI_SSE_H
#define CLI_SSE_H

#include <stdbool.h>

#include "base/buf.h"

enum { SSE_ID_BYTES = 128, SSE_NAME_BYTES = 32 };

/* Views are valid during the call. name: "message" when the event has none. */
typedef void sse_event_fn(void *arg, struct str name, struct str data);

struct sse {
    sse_event_fn *fn;
    void *arg;
    struct buf line, data;
    char id[SSE_ID_BYTES];      /* of the last whole event: what to resume with; "" before the first */
    char next_id[SSE_ID_BYTES]; /* of the event being read */
    char name[SSE_NAME_BYTES];
    bool has_data, after_cr, begun;
};

/* max_bytes: of one line, and of one event's data. */
void sse_init(struct sse *s, size_t max_bytes, sse_event_fn *fn, void *arg);
void sse_deinit(struct sse *s);
/* A new connection: what was not whole is forgotten, the last id is kept. */
void sse_reset(struct sse *s);
/* False when a limit is exceeded. */
bool sse_feed(struct sse *s, struct str piece);

#endif
