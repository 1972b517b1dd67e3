/* ECMA-48's control functions, in both codings (ESC and a letter; C1, which is U+0080 to U+009F), taken out.
 */
#include "terminal.h"

#include "base/err.h"

enum { ESC = 0x1B, BEL = 0x07, DEL = 0x7F, ST = 0x9C, CSI = 0x9B };

static uint32_t code_of(struct str c)
{
    const unsigned char *p = (const unsigned char *)c.p;
    switch (c.n) {
    case 1:
        return p[0];
    case 2:
        return (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
    case 3:
        return (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
    default:
        return 0x10000; /* none that is looked for */
    }
}

/* Embeddings, overrides and isolates. */
static bool turns_writing(uint32_t code)
{
    return (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
}

/* What DCS, SOS, OSC, PM and APC begin: of C1, less 0x40 behind ESC. */
static bool begins_string(uint32_t c1)
{
    return c1 == 0x90 || c1 == 0x98 || c1 == 0x9D || c1 == 0x9E || c1 == 0x9F;
}

static void plain(struct terminal_text *t, struct str c, uint32_t code, struct buf *out)
{
    bool after_return = t->state == TERMINAL_RETURN;
    t->state = TERMINAL_PLAIN;
    if (code == ESC)
        t->state = TERMINAL_ESCAPE;
    else if (code == CSI)
        t->state = TERMINAL_CONTROL;
    else if (begins_string(code))
        t->state = TERMINAL_STRING;
    else if (code == '\r')
        t->state = TERMINAL_RETURN;
    if (code == '\r' || (code == '\n' && !after_return))
        buf_byte(out, '\n');
    else if (code == '\t' || (code >= ' ' && (code < DEL || code >= 0xA0) && !turns_writing(code)))
        buf_str(out, c);
}

/* Behind ESC. Intermediate characters may come before the last one. */
static void escape(struct terminal_text *t, struct str c, uint32_t code, struct buf *out)
{
    if (code == '[')
        t->state = TERMINAL_CONTROL;
    else if (code >= 0x40 && code <= 0x5F && begins_string(code + 0x40))
        t->state = TERMINAL_STRING;
    else if (code < ' ' || code >= DEL)
        plain(t, c, code, out); /* it is no sequence */
    else if (code >= 0x30)
        t->state = TERMINAL_PLAIN;
}

static void put(struct terminal_text *t, struct str c, struct buf *out)
{
    uint32_t code = code_of(c);
    switch (t->state) {
    case TERMINAL_PLAIN:
    case TERMINAL_RETURN:
        plain(t, c, code, out);
        break;
    case TERMINAL_ESCAPE:
        escape(t, c, code, out);
        break;
    case TERMINAL_CONTROL:
        if (code < ' ' || code >= DEL)
            plain(t, c, code, out);
        else if (code >= 0x40)
            t->state = TERMINAL_PLAIN;
        break;
    case TERMINAL_STRING:
        if (code == '\n' || code == '\r' || code == ESC) /* of ESC \, the rest is a sequence of its own */
            plain(t, c, code, out);
        else if (code == BEL || code == ST)
            t->state = TERMINAL_PLAIN;
        break;
    }
}

bool terminal_text_put(struct terminal_text *t, struct str piece, struct buf *out)
{
    struct buf text;
    buf_init(&text, UTF8_GROWTH * (piece.n + UTF8_CHAR_BYTES));
    utf8_mend(&t->mend, piece, &text);
    struct str rest = buf_view(&text);
    while (rest.n > 0) {
        int n = str_utf8_next(rest);
        INVARIANT(n > 0); /* it is mended */
        put(t, str_make(rest.p, (size_t)n), out);
        rest = str_make(rest.p + n, rest.n - (size_t)n);
    }
    bool ok = !text.failed && !out->failed;
    buf_deinit(&text);
    return ok;
}
