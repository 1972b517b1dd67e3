/* Live streams: an id that parses is written back the same; the cut is small, and what it leaves of a text is
 * text; an Accept header is read to its end. */
#include <stdlib.h>

#include "event_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = str_make((const char *)data, size);
    struct event_position p;
    char again[EVENT_ID_BYTES];
    if (event_id_parse(text, &p)) {
        event_id_format(&p, again);
        if (!str_eq_c(text, again))
            abort();
    }
    size_t cut = event_cut(text);
    if (cut > EVENT_CARRY_BYTES || cut > size)
        abort();
    if (str_is_utf8(text) && cut > 0)
        abort();
    event_accepted(text);
    return 0;
}
