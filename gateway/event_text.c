/* The text of Server-Sent Events. */
#include "event_text.h"

#include <stdio.h>
#include <string.h>

#include "json/writer.h"

/* ---- ids ---- */

bool event_id_parse(struct str text, struct event_position *out)
{
    struct str rest = text, part[3];
    uint64_t v[3];
    char again[EVENT_ID_BYTES];
    for (int i = 0; i < 3; i++)
        if (!str_split(&rest, '.', &part[i]) || !str_to_u64(part[i], &v[i]))
            return false;
    if (v[0] < 1 || v[0] > INT16_MAX || v[1] > EVENT_OFFSET_MAX || v[2] > EVENT_OFFSET_MAX)
        return false;
    const struct event_position p = {.attempt = (int16_t)v[0], .at = {(int64_t)v[1], (int64_t)v[2]}};
    event_id_format(&p, again);
    if (!str_eq_c(text, again)) /* leading zeros, a fourth part */
        return false;
    *out = p;
    return true;
}

void event_id_format(const struct event_position *p, char out[EVENT_ID_BYTES])
{
    snprintf(out, EVENT_ID_BYTES, "%d.%lld.%lld", p->attempt, (long long)p->at[0], (long long)p->at[1]);
}

/* ---- bytes ---- */

/* The length that a lead byte announces; 0: not a lead of several. */
static size_t announced(unsigned char lead)
{
    return lead >= 0xF0 && lead <= 0xF4   ? 4
           : lead >= 0xE0 && lead <= 0xEF ? 3
           : lead >= 0xC2 && lead <= 0xDF ? 2
                                          : 0;
}

/* Whether some continuation makes these n bytes a character: tried with the least and the greatest one. */
static bool can_become(const char *lead, size_t n, size_t whole)
{
    for (int end = 0; end < 2; end++) {
        char c[4];
        memset(c, end == 0 ? 0x80 : 0xBF, sizeof c);
        memcpy(c, lead, n);
        if (str_is_utf8(str_make(c, whole)))
            return true;
    }
    return false;
}

size_t event_cut(struct str s)
{
    for (size_t back = 1; back <= EVENT_CARRY_BYTES && back <= s.n; back++) {
        const char *at = s.p + s.n - back;
        if (((unsigned char)*at & 0xC0) == 0x80)
            continue; /* a continuation: its lead stands before it */
        size_t whole = announced((unsigned char)*at);
        return whole > back && can_become(at, back, whole) ? back : 0;
    }
    return 0;
}

/* ---- events ---- */

static void head(struct buf *out, const struct event_position *p, const char *name)
{
    char id[EVENT_ID_BYTES];
    event_id_format(p, id);
    buf_cstr_append(out, "id: ");
    buf_cstr_append(out, id);
    buf_cstr_append(out, "\nevent: ");
    buf_cstr_append(out, name);
    buf_cstr_append(out, "\ndata: ");
}

void event_write(struct buf *out, const struct event_position *p, const char *name, struct str data)
{
    head(out, p, name);
    buf_str(out, data);
    buf_cstr_append(out, "\n\n");
}

void event_write_bytes(struct buf *out, const struct event_position *p, const char *name, struct str bytes)
{
    struct json_writer w = json_writer(out);
    head(out, p, name);
    if (str_is_utf8(bytes) && (bytes.n == 0 || memchr(bytes.p, '\0', bytes.n) == NULL)) {
        jw_str(&w, bytes);
    } else {
        jw_object(&w);
        jw_key(&w, "base64");
        jw_base64(&w, bytes);
        jw_object_end(&w);
    }
    buf_cstr_append(out, "\n\n");
}

void event_flatten(struct buf *json)
{
    for (size_t i = 0; i < json->len; i++)
        if (json->data[i] == '\n' || json->data[i] == '\r')
            json->data[i] = ' ';
}

/* ---- Accept ---- */

/* "q=0", "q=0.0", …: not acceptable. */
static bool is_refusal(struct str parameter)
{
    parameter = str_trim(parameter);
    if (!str_starts(parameter, STR("q=0")) && !str_starts(parameter, STR("Q=0")))
        return false;
    for (size_t i = 3; i < parameter.n; i++)
        if (parameter.p[i] != '.' && parameter.p[i] != '0')
            return false;
    return true;
}

bool event_accepted(struct str accept)
{
    struct str rest = accept, range, type, parameter;
    while (str_split(&rest, ',', &range)) {
        str_split(&range, ';', &type);
        if (!str_eq_nocase(str_trim(type), STR("text/event-stream")))
            continue;
        bool refused = false;
        while (str_split(&range, ';', &parameter))
            refused = refused || is_refusal(parameter);
        return !refused;
    }
    return false;
}
