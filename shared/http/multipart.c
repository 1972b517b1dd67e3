/* A streaming parser (multipart.h). Pure.
 *
 * What is not yet decided stays in `work`: at most a delimiter's length of data, or the headers of a part.
 * The body is treated as if a line break stood before it, so that the first boundary looks like every other.
 */
#include "http/multipart.h"

#include <stdlib.h>
#include <string.h>

enum { BOUNDARY_MAX = 200, HEADERS_MAX = 16384, WORK_MAX = 1 << 20 };

enum multipart_state {
    MULTIPART_PREAMBLE,
    MULTIPART_AFTER_BOUNDARY,
    MULTIPART_HEADERS,
    MULTIPART_DATA,
    MULTIPART_END
};

struct multipart {
    enum multipart_state state;
    char delimiter[BOUNDARY_MAX + 8]; /* "\r\n--" boundary */
    size_t delimiter_n;
    struct multipart_events events;
    void *arg;
    struct buf work;
};

/* The value of a parameter `key=value` or `key="value"` in a header's value. */
static bool parameter(struct str header, const char *key, struct str *out)
{
    size_t n = strlen(key);
    const char *p = header.p, *end = header.p + header.n;
    while ((p = memchr(p, ';', (size_t)(end - p))) != NULL) {
        for (p++; p < end && (*p == ' ' || *p == '\t');)
            p++;
        if ((size_t)(end - p) <= n + 1 || !str_eq_nocase(str_make(p, n), str_make(key, n)) || p[n] != '=')
            continue;
        p += n + 1;
        bool quoted = p < end && *p == '"';
        const char *start = quoted ? p + 1 : p;
        const char *stop = memchr(start, quoted ? '"' : ';', (size_t)(end - start));
        if (stop == NULL && quoted)
            return false;
        *out = str_make(start, (size_t)((stop != NULL ? stop : end) - start));
        if (!quoted)
            *out = str_trim(*out);
        return true;
    }
    return false;
}

bool multipart_boundary(struct str content_type, struct str *out)
{
    struct str form = STR("multipart/form-data");
    if (content_type.n < form.n || !str_eq_nocase(str_make(content_type.p, form.n), form))
        return false;
    return parameter(content_type, "boundary", out) && out->n > 0 && out->n <= BOUNDARY_MAX;
}

struct multipart *multipart_new(struct str boundary, const struct multipart_events *events, void *arg)
{
    struct multipart *m = calloc(1, sizeof *m);
    if (m == NULL)
        return NULL;
    m->events = *events;
    m->arg = arg;
    memcpy(m->delimiter, "\r\n--", 4);
    memcpy(m->delimiter + 4, boundary.p, boundary.n);
    m->delimiter_n = boundary.n + 4;
    buf_init(&m->work, WORK_MAX);
    buf_str(&m->work, STR("\r\n"));
    return m;
}

void multipart_free(struct multipart **m)
{
    if (*m == NULL)
        return;
    buf_deinit(&(*m)->work);
    free(*m);
    *m = NULL;
}

bool multipart_complete(const struct multipart *m)
{
    return m->state == MULTIPART_END;
}

/* One step. 1: go on, 0: more bytes are needed, -1: malformed or stopped. */

static int give_data(struct multipart *m, size_t n)
{
    bool ok = n == 0 || m->state != MULTIPART_DATA || m->events.on_data(m->arg, str_make(m->work.data, n));
    buf_consume(&m->work, n);
    return ok ? 0 : -1;
}

/* Data, or what stands before the first boundary. */
static int step_data(struct multipart *m)
{
    const char *at = m->work.len > 0 ? memmem(m->work.data, m->work.len, m->delimiter, m->delimiter_n) : NULL;
    if (at == NULL) {
        size_t keep = m->delimiter_n - 1;
        return m->work.len > keep ? give_data(m, m->work.len - keep) : 0;
    }
    if (give_data(m, (size_t)(at - m->work.data)) != 0)
        return -1;
    buf_consume(&m->work, m->delimiter_n);
    if (m->state == MULTIPART_DATA && !m->events.on_part_end(m->arg))
        return -1;
    m->state = MULTIPART_AFTER_BOUNDARY;
    return 1;
}

static int step_after_boundary(struct multipart *m)
{
    if (m->work.len < 2)
        return 0;
    bool end = memcmp(m->work.data, "--", 2) == 0;
    if (!end && memcmp(m->work.data, "\r\n", 2) != 0)
        return -1;
    if (!end)
        buf_consume(&m->work, 2);
    m->state = end ? MULTIPART_END : MULTIPART_HEADERS;
    return 1;
}

static bool take_headers(struct multipart *m, struct str headers)
{
    struct str line, name = STR(""), filename = STR(""), key = STR("content-disposition:");
    while (str_split(&headers, '\n', &line))
        if (line.n > key.n && str_eq_nocase(str_make(line.p, key.n), key)) {
            struct str value = str_make(line.p, line.p[line.n - 1] == '\r' ? line.n - 1 : line.n);
            parameter(value, "name", &name);
            parameter(value, "filename", &filename);
        }
    return m->events.on_part(m->arg, name, filename);
}

/* Headers end with an empty line; there may be none. An empty part's body is just the delimiter, with a line
 * break of its own before it. */
static int step_headers(struct multipart *m)
{
    if (m->work.len < 2)
        return 0;
    bool none = memcmp(m->work.data, "\r\n", 2) == 0;
    const char *at = none ? m->work.data : memmem(m->work.data, m->work.len, "\r\n\r\n", 4);
    if (at == NULL)
        return m->work.len > HEADERS_MAX ? -1 : 0;
    size_t n = (size_t)(at - m->work.data);
    bool ok = take_headers(m, str_make(m->work.data, n));
    buf_consume(&m->work, none ? 2 : n + 4);
    m->state = MULTIPART_DATA;
    return ok ? 1 : -1;
}

static int step(struct multipart *m)
{
    switch (m->state) {
    case MULTIPART_PREAMBLE:
    case MULTIPART_DATA:
        return step_data(m);
    case MULTIPART_AFTER_BOUNDARY:
        return step_after_boundary(m);
    case MULTIPART_HEADERS:
        return step_headers(m);
    case MULTIPART_END:
        buf_clear(&m->work);
        return 0; /* an epilogue is ignored */
    }
    return -1;
}

bool multipart_feed(struct multipart *m, struct str piece)
{
    int more = 1;
    buf_str(&m->work, piece);
    if (m->work.failed)
        return false;
    while (more > 0)
        more = step(m);
    return more == 0;
}
