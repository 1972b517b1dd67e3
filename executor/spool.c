/* Output of running programs. */
#include "spool.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/failpoint.h"

enum { TAIL_BYTES = 4096 };

int spool_check(const char *dir, struct err *err)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(err, ERR_CONFIG, "SANDPIPER_SPOOL_DIR: no file can be made in %s: %s", dir,
                       strerror(errno));
    close(fd);
    return 0;
}

void spool_init(struct spool *s, struct spool_budget *budget, int64_t cap)
{
    *s = (struct spool){.budget = budget, .fd = -1, .cap = cap};
    buf_init(&s->head, SPOOL_MEMORY_BYTES);
}

void spool_deinit(struct spool *s)
{
    if (s->fd >= 0) {
        close(s->fd);
        s->fd = -1;
        s->budget->used -= s->size - (int64_t)s->head.len;
    }
    buf_deinit(&s->head);
}

static bool open_file(struct spool *s)
{
    FAILPOINT(executor_spill);
    if (s->fd < 0)
        s->fd = open(s->budget->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return s->fd >= 0;
}

static size_t write_file(struct spool *s, struct str piece)
{
    size_t done = 0;
    while (done < piece.n) {
        ssize_t n = write(s->fd, piece.p + done, piece.n - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    return done;
}

static void spill(struct spool *s, struct str piece)
{
    int64_t room = s->budget->max - s->budget->used;
    size_t n = piece.n < (size_t)room ? piece.n : (size_t)room;
    size_t wrote = n > 0 && open_file(s) ? write_file(s, str_make(piece.p, n)) : 0;
    s->budget->used += (int64_t)wrote;
    s->size += (int64_t)wrote;
    s->truncated = s->truncated || wrote < piece.n;
}

void spool_put(struct spool *s, struct str piece)
{
    s->seen += (int64_t)piece.n;
    if (s->truncated)
        return; /* nothing may follow a gap */
    int64_t left = s->cap - s->size;
    if ((int64_t)piece.n > left) {
        piece.n = (size_t)left;
        s->truncated = true;
    }
    size_t room = s->fd < 0 ? SPOOL_MEMORY_BYTES - s->head.len : 0;
    size_t n = piece.n < room ? piece.n : room;
    if (!buf_append(&s->head, piece.p, n)) {
        s->truncated = true;
        return;
    }
    s->size += (int64_t)n;
    if (piece.n > n) {
        bool cut = s->truncated;
        s->truncated = false;
        spill(s, str_make(piece.p + n, piece.n - n));
        s->truncated = s->truncated || cut;
    }
}

int64_t spool_read(const struct spool *s, int64_t offset, char *out, size_t n)
{
    size_t got = 0;
    if (offset < (int64_t)s->head.len) {
        got = s->head.len - (size_t)offset < n ? s->head.len - (size_t)offset : n;
        memcpy(out, s->head.data + offset, got);
    }
    while (got < n && s->fd >= 0) {
        ssize_t r = pread(s->fd, out + got, n - got, offset + (int64_t)got - (int64_t)s->head.len);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -1;
        if (r == 0)
            break;
        got += (size_t)r;
    }
    return (int64_t)got;
}

static void shorten(struct spool *s, int64_t by)
{
    s->size -= by;
    if (s->fd < 0)
        s->head.len -= (size_t)by;
    else
        s->budget->used -= by; /* the cut lies in the file: memory holds 16 KiB before it */
}

/* Whether the last bytes before the cut read as UTF-8: a window that begins at a character. */
static bool tail_is_text(const struct spool *s, int64_t end)
{
    char window[TAIL_BYTES];
    int64_t from = end > TAIL_BYTES ? end - TAIL_BYTES : 0;
    int64_t n = spool_read(s, from, window, (size_t)(end - from));
    if (n != end - from)
        return false;
    int64_t skip = 0;
    while (from > 0 && skip < n && skip < 3 && ((unsigned char)window[skip] & 0xC0) == 0x80)
        skip++;
    return str_is_utf8(str_make(window + skip, (size_t)(n - skip)));
}

void spool_finish(struct spool *s)
{
    char tail[4];
    if (!s->truncated || s->size < (int64_t)sizeof tail)
        return;
    if (s->fd >= 0 && s->size - (int64_t)s->head.len < (int64_t)sizeof tail)
        return;
    if (spool_read(s, s->size - (int64_t)sizeof tail, tail, sizeof tail) != (int64_t)sizeof tail)
        return;
    for (int64_t back = 1; back <= 3; back++) {
        unsigned char c = (unsigned char)tail[sizeof tail - (size_t)back];
        if ((c & 0xC0) == 0x80)
            continue; /* a continuation: its lead stands before it */
        int64_t needs = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
        if (needs > back && tail_is_text(s, s->size - back))
            shorten(s, back);
        return;
    }
}
