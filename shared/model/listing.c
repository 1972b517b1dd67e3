/* The filters of a list. To add one: a member, a branch in listing_take, a line in listing_scope. */
#include "model/listing.h"

#include <string.h>

#include "json/writer.h"

#define METADATA_PREFIX STR("metadata.")

static int twice(struct str name, struct err *err)
{
    return err_set(err, ERR_BAD_QUERY, "%.*s is given twice", (int)(name.n < 100 ? name.n : 100), name.p);
}

static int take_status(struct listing *l, struct str value, struct err *err)
{
    if (l->by_status)
        return twice(STR("status"), err);
    l->by_status = true;
    l->status = inv_state_parse(value);
    if (str_eq_c(value, "open") || inv_state_ended(l->status))
        return 1;
    if (l->status != INV_NONE)
        return err_set(err, ERR_BAD_QUERY,
                       "status cannot tell \"%.*s\" apart: status=open lists all that have not ended",
                       STR_ARG(value));
    return err_set(err, ERR_BAD_QUERY,
                   "status must be open, succeeded, failed, timed_out, canceled, expired or error");
}

static int take_agent(struct listing *l, struct str value, struct err *err)
{
    struct str slug;
    int32_t version = 0;
    if (l->agent[0] != '\0')
        return twice(STR("agent"), err);
    if (!agent_ref_parse(value, &slug, &version) || !str_copy(slug, l->agent, sizeof l->agent))
        return err_set(err, ERR_BAD_QUERY, "agent must be an agent's name, or name@version");
    l->version = version;
    return 1;
}

static int take_batch(struct listing *l, struct str value, struct err *err)
{
    if (l->has_batch)
        return twice(STR("batch"), err);
    l->has_batch = true;
    if (!id_parse("bat", value, &l->batch))
        return err_set(err, ERR_BAD_QUERY, "batch must be a batch's id: they look like bat_…");
    return 1;
}

static int take_retry_of(struct listing *l, struct str value, struct err *err)
{
    if (!uuid_is_zero(l->retry_of))
        return twice(STR("retry_of"), err);
    if (!id_parse("inv", value, &l->retry_of))
        return err_set(err, ERR_BAD_QUERY, "retry_of must be an invocation's id: they look like inv_…");
    return 1;
}

/* A '+' that was not escaped has become a space: worth a word. */
static int take_time(const char *name, struct str value, bool *has, wall_t *out, struct err *err)
{
    if (*has)
        return twice(str_of(name), err);
    *has = true;
    if (value.n > 10 && memchr(value.p, ' ', value.n) != NULL)
        return err_set(err, ERR_BAD_QUERY,
                       "%s must be an RFC 3339 time without spaces; write the + of an offset as %%2B", name);
    if (!wall_parse(value, out))
        return err_set(err, ERR_BAD_QUERY, "%s must be an RFC 3339 time, as in 2026-11-21T07:30:00Z", name);
    return 1;
}

static struct str pair_key(const struct listing_pair *p)
{
    return str_make(p->text, p->key_len);
}

static int compare(struct str a, struct str b)
{
    int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return c != 0 ? c : a.n < b.n ? -1 : a.n > b.n;
}

/* Sorted as they come, so that equal filters have one form. */
static int take_metadata(struct listing *l, struct str key, struct str value, struct err *err)
{
    int at = 0;
    if (key.n == 0)
        return err_set(err, ERR_BAD_QUERY, "metadata. needs a key: metadata.KEY=VALUE");
    if (l->pair_count == LISTING_PAIRS_MAX)
        return err_set(err, ERR_BAD_QUERY, "at most %d metadata filters", LISTING_PAIRS_MAX);
    if (key.n + value.n > LISTING_PAIR_BYTES)
        return err_set(err, ERR_BAD_QUERY, "a metadata filter has at most %d bytes", LISTING_PAIR_BYTES);
    while (at < l->pair_count && compare(pair_key(&l->pairs[at]), key) < 0)
        at++;
    if (at < l->pair_count && str_eq(pair_key(&l->pairs[at]), key))
        return err_set(err, ERR_BAD_QUERY, "metadata.%.*s is given twice", (int)(key.n < 80 ? key.n : 80),
                       key.p);
    memmove(&l->pairs[at + 1], &l->pairs[at], (size_t)(l->pair_count - at) * sizeof *l->pairs);
    struct listing_pair *p = &l->pairs[at];
    memcpy(p->text, key.p, key.n);
    memcpy(p->text + key.n, value.p, value.n);
    p->key_len = (uint16_t)key.n;
    p->len = (uint16_t)(key.n + value.n);
    l->pair_count++;
    return 1;
}

int listing_limit(struct str value, int max, int *out, struct err *err)
{
    uint64_t n;
    if (!str_to_u64(value, &n) || n == 0 || n > (uint64_t)max)
        return err_set(err, ERR_BAD_QUERY, "limit must be a whole number from 1 to %d", max);
    *out = (int)n;
    return 0;
}

static int take_limit(struct listing *l, struct str value, struct err *err)
{
    if (l->has_limit)
        return twice(STR("limit"), err);
    l->has_limit = true;
    return listing_limit(value, LISTING_LIMIT_MAX, &l->limit, err) == 0 ? 1 : -1;
}

static bool is_text(struct str s)
{
    return str_is_utf8(s) && (s.n == 0 || memchr(s.p, '\0', s.n) == NULL);
}

int listing_take(struct listing *l, struct str name, struct str value, struct err *err)
{
    if (!is_text(name) || !is_text(value))
        return err_set(err, ERR_BAD_QUERY, "the query must be UTF-8 text without NUL bytes");
    if (str_eq_c(name, "status"))
        return take_status(l, value, err);
    if (str_eq_c(name, "agent"))
        return take_agent(l, value, err);
    if (str_eq_c(name, "created_after"))
        return take_time("created_after", value, &l->has_after, &l->after, err);
    if (str_eq_c(name, "created_before"))
        return take_time("created_before", value, &l->has_before, &l->before, err);
    if (str_eq_c(name, "limit"))
        return take_limit(l, value, err);
    if (str_eq_c(name, "batch"))
        return take_batch(l, value, err);
    if (str_eq_c(name, "retry_of"))
        return take_retry_of(l, value, err);
    if (str_starts(name, METADATA_PREFIX))
        return take_metadata(l, str_make(name.p + METADATA_PREFIX.n, name.n - METADATA_PREFIX.n), value, err);
    return 0;
}

/* ---- bounds ---- */

/* The least id of a moment or later. Ids carry whole milliseconds. */
static struct uuid id_from(wall_t t)
{
    return uuid_floor((wall_t){.us = t.us > 0 ? (t.us + 999) / 1000 * 1000 : 0});
}

static int metadata_window(const struct listing *l, wall_t now, wall_t *after, struct err *err)
{
    wall_t before = l->has_before ? l->before : now;
    if (!l->has_after)
        after->us = before.us - LISTING_METADATA_WINDOW_MS * INT64_C(1000);
    if (before.us - after->us <= LISTING_METADATA_WINDOW_MS * INT64_C(1000))
        return 0;
    return err_set(err, ERR_BAD_QUERY,
                   "metadata is searched in a window of at most 24 h: give created_after and created_before "
                   "that are no further apart%s",
                   l->has_before ? "" : " (without created_before the window ends now)");
}

int listing_bounds(const struct listing *l, wall_t now, struct uuid *low_out, struct uuid *high_out,
                   struct err *err)
{
    wall_t after = l->has_after ? l->after : (wall_t){0};
    if (l->has_after && l->has_before && l->after.us >= l->before.us)
        return err_set(err, ERR_BAD_QUERY, "created_after must be earlier than created_before");
    if (l->pair_count > 0 && metadata_window(l, now, &after, err) != 0)
        return -1;
    *low_out = id_from(after);
    memset(high_out, 0xff, sizeof *high_out);
    if (l->has_before)
        *high_out = id_from(l->before);
    return 0;
}

/* ---- forms ---- */

void listing_metadata(const struct listing *l, struct buf *out)
{
    struct json_writer w = json_writer(out);
    if (l->pair_count == 0)
        return;
    jw_object(&w);
    for (int i = 0; i < l->pair_count; i++) {
        const struct listing_pair *p = &l->pairs[i];
        jw_key_str(&w, pair_key(p));
        jw_str(&w, str_make(p->text + p->key_len, p->len - p->key_len));
    }
    jw_object_end(&w);
}

static void scope_id(const char *name, bool given, struct uuid id, struct buf *out)
{
    char text[UUID_TEXT_BYTES];
    uuid_format(id, text);
    if (given)
        buf_printf(out, "%s %s\n", name, text);
}

void listing_scope(const struct listing *l, struct buf *out)
{
    buf_printf(out, "invocations\nstatus %d %d\nagent %s %d\nafter %d %lld\nbefore %d %lld\n", l->by_status,
               l->by_status ? (int)l->status : 0, l->agent, l->version, l->has_after, (long long)l->after.us,
               l->has_before, (long long)l->before.us);
    scope_id("batch", l->has_batch, l->batch, out);
    scope_id("retry_of", !uuid_is_zero(l->retry_of), l->retry_of, out);
    buf_cstr_append(out, "metadata ");
    listing_metadata(l, out);
}
