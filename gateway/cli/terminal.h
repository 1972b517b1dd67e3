/* Text of strangers, made fit for a terminal: it can move no cursor, change no colour or title, ask the
 * terminal nothing, and turn no writing round. Pure.
 *
 * Escape sequences go whole, control characters but line end and tab, and those that turn the direction of
 * writing; a carriage return is a line end. A sequence that does not end goes no further than its line, so
 * nothing can hide what follows. */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

#include "base/utf8.h"

enum terminal_state {
    TERMINAL_PLAIN,
    TERMINAL_RETURN,  /* behind a carriage return, which was printed as a line end */
    TERMINAL_ESCAPE,  /* behind ESC */
    TERMINAL_CONTROL, /* behind CSI: parameters, up to a letter */
    TERMINAL_STRING,  /* behind OSC and the like: up to ST or BEL */
};

/* Zeroed before the first piece. */
struct terminal_text {
    enum terminal_state state;
    struct utf8_mend mend;
};

/* Appends what may be printed of a piece to out; pieces may be cut anywhere. False when it does not fit. */
bool terminal_text_put(struct terminal_text *t, struct str piece, struct buf *out);

#endif
