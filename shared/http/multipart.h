/* multipart/form-data (RFC 7578), in pieces. */
#ifndef HTTP_MULTIPART_H
#define HTTP_MULTIPART_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/str.h"

struct multipart;

/* A part begins, has data, ends. Views are valid during the call. A false return ends the parsing. */
struct multipart_events {
    bool (*on_part)(void *arg, struct str name, struct str filename);
    bool (*on_data)(void *arg, struct str piece);
    bool (*on_part_end)(void *arg);
};

/* The boundary of a Content-Type; false when it is not multipart/form-data with a usable one. */
bool multipart_boundary(struct str content_type, struct str *out);

/* NULL without memory. */
struct multipart *multipart_new(struct str boundary, const struct multipart_events *events, void *arg);
void multipart_free(struct multipart **m);

/* False when the body is malformed or a callback said so; nothing may follow then. */
bool multipart_feed(struct multipart *m, struct str piece);
/* Whether the closing boundary was seen. */
bool multipart_complete(const struct multipart *m);

#endif
