/* UTF-8 text from pieces of bytes. */
#include "base/utf8.h"

/* One for each byte, so that it makes no difference where pieces were cut. */
static void replace(size_t bytes, struct buf *out)
{
    while (bytes-- > 0)
        buf_str(out, STR("\xEF\xBF\xBD"));
}

/* The length of the run at p that needs no care: characters, whole, none of them NUL. */
static size_t good_run(struct str s)
{
    size_t at = 0;
    while (at < s.n && s.p[at] != '\0') {
        int n = str_utf8_next(str_make(s.p + at, s.n - at));
        if (n <= 0)
            break;
        at += (size_t)n;
    }
    return at;
}

/* Takes bytes from the piece until what is held is a character, or can be none. */
static void complete(struct utf8_mend *m, struct str *piece, struct buf *out)
{
    while (m->held_n > 0 && piece->n > 0) {
        m->held[m->held_n] = piece->p[0];
        int n = str_utf8_next(str_make(m->held, m->held_n + 1));
        if (n == 0) { /* the byte is not of it: it begins something of its own */
            replace(m->held_n, out);
            m->held_n = 0;
            return;
        }
        m->held_n++;
        *piece = str_make(piece->p + 1, piece->n - 1);
        if (n > 0) {
            buf_append(out, m->held, m->held_n);
            m->held_n = 0;
        }
    }
}

bool utf8_mend(struct utf8_mend *m, struct str piece, struct buf *out)
{
    complete(m, &piece, out);
    while (piece.n > 0) {
        size_t n = good_run(piece);
        buf_append(out, piece.p, n);
        piece = str_make(piece.p + n, piece.n - n);
        if (piece.n == 0)
            break;
        if (str_utf8_next(piece) < 0) {
            memcpy(m->held, piece.p, piece.n);
            m->held_n = piece.n;
            break;
        }
        replace(1, out);
        piece = str_make(piece.p + 1, piece.n - 1);
    }
    return !out->failed;
}

bool utf8_mend_end(struct utf8_mend *m, struct buf *out)
{
    replace(m->held_n, out);
    m->held_n = 0;
    return !out->failed;
}

size_t utf8_floor(struct str s, size_t n)
{
    if (n >= s.n)
        return s.n;
    while (n > 0 && ((unsigned char)s.p[n] & 0xC0) == 0x80)
        n--;
    return n;
}
